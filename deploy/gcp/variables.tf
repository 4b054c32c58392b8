variable "project" {
  description = "Id of the project that everything is made in; it has billing."
  type        = string
}

variable "region" {
  description = "Region of network, bucket and images."
  type        = string
  default     = "europe-west1"
}

variable "zone" {
  description = "Zone of both machines, in the region."
  type        = string
  default     = "europe-west1-b"
}

variable "bucket" {
  description = "Name of the bucket; all of Google Cloud shares these names."
  type        = string
}

variable "repository" {
  description = "The GitHub repository whose workflows deploy and train, as OWNER/NAME."
  type        = string

  validation {
    condition     = can(regex("^[^/]+/[^/]+$", var.repository))
    error_message = "As OWNER/NAME."
  }
}

variable "environment" {
  description = "The repository's environment in which workflows may act here; its rules say who lets them."
  type        = string
  default     = "production"
}

variable "callers" {
  description = "Address ranges that may ask for predictions, over the network's own addresses."
  type        = list(string)
  default     = []
}

variable "people" {
  description = "Who may log in to the machines over IAP, such as user:me@example.com."
  type        = list(string)
  default     = []
}

variable "serving_machine" {
  description = "Type of the machine with Kafka and predictor."
  type        = string
  default     = "e2-standard-2"
}

variable "monitoring_machine" {
  description = "Type of the machine with MLflow, trainer, drift worker, Prometheus, Alertmanager and Grafana."
  type        = string
  default     = "e2-standard-4"
}
