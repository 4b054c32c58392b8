"""Every metric of the predictor."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("driftloop_predictor_requests_total", "Answers to /predict.", ["status", "version"])
SECONDS = Histogram(
    "driftloop_predictor_request_seconds",
    "From a request's arrival to its answer, its event published.",
    buckets=[0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10],
)
ROWS = Counter("driftloop_predictor_rows_total", "Rows that were scored.", ["version"])
IN_SERVICE = Gauge("driftloop_predictor_version_in_service", "1 for the version that answers.", ["model", "version"])
SWAPS = Counter("driftloop_predictor_swaps_total", "Versions taken into service.")
REFUSALS = Counter("driftloop_predictor_refused_versions_total", "Versions that were not taken into service.")
OUTCOMES = Counter("driftloop_predictor_outcomes_total", "Outcomes that were reported.")
