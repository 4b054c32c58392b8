"""The next step that a person should take, as one query: the most urgent step whose condition holds."""

from typing import NamedTuple

from grafana.panels import BLUE, GREEN, ORANGE, RED

SERVING = 'on (model, version) (driftloop_predictor_serving_version_info{model="$model"} > 0)'


class Step(NamedTuple):
    """An action for a person, and the query that has a result while it should be taken."""

    condition: str
    """Contains no threshold of its own: thresholds are in the alert rules."""
    text: str
    color: str


def firing(alert: str) -> str:
    """Return a query that has a result while ``alert`` fires."""
    return f'ALERTS{{alertname="{alert}", alertstate="firing"}}'


STEPS = (  # the most urgent first
    Step('up{job=~"predictor|drift_worker|trainer"} == 0', "Start the service that is down: see Pipeline", RED),
    Step(
        'absent(driftloop_predictor_serving_version_info{model="$model"} > 0)',
        "Train a first version: driftloop retrain",
        RED,
    ),
    Step(
        "driftloop_predictor_alias_version_rejected == 1",
        "A predictor rejects the alias' version: its /models says why",
        RED,
    ),
    Step(firing("QualityDegraded"), "Quality is below what the gate measured: request a retrain", RED),
    Step('ALERTS{severity="critical", alertstate="firing"}', "A critical alert fires: follow its runbook", RED),
    Step(
        f"{firing('DriftSustained')} and on (model) driftloop_trainer_policy_missing_outcome_days > 0",
        "The data has drifted; a retrain can help once more days have outcomes",
        ORANGE,
    ),
    Step(
        firing("DriftSustained"),
        "The data has drifted: look at the drifted columns; request a retrain if the change is permanent",
        ORANGE,
    ),
    Step(
        'driftloop_trainer_last_retrain_timestamp_seconds{model="$model", state="failed"} '
        "== on (model) group_left () max by (model) (driftloop_trainer_last_retrain_timestamp_seconds)",
        "The latest retrain failed: driftloop status says why",
        ORANGE,
    ),
    Step('ALERTS{alertstate="firing"}', "An alert fires: follow its runbook", ORANGE),
    Step(
        f'absent(driftloop_drift_window_score{{model="$model"}} and {SERVING})',
        "Send requests: no window of the serving version has a verdict yet",
        BLUE,
    ),
    Step(
        f'absent(driftloop_quality{{model="$model"}} and {SERVING})',
        "Report outcomes: the quality of the serving version is not known yet",
        BLUE,
    ),
    Step(
        f'driftloop_drift_window_alarm{{model="$model"}} == 1 and {SERVING}',
        "The latest window raised an alarm: wait for the next windows",
        BLUE,
    ),
)
NO_STEP = ("No action needed", GREEN)
STEP_TEXTS = {number: (step.text, step.color) for number, step in enumerate(STEPS, start=1)} | {0: NO_STEP}


def next_step() -> str:
    """Return a query with one result: the number of the most urgent step whose condition holds, 0 for none."""
    steps = [f"max({step.condition}) * 0 + {number}" for number, step in enumerate(STEPS, start=1)]
    return "\nor ".join([*steps, "vector(0)"])
