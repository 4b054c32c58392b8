terraform {
  required_version = ">= 1.9"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 7.0"
    }
  }

  # Where what has been made is written down. The bucket is made by hand beforehand: see README.md.
  backend "gcs" {
    prefix = "driftloop"
  }
}

provider "google" {
  project = var.project
  region  = var.region
  zone    = var.zone
}
