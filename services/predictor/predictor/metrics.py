"""Every metric of the predictor. Its processes write them to one folder, where they are added up."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter(
    "driftloop_predictor_requests_total",
    "Answered prediction requests. A growing part with status 5xx is an error of the predictor; 503 means that no "
    "version serves or that queue or outbox are full.",
    ["protocol", "status", "version"],
)
REPEATED_REQUESTS = Counter(
    "driftloop_predictor_repeated_requests_total",
    "Requests that were answered with the prediction of the same request before, see "
    "DRIFTLOOP_PREDICTOR__REPEAT_WINDOW_SECONDS.",
)
REQUEST_SECONDS = Histogram(
    "driftloop_predictor_request_duration_seconds",
    "Duration of prediction requests from arrival to answer, including the commit of the event to the outbox.",
    buckets=[0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10],
)
ROWS = Counter("driftloop_predictor_rows_total", "Rows that were scored, by version.", ["version"])
BATCH_ROWS = Histogram(
    "driftloop_predictor_batch_rows",
    "Rows in a batch, all of which are scored in one call of the model.",
    buckets=[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000],
)
BATCH_DURATION = Histogram(
    "driftloop_predictor_batch_duration_seconds",
    "Duration of scoring a batch and of committing its events to the outbox.",
    buckets=[0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5],
)
QUEUED_ROWS = Gauge(
    "driftloop_predictor_queued_rows",
    "Rows that wait to be scored. Requests are rejected with 503 when the queue is full.",
    multiprocess_mode="livesum",
)
SERVING_VERSION = Gauge(
    "driftloop_predictor_serving_version_info",
    "Number of predictor processes that serve the version; 0 for a version that is no longer served.",
    ["model", "version"],
    multiprocess_mode="livesum",
)
MODEL_SWAPS = Counter(
    "driftloop_predictor_model_swaps_total",
    "Times that a process has put another version into service, including the first one after its start.",
)
REJECTIONS = Counter(
    "driftloop_predictor_rejected_versions_total",
    "Times that a process has rejected a version and kept serving the previous one.",
)
ALIAS_REJECTED = Gauge(
    "driftloop_predictor_alias_version_rejected",
    "1 while the predictor rejects the version that the alias names, else 0; GET /models says why.",
    multiprocess_mode="livemax",
)
ALIAS_MISSING = Gauge(
    "driftloop_predictor_alias_missing",
    "1 while no version has the alias: the version in service keeps serving, but a new one would not be found.",
    multiprocess_mode="livemax",
)
ALIAS_NOT_SERVED = Gauge(
    "driftloop_predictor_alias_not_served",
    "1 while the predictor serves another version than the alias names, or one of the same number of a model that was "
    "deleted and made again; else 0. After a promotion that lasts for seconds.",
    multiprocess_mode="livemax",
)
VERSION_FAILING = Gauge(
    "driftloop_predictor_version_failing",
    "1 while the version in service has answered none of its last requests; GET /readyz says why.",
    multiprocess_mode="livemax",
)
OUTCOMES = Counter("driftloop_predictor_outcomes_total", "Outcomes that were reported to the predictor.")
UNMATCHABLE_OUTCOMES = Counter(
    "driftloop_predictor_unmatchable_outcomes_total",
    "Outcomes whose id no predictor gives, so that they will never match a prediction. An increase means that a client "
    "reports other ids than those of the responses.",
)
OUTBOX_PENDING = Gauge(
    "driftloop_outbox_pending_events",
    "Events in the outbox that are not published yet. Worrying if it keeps growing.",
    multiprocess_mode="mostrecent",
)
OUTBOX_OLDEST_AGE = Gauge(
    "driftloop_outbox_oldest_event_age_seconds",
    "How long the oldest unpublished event has been in the outbox; 0 if the outbox is empty. Worrying above a minute.",
    multiprocess_mode="mostrecent",
)
OUTBOX_LIMIT = Gauge(
    "driftloop_outbox_max_pending_events",
    "How many unpublished events the outbox holds at most. At the limit requests are rejected or events are dropped, "
    "as DRIFTLOOP_OUTBOX__ON_FULL says.",
    multiprocess_mode="mostrecent",
)
OUTBOX_DROPPED = Counter(
    "driftloop_outbox_dropped_events_total",
    "Events that were dropped because the outbox was full. They are lost, so any increase is worrying.",
)
OUTBOX_RELAYED = Counter("driftloop_outbox_relayed_events_total", "Events that the relay has published.")
RELAY_RESTARTS = Counter(
    "driftloop_outbox_relay_restarts_total",
    "Times that the relay has connected again after an error. A steady increase means that it cannot publish.",
)
OUTBOX_FREE = Gauge(
    "driftloop_outbox_free_bytes",
    "Room for events on the outbox's disk; at 0 the outbox counts as full, see DRIFTLOOP_OUTBOX__MIN_FREE_BYTES.",
    multiprocess_mode="mostrecent",
)
OUTBOX_RENAMED = Counter(
    "driftloop_outbox_renamed_total",
    "Times that the outbox has taken a new name, because the broker had positions of its name that are not of this "
    "file: the folder was restored from a copy, or another predictor uses a copy of it.",
)
TRIM_FAILURES = Counter(
    "driftloop_outbox_trim_failures_total",
    "Times that published events could not be deleted from the outbox. They are not published again, but its disk is "
    "full or fails.",
)
CLOCK_SKEW = Gauge(
    "driftloop_outbox_clock_skew_seconds",
    "Time of the predictor's machine minus the broker's, known only where topics have the broker's time "
    "(message.timestamp.type=LogAppendTime). Worrying above a minute, and below minus one.",
    multiprocess_mode="mostrecent",
)
