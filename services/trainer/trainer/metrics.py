"""Every metric of the trainer."""

from prometheus_client import Counter, Gauge, Summary

RETRAINS = Counter(
    "driftloop_trainer_retrains_total", "Retrains by what asked for them and how they ended.", ["trigger", "state"]
)
SECONDS = Summary("driftloop_trainer_retrain_seconds", "From the begin of a training to its final state.")
PHASE_SECONDS = Summary("driftloop_trainer_phase_seconds", "How long each phase of trainings took.", ["phase"])
FIGURES = Gauge(
    "driftloop_trainer_gate_figure",
    "What the latest gate measured on held-out rows, of champion and challenger.",
    ["model", "role", "figure"],
)
POLICY = Counter(
    "driftloop_trainer_policy_decisions_total", "What the policy said, by what it said.", ["model", "decision"]
)
LACKING_DAYS = Gauge(
    "driftloop_trainer_policy_lacking_days",
    "Days of outcomes that are missing before a retrain, for which there is a reason, can help.",
    ["model"],
)
