# The machines have no address of their own on the internet. They reach it through NAT, and Google's services directly.

locals {
  iap = "35.235.240.0/20" # where logins over IAP come from

  # What the monitoring machine asks the serving one for: events, and metrics behind the gateway.
  from_monitoring = ["9093", "8443"]
  # Where predictions are asked for.
  from_callers = ["443"]
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
  target_service_accounts = [for machine in ["serving", "monitoring"] : google_service_account.driftloop[machine].email]

  allow {
    protocol = "tcp"
    ports    = ["22"]
  }
}

resource "google_compute_firewall" "monitoring" {
  name                    = "driftloop-monitoring"
  network                 = google_compute_network.driftloop.id
  source_service_accounts = [google_service_account.driftloop["monitoring"].email]
  target_service_accounts = [google_service_account.driftloop["serving"].email]

  allow {
    protocol = "tcp"
    ports    = local.from_monitoring
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
    ports    = local.from_callers
  }
}
