# Workflows prove who they are by GitHub's own tokens. Only jobs of the one repository and its one environment are
# listened to, whose rules say who may let a job run there; the workflow's file decides for which account it acts.

resource "google_iam_workload_identity_pool" "github" {
  workload_identity_pool_id = "github"
  display_name              = "GitHub Actions"

  depends_on = [google_project_service.needed]
}

resource "google_iam_workload_identity_pool_provider" "github" {
  workload_identity_pool_id          = google_iam_workload_identity_pool.github.workload_identity_pool_id
  workload_identity_pool_provider_id = "github"
  display_name                       = "GitHub Actions"
  attribute_condition                = "assertion.repository == \"${var.repository}\" && assertion.environment == \"${var.environment}\""

  attribute_mapping = {
    "google.subject"     = "assertion.sub"
    "attribute.workflow" = "assertion.workflow_ref.extract('/.github/workflows/{name}.yaml@')"
  }

  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

resource "google_service_account_iam_member" "workflow" {
  for_each = toset(["release", "deploy", "retrain", "train"])

  service_account_id = google_service_account.driftloop[each.key].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.github.name}/attribute.workflow/${each.key}"
}
