# Who logs in over IAP: people and the workflow that deploys, as administrators of both machines; and the workflow that
# asks for retrains, which reaches the trainer through its login. To do so one finds the machine, reaches it, may log in,
# and acts as the machine's account, as whoever is on it does.

locals {
  # By name, since accounts are not known before they have been made, and a key has to be.
  members = merge(
    { for person in var.people : person => person },
    { for workflow in ["deploy", "retrain"] : workflow => google_service_account.driftloop[workflow].member },
  )

  logins = merge(
    {
      for pair in setproduct(keys(local.machines), concat(["deploy"], var.people)) :
      "${pair[0]}: ${pair[1]}" => { machine = pair[0], who = pair[1], role = "roles/compute.osAdminLogin" }
    },
    { "monitoring: retrain" = { machine = "monitoring", who = "retrain", role = "roles/compute.osLogin" } },
  )
}

resource "google_project_iam_custom_role" "find" {
  role_id     = "driftloopFind"
  title       = "driftloop: find machines"
  permissions = ["compute.instances.get", "compute.projects.get"]

  depends_on = [google_project_service.needed]
}

resource "google_project_iam_member" "find" {
  for_each = toset(concat(["deploy", "retrain"], var.people))

  project = var.project
  role    = google_project_iam_custom_role.find.name
  member  = local.members[each.key]
}

resource "google_iap_tunnel_instance_iam_member" "reach" {
  for_each = local.logins

  zone     = var.zone
  instance = google_compute_instance.machine[each.value.machine].name
  role     = "roles/iap.tunnelResourceAccessor"
  member   = local.members[each.value.who]
}

resource "google_compute_instance_iam_member" "login" {
  for_each = local.logins

  zone          = var.zone
  instance_name = google_compute_instance.machine[each.value.machine].name
  role          = each.value.role
  member        = local.members[each.value.who]
}

resource "google_service_account_iam_member" "act" {
  for_each = local.logins

  service_account_id = google_service_account.driftloop[each.value.machine].name
  role               = "roles/iam.serviceAccountUser"
  member             = local.members[each.value.who]
}
