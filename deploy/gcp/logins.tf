# Who logs in to the machines, over IAP: people, and the workflow that deploys. To do so one finds the machine, reaches it,
# is its administrator, and acts as its account, as whoever is on the machine does.

locals {
  deployer = "the workflow that deploys" # its account is not known before it has been made, and a key has to be
  logins = {
    for pair in setproduct(keys(local.machines), concat([local.deployer], var.people)) :
    "${pair[0]}: ${pair[1]}" => { machine = pair[0], who = pair[1] }
  }
  members = merge(
    { for person in var.people : person => person },
    { (local.deployer) = google_service_account.driftloop["deploy"].member },
  )
}

resource "google_project_iam_custom_role" "find" {
  role_id     = "driftloopFind"
  title       = "driftloop: find machines"
  permissions = ["compute.instances.get", "compute.projects.get"]

  depends_on = [google_project_service.needed]
}

resource "google_project_iam_member" "find" {
  for_each = toset(concat([local.deployer], var.people))

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

resource "google_compute_instance_iam_member" "administer" {
  for_each = local.logins

  zone          = var.zone
  instance_name = google_compute_instance.machine[each.value.machine].name
  role          = "roles/compute.osAdminLogin"
  member        = local.members[each.value.who]
}

resource "google_service_account_iam_member" "act" {
  for_each = local.logins

  service_account_id = google_service_account.driftloop[each.value.machine].name
  role               = "roles/iam.serviceAccountUser"
  member             = local.members[each.value.who]
}
