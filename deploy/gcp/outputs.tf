output "addresses" {
  description = "SERVING_ADDRESS and, of the monitoring machine, TRAINING_ADDRESS of compose/.env."
  value       = { for name, machine in google_compute_instance.machine : name => machine.network_interface[0].network_ip }
}

output "images" {
  description = "IMAGES of compose/.env, and DRIFTLOOP_IMAGES of the workflows."
  value       = "${google_artifact_registry_repository.images.location}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.name}/driftloop"
}

output "identity_provider" {
  description = "GCP_IDENTITY_PROVIDER of the workflows."
  value       = google_iam_workload_identity_pool_provider.github.name
}

output "accounts" {
  description = "For whom machines and workflows act: GCP_RELEASE_ACCOUNT and so on."
  value       = { for name, account in google_service_account.driftloop : name => account.email }
}
