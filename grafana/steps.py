"""The next step that a person should take, as one query: the most urgent of those whose condition holds."""

from typing import NamedTuple

from grafana.panels import BLUE, GREEN, ORANGE, RED

SERVING = 'on (model, version) (driftloop_predictor_serving_version_info{model="$model"} > 0)'


class Step(NamedTuple):
    """What to do, and the query that has a result while it should be done."""

    condition: str
    """Has no limit of its own: those stand in the alerts."""
    text: str
    color: str


def alert(name: str) -> str:
    """While an alert of the rules fires."""
    return f'ALERTS{{alertname="{name}", alertstate="firing"}}'


STEPS = (  # the most urgent first
    Step('up{job=~"predictor|drift_worker|trainer"} == 0', "Start the part that is down: see Pipeline", RED),
    Step(
        'absent(driftloop_predictor_serving_version_info{model="$model"} > 0)',
        "Train a first version: driftloop retrain",
        RED,
    ),
    Step(
        "driftloop_predictor_alias_version_rejected == 1",
        "The newest version is refused: the predictor's /models says why",
        RED,
    ),
    Step(alert("QualityDegraded"), "The model has become worse than its gate measured: ask for a retrain", RED),
    Step('ALERTS{severity="critical", alertstate="firing"}', "An alert fires: follow its runbook", RED),
    Step(
        f"{alert('DriftSustained')} and on (model) driftloop_trainer_policy_missing_outcome_days > 0",
        "The data has drifted; a retrain can help once more days have outcomes",
        ORANGE,
    ),
    Step(
        alert("DriftSustained"),
        "The data has drifted: look at the red columns, ask for a retrain if it is to stay",
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
        "Send requests: no window of the version in service has been judged yet",
        BLUE,
    ),
    Step(
        f'absent(driftloop_quality{{model="$model"}} and {SERVING})',
        "Report outcomes: how good the version in service is nobody knows yet",
        BLUE,
    ),
    Step(
        f'driftloop_drift_window_alarm{{model="$model"}} == 1 and {SERVING}',
        "The latest window alarms: see whether those after it do too",
        BLUE,
    ),
)
NOTHING = ("Nothing: the loop turns", GREEN)
SHOWN = {number: (step.text, step.color) for number, step in enumerate(STEPS, start=1)} | {0: NOTHING}


def next_step() -> str:
    """A query with one result: the number of the step, 0 for none."""
    wanted = [f"max({step.condition}) * 0 + {number}" for number, step in enumerate(STEPS, start=1)]
    return "\nor ".join([*wanted, "vector(0)"])
