"""Every metric of the trainer."""

from prometheus_client import Counter, Gauge, Summary

RETRAINS = Counter(
    "driftloop_trainer_retrains_total", "Retrains by what asked for them and how they ended.", ["trigger", "state"]
)
SECONDS = Summary("driftloop_trainer_retrain_seconds", "From taking a retrain event to its final state.")
HELD_OUT = Gauge(
    "driftloop_trainer_held_out_roc_auc", "ROC AUC on the rows held out by the latest gate.", ["model", "role"]
)
ROWS = Gauge("driftloop_trainer_training_rows", "Labelled rows that the latest challenger was trained on.", ["model"])
