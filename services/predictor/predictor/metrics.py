"""Every metric of the predictor. Its processes write them to one folder, where they add up."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter(
    "driftloop_predictor_requests_total", "Answers to requests for predictions.", ["protocol", "status", "version"]
)
SECONDS = Histogram(
    "driftloop_predictor_request_seconds",
    "From a request's arrival to its answer, its event in the outbox.",
    buckets=[0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10],
)
ROWS = Counter("driftloop_predictor_rows_total", "Rows that were scored.", ["version"])
BATCH_ROWS = Histogram(
    "driftloop_predictor_batch_rows",
    "Rows that were scored at once.",
    buckets=[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000],
)
BATCH_SECONDS = Histogram(
    "driftloop_predictor_batch_seconds",
    "Scoring a batch and keeping its events.",
    buckets=[0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5],
)
QUEUED = Gauge("driftloop_predictor_queued_rows", "Rows that wait to be scored.", multiprocess_mode="livesum")
IN_SERVICE = Gauge(
    "driftloop_predictor_version_in_service",
    "Processes that answer with the version.",
    ["model", "version"],
    multiprocess_mode="livesum",
)
SWAPS = Counter("driftloop_predictor_swaps_total", "Versions taken into service.")
REFUSALS = Counter("driftloop_predictor_refused_versions_total", "Versions that were not taken into service.")
REFUSED = Gauge(
    "driftloop_predictor_version_refused",
    "1 while the alias names a version that is refused.",
    multiprocess_mode="livemax",
)
OUTCOMES = Counter("driftloop_predictor_outcomes_total", "Outcomes that were reported.")
WAITING = Gauge("driftloop_outbox_events", "Events that wait for the broker.", multiprocess_mode="mostrecent")
AGE = Gauge(
    "driftloop_outbox_oldest_seconds", "How long the oldest of them has waited.", multiprocess_mode="mostrecent"
)
MOST_WAITING = Gauge(
    "driftloop_outbox_limit_events",
    "How many may wait; from then on requests are refused, or events dropped, as is set.",
    multiprocess_mode="mostrecent",
)
DROPPED = Counter("driftloop_outbox_dropped_total", "Events that were dropped because the outbox was full.")
RELAYED = Counter("driftloop_outbox_relayed_total", "Events that the relay has published.")
RELAY_FAULTS = Counter("driftloop_outbox_relay_faults_total", "Times that the relay began anew.")
