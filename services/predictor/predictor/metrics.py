"""Every metric of the predictor. Its processes write them to one folder, where they add up."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter(
    "driftloop_predictor_requests_total", "Answers to requests for predictions.", ["protocol", "status", "version"]
)
REQUEST_SECONDS = Histogram(
    "driftloop_predictor_request_duration_seconds",
    "From a request's arrival to its answer, its event in the outbox.",
    buckets=[0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10],
)
ROWS = Counter("driftloop_predictor_rows_total", "Rows that were scored.", ["version"])
BATCH_ROWS = Histogram(
    "driftloop_predictor_batch_rows",
    "Rows that were scored at once.",
    buckets=[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000],
)
BATCH_DURATION = Histogram(
    "driftloop_predictor_batch_duration_seconds",
    "Scoring a batch and keeping its events.",
    buckets=[0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5],
)
QUEUED_ROWS = Gauge("driftloop_predictor_queued_rows", "Rows that wait to be scored.", multiprocess_mode="livesum")
SERVING_VERSION = Gauge(
    "driftloop_predictor_serving_version_info",
    "Processes that answer with the version.",
    ["model", "version"],
    multiprocess_mode="livesum",
)
MODEL_SWAPS = Counter("driftloop_predictor_model_swaps_total", "Versions taken into service.")
REJECTIONS = Counter("driftloop_predictor_rejected_versions_total", "Versions that were not taken into service.")
ALIAS_REJECTED = Gauge(
    "driftloop_predictor_alias_version_rejected",
    "1 while the alias names a version that is refused.",
    multiprocess_mode="livemax",
)
OUTCOMES = Counter("driftloop_predictor_outcomes_total", "Outcomes that were reported.")
OUTBOX_PENDING = Gauge(
    "driftloop_outbox_pending_events", "Events that wait for the broker.", multiprocess_mode="mostrecent"
)
OUTBOX_OLDEST_AGE = Gauge(
    "driftloop_outbox_oldest_event_age_seconds",
    "How long the oldest of them has waited.",
    multiprocess_mode="mostrecent",
)
OUTBOX_LIMIT = Gauge(
    "driftloop_outbox_max_pending_events",
    "How many may wait; from then on requests are refused, or events dropped, as is set.",
    multiprocess_mode="mostrecent",
)
OUTBOX_DROPPED = Counter(
    "driftloop_outbox_dropped_events_total", "Events that were dropped because the outbox was full."
)
OUTBOX_RELAYED = Counter("driftloop_outbox_relayed_events_total", "Events that the relay has published.")
RELAY_RESTARTS = Counter("driftloop_outbox_relay_restarts_total", "Times that the relay began anew.")
