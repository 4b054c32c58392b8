"""The quality of a version in service compared with what it had at the gate. Pure."""

from typing import Literal, NamedTuple

from driftloop.errors import InvalidInput
from driftloop.evaluation.bootstrap import as_gain, unpaired_difference
from driftloop.evaluation.metric import Metric, find_metric
from driftloop.evaluation.metric_names import LOWER_IS_BETTER, choose_headline, format_interval, metric_label
from driftloop.evaluation.targets import Target
from driftloop.events import Evaluation, QualityReason


class GateComparison(NamedTuple):
    """The verdict on an evaluation in service compared with the gate's evaluation."""

    verdict: Literal["consistent", "degraded", "improved", "inconclusive"]
    explanation: str
    reason: QualityReason | None = None
    """Why the verdict is inconclusive."""


def compare_with_gate(in_service: Evaluation, at_gate: Evaluation | None) -> GateComparison:
    """Compare an evaluation in service with the gate's evaluation."""
    name = choose_headline(in_service.headline, in_service.metrics)
    if name is None:
        explanation = f"all outcomes of {in_service.rows:,} rows are equal"
        return GateComparison("inconclusive", explanation, "metric_undefined")
    text = f"{_describe(name, in_service)} in service"
    if in_service.resampling_unit == "rows":
        text += f" (too few days to resample: {in_service.days}; rows are resampled, so intervals are too narrow)"
    if at_gate is None or name not in at_gate.metrics:
        explanation = f"{text}; no gate has evaluated this version"
        return GateComparison("inconclusive", explanation, "not_evaluated_at_gate")
    difference = unpaired_difference(in_service.metrics[name], at_gate.metrics[name])
    text += f", {_describe(name, at_gate)} at the gate: a difference of "
    text += f"{format_interval(name, difference, signed=True)} at 95 %"
    if difference.low <= 0 <= difference.high:
        return GateComparison("consistent", text)
    gain = as_gain(difference, lower_is_better=name in LOWER_IS_BETTER)
    return GateComparison("improved" if gain.low > 0 else "degraded", text)


def _describe(name: str, evaluation: Evaluation) -> str:
    interval = format_interval(name, evaluation.metrics[name])
    return f"{metric_label(name)} {interval} on {evaluation.rows:,} rows of {evaluation.days} days"


def headline_metric(at_gate: Evaluation | None, target: Target) -> Metric | None:
    """Return the metric by which the gate has compared versions; ``None`` if it is a use case's own function."""
    if at_gate is None or at_gate.headline is None:
        return None
    try:
        return find_metric(at_gate.headline, target)
    except InvalidInput:
        return None
