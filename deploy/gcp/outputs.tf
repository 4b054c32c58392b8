output "addresses" {
  description = "Of the machines, in the network."
  value       = { for name, machine in google_compute_instance.machine : name => machine.network_interface[0].network_ip }
}

output "images" {
  description = "Where images are pushed to and pulled from."
  value       = "${google_artifact_registry_repository.images.location}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.name}"
}

output "identity_provider" {
  description = "What workflows show their token to."
  value       = google_iam_workload_identity_pool_provider.github.name
}

output "accounts" {
  description = "For whom machines and workflows act."
  value       = { for name, account in google_service_account.driftloop : name => account.email }
}
