# One account a machine, since its containers share it, and one a job of the workflows. None has a key.

locals {
  accounts = {
    serving    = "machine with Kafka and predictor"
    monitoring = "machine with MLflow, trainer, drift worker, Prometheus and Grafana"
    release    = "workflow that pushes images"
    deploy     = "workflow that updates the machines"
    retrain    = "workflow that asks for retrains"
    train      = "workflow that trains on a runner"
  }

  # What an account may do below a folder of the bucket: read, or write and delete too. The serving machine has no
  # business there: artifacts come through MLflow.
  folders = [
    { account = "monitoring", folder = "archive/", role = "roles/storage.objectUser" },
    { account = "monitoring", folder = "datasets/", role = "roles/storage.objectUser" },
    { account = "monitoring", folder = "erasures/", role = "roles/storage.objectUser" },
    { account = "monitoring", folder = "mlflow/", role = "roles/storage.objectUser" },
    { account = "monitoring", folder = "references/", role = "roles/storage.objectUser" },
    { account = "monitoring", folder = "reports/", role = "roles/storage.objectUser" },
    { account = "monitoring", folder = "slices/", role = "roles/storage.objectUser" },
    { account = "train", folder = "archive/", role = "roles/storage.objectViewer" },
    { account = "train", folder = "datasets/", role = "roles/storage.objectUser" },
    { account = "train", folder = "references/", role = "roles/storage.objectUser" },
    { account = "train", folder = "slices/", role = "roles/storage.objectViewer" },
  ]
}

resource "google_service_account" "driftloop" {
  for_each = local.accounts

  account_id   = "driftloop-${each.key}"
  display_name = "driftloop: ${each.value}"

  depends_on = [google_project_service.needed]
}

resource "google_storage_bucket_iam_member" "folder" {
  for_each = { for one in local.folders : "${one.account} ${one.folder}" => one }

  bucket = google_storage_bucket.data.name
  role   = each.value.role
  member = google_service_account.driftloop[each.value.account].member

  condition {
    title      = "below ${each.value.folder}"
    expression = "resource.name.startsWith(\"projects/_/buckets/${google_storage_bucket.data.name}/objects/${each.value.folder}\")"
  }
}

# Names are listed of a bucket, not of a folder, so that a condition would forbid it.
resource "google_storage_bucket_iam_member" "names" {
  for_each = toset(local.folders[*].account)

  bucket = google_storage_bucket.data.name
  role   = "roles/storage.legacyBucketReader"
  member = google_service_account.driftloop[each.key].member
}

resource "google_artifact_registry_repository_iam_member" "pull" {
  for_each = toset(["serving", "monitoring"])

  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.driftloop[each.key].member
}

resource "google_artifact_registry_repository_iam_member" "push" {
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.driftloop["release"].member
}
