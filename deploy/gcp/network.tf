# The machines have no address of their own on the internet. They reach it through NAT, and Google's services directly.

locals {
  iap = "35.235.240.0/20" # where logins over IAP come from

  # What a machine takes: from the other one with its certificate (docs/containers.md), and from those who ask.
  takes = {
    serving    = { from = "monitoring", ports = ["8443", "9094"] }
    monitoring = { from = "serving", ports = ["5443"] }
  }
  predictions = ["443", "8000"]
}

resource "google_compute_network" "driftloop" {
  name                    = "driftloop"
  auto_create_subnetworks = false

  depends_on = [google_project_service.needed]
}

resource "google_compute_subnetwork" "driftloop" {
  name                     = "driftloop"
  network                  = google_compute_network.driftloop.id
  region                   = var.region
  ip_cidr_range            = "10.20.0.0/24"
  private_ip_google_access = true
}

resource "google_compute_router" "driftloop" {
  name    = "driftloop"
  network = google_compute_network.driftloop.id
  region  = var.region
}

resource "google_compute_router_nat" "out" {
  name                               = "driftloop"
  router                             = google_compute_router.driftloop.name
  region                             = var.region
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "ALL_SUBNETWORKS_ALL_IP_RANGES"

  log_config {
    enable = true
    filter = "ERRORS_ONLY"
  }
}

# Whatever no rule lets in stays out: that is a network's default.

resource "google_compute_firewall" "logins" {
  name                    = "driftloop-logins"
  network                 = google_compute_network.driftloop.id
  source_ranges           = [local.iap]
  target_service_accounts = [for machine in keys(local.machines) : google_service_account.driftloop[machine].email]

  allow {
    protocol = "tcp"
    ports    = ["22"]
  }
}

resource "google_compute_firewall" "machines" {
  for_each = local.takes

  name                    = "driftloop-${each.value.from}-to-${each.key}"
  network                 = google_compute_network.driftloop.id
  source_service_accounts = [google_service_account.driftloop[each.value.from].email]
  target_service_accounts = [google_service_account.driftloop[each.key].email]

  allow {
    protocol = "tcp"
    ports    = each.value.ports
  }
}

resource "google_compute_firewall" "callers" {
  count = length(var.callers) > 0 ? 1 : 0

  name                    = "driftloop-callers"
  network                 = google_compute_network.driftloop.id
  source_ranges           = var.callers
  target_service_accounts = [google_service_account.driftloop["serving"].email]

  allow {
    protocol = "tcp"
    ports    = local.predictions
  }
}
