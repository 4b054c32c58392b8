"""Every metric of the trainer."""

from itertools import product

from prometheus_client import Counter, Gauge, Histogram, Summary

RETRAINS = Counter(
    "driftloop_trainer_retrains_total", "Retrains by what asked for them and how they ended.", ["trigger", "state"]
)
for trigger, state in product(("manual", "drift", "schedule"), ("promoted", "rejected", "failed")):
    RETRAINS.labels(trigger, state)  # from the start: Prometheus takes no notice of a counter's first value
LAST_RETRAIN = Gauge(
    "driftloop_trainer_last_retrain_timestamp_seconds",
    "When the latest retrain ended that ended so; unset where none has.",
    ["model", "state"],
)
RETRAIN_DURATION = Summary(
    "driftloop_trainer_retrain_duration_seconds", "From the begin of a training to its final state."
)
PHASE_DURATION = Histogram(
    "driftloop_trainer_phase_duration_seconds",
    "How long the phases of trainings took, to a fifth of a second: start (of the process), data, training, gate, "
    "refit, trial, registration.",
    ["phase"],
    buckets=[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000],
)
DATASET_ROWS = Gauge(
    "driftloop_trainer_dataset_rows", "Rows with an outcome in the dataset of the latest retrain.", ["model"]
)
CHAMPION = Gauge("driftloop_trainer_champion_info", "1: the version that the alias names.", ["model", "version"])
GATE_METRICS = Gauge(
    "driftloop_trainer_gate_metric",
    "What the latest gate measured on held-out rows, of champion and challenger.",
    ["model", "role", "metric"],
)
POLICY_DECISIONS = Counter(
    "driftloop_trainer_policy_decisions_total", "What the policy said, by what it said.", ["model", "decision"]
)
MISSING_OUTCOME_DAYS = Gauge(
    "driftloop_trainer_policy_missing_outcome_days",
    "Days of outcomes that are missing before a retrain, for which there is a reason, can help.",
    ["model"],
)
