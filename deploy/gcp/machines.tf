locals {
  machines = {
    serving    = { type = var.serving_machine, disk = 50, address = 10 }
    monitoring = { type = var.monitoring_machine, disk = 50, address = 11 }
  }
}

# Everything that containers keep lies on a disk of its own, which outlasts the machine.
resource "google_compute_disk" "data" {
  for_each = local.machines

  name = "driftloop-${each.key}"
  type = "pd-balanced"
  zone = var.zone
  size = each.value.disk

  lifecycle {
    prevent_destroy = true
  }

  depends_on = [google_project_service.needed]
}

resource "google_compute_resource_policy" "nightly" {
  name   = "driftloop-nightly"
  region = var.region

  snapshot_schedule_policy {
    schedule {
      daily_schedule {
        days_in_cycle = 1
        start_time    = "03:00"
      }
    }
    retention_policy {
      max_retention_days = 7
    }
  }

  depends_on = [google_project_service.needed]
}

resource "google_compute_disk_resource_policy_attachment" "nightly" {
  for_each = local.machines

  name = google_compute_resource_policy.nightly.name
  disk = google_compute_disk.data[each.key].name
  zone = var.zone
}

resource "google_compute_instance" "machine" {
  for_each = local.machines

  name                      = "driftloop-${each.key}"
  machine_type              = each.value.type
  zone                      = var.zone
  allow_stopping_for_update = true
  deletion_protection       = true

  metadata = {
    enable-oslogin         = "TRUE"
    block-project-ssh-keys = "TRUE"
    startup-script         = file("${path.module}/startup.sh")
  }

  boot_disk {
    initialize_params {
      image = "debian-cloud/debian-13"
      size  = 20
      type  = "pd-balanced"
    }
  }

  attached_disk {
    source      = google_compute_disk.data[each.key].id
    device_name = "data"
  }

  network_interface {
    subnetwork = google_compute_subnetwork.driftloop.id
    network_ip = cidrhost(google_compute_subnetwork.driftloop.ip_cidr_range, each.value.address)
  }

  service_account {
    email  = google_service_account.driftloop[each.key].email
    scopes = ["cloud-platform"] # what it may do is decided by its roles
  }

  shielded_instance_config {
    enable_secure_boot          = true
    enable_vtpm                 = true
    enable_integrity_monitoring = true
  }

  # A newer image of Debian must not replace the machine: it updates itself.
  lifecycle {
    ignore_changes = [boot_disk[0].initialize_params[0].image]
  }
}
