"""Every metric of the trainer."""

from itertools import product

from prometheus_client import Counter, Gauge, Histogram, Summary

TRIGGERS = ("manual", "drift", "schedule")
RESULTS = ("promoted", "rejected", "failed")

RETRAINS = Counter(
    "driftloop_trainer_retrains_total",
    "Retrains that have ended, by what triggered them (manual, drift, schedule) and by their result (promoted, "
    "rejected, failed).",
    ["trigger", "state"],
)
LAST_RETRAIN = Gauge(
    "driftloop_trainer_last_retrain_timestamp_seconds",
    "When the latest retrain with this result ended; no series before the first one.",
    ["model", "state"],
)
RETRAIN_DURATION = Summary(
    "driftloop_trainer_retrain_duration_seconds",
    "Duration of retrains, from the start of the training process to the final state.",
)
PHASE_DURATION = Histogram(
    "driftloop_trainer_phase_duration_seconds",
    "Duration of each phase of a retrain, to within 0.2 s: start (of the process), data, training, gate, refit, "
    "smoke_test, registration.",
    ["phase"],
    buckets=[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000],
)
DATASET_ROWS = Gauge("driftloop_trainer_dataset_rows", "Labelled rows in the dataset of the latest retrain.", ["model"])
CHAMPION = Gauge(
    "driftloop_trainer_champion_info",
    "Always 1; the label names the version that the alias names in the registry.",
    ["model", "version"],
)
GATE_METRICS = Gauge(
    "driftloop_trainer_gate_metric",
    "Metrics of champion and challenger on the holdout of the latest gate; the label metric says which.",
    ["model", "role", "metric"],
)
POLICY_DECISIONS = Counter(
    "driftloop_trainer_policy_decisions_total",
    "Decisions of the policy about a retrain, one for each event it considers: retrain, nothing, training, cooldown, "
    "insufficient_outcomes, off.",
    ["model", "decision"],
)
MISSING_OUTCOME_DAYS = Gauge(
    "driftloop_trainer_policy_missing_outcome_days",
    "Days of outcomes that are missing before a retrain, for which the policy has a reason, can help; 0 if none are.",
    ["model"],
)


def initialize() -> None:
    """Create the counter of each trigger and result with the value 0.

    Prometheus sees an increase only between two values, so a series that starts at 1 would hide the first retrain.
    """
    for trigger, result in product(TRIGGERS, RESULTS):
        RETRAINS.labels(trigger, result)
