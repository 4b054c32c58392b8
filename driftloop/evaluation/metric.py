"""Metrics that versions are compared by: built-in ones, scikit-learn's scorers, one's own functions, and costs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from driftloop.errors import InvalidInput
from driftloop.evaluation import metrics
from driftloop.evaluation.block_bootstrap import BlockBootstrap, without_resamples
from driftloop.evaluation.metric_names import LOWER_IS_BETTER, canonical_metric_name
from driftloop.evaluation.metrics import FloatArray
from driftloop.evaluation.targets import Target, TargetKind
from driftloop.events import Label

BINS = 10  # as in most papers that report a calibration error
MAX_RESAMPLES = 400  # of a metric that has to be computed again for each; a standard error is then known to 4 %
ABSOLUTE_MARGIN = frozenset({"brier", "calibration_error", "bias"})  # lower is better, but the scale is fixed


@dataclass(frozen=True)
class Metric:
    """A metric of predictions against outcomes."""

    name: str
    resampled: Callable[[FloatArray, FloatArray, BlockBootstrap], FloatArray]
    """Returns the metric of each resample from outcomes, predictions and the resamples; NaN where it is undefined."""
    lower_is_better: bool = False
    margin_is_relative: bool = False
    """Whether a margin is a fraction of the metric's value, because the metric has a unit or no fixed range."""

    def compute(self, outcomes: FloatArray, predictions: FloatArray) -> float:
        """Return the metric of all rows; NaN where it is undefined, such as a ROC AUC with equal outcomes only."""
        return float(self.resampled(outcomes, predictions, without_resamples(len(outcomes)))[0])


@dataclass(frozen=True)
class CustomMetric:
    """A use case's own metric."""

    name: str
    """A lower-case name with underscores."""
    function: Callable[[FloatArray, FloatArray], float]
    """Returns the metric from outcomes and predictions. Outcomes are numbers or positions of classes; predictions are
    numbers, probabilities of the second class, or one line of probabilities for each row."""
    greater_is_better: bool


@dataclass(frozen=True)
class CostMatrix:
    """What decisions cost; versions are compared by their mean cost for a row, where lower is better.

    For each row the class with the lowest expected cost is chosen.
    """

    costs: Mapping[tuple[Label, Label], float]
    """Cost of each pair of what really happened and what was chosen; pairs that are left out cost nothing. A gain is
    negative."""
    name: str = "cost"


MetricSpec = str | CustomMetric | CostMatrix


def _mean_of(row_values: Callable[[FloatArray, FloatArray], FloatArray]) -> Callable[..., FloatArray]:
    def resampled(outcomes: FloatArray, predictions: FloatArray, bootstrap: BlockBootstrap) -> FloatArray:
        return bootstrap.mean(row_values(outcomes, predictions))

    return resampled


def _roc_auc(outcomes: FloatArray, scores: FloatArray, bootstrap: BlockBootstrap) -> FloatArray:
    rank = np.unique(scores, return_inverse=True)[1]
    positives, negatives = bootstrap.sums(outcomes, rank), bootstrap.sums(1 - outcomes, rank)
    concordant = positives @ (np.cumsum(negatives, axis=1) - negatives / 2).T
    pairs = (bootstrap.weights @ positives.sum(axis=1)) * (bootstrap.weights @ negatives.sum(axis=1))
    with np.errstate(invalid="ignore"):  # where all outcomes are equal
        area: FloatArray = ((bootstrap.weights @ concordant) * bootstrap.weights).sum(axis=1) / pairs
    return area


def _rmse(outcomes: FloatArray, predictions: FloatArray, bootstrap: BlockBootstrap) -> FloatArray:
    return np.sqrt(bootstrap.mean(metrics.squared_errors(outcomes, predictions)))


def _r2(outcomes: FloatArray, predictions: FloatArray, bootstrap: BlockBootstrap) -> FloatArray:
    centered = outcomes - outcomes.mean()  # of all rows: sums of squares far from 0 would lose their differences
    variance = bootstrap.mean(centered**2) - bootstrap.mean(centered) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):  # where all outcomes are equal
        explained = 1 - bootstrap.mean(metrics.squared_errors(outcomes, predictions)) / variance
    return np.where(variance > 0, explained, np.nan)


def _calibration_error(outcomes: FloatArray, predictions: FloatArray, bootstrap: BlockBootstrap) -> FloatArray:
    """Return the expected calibration error; for more than two classes that of the most probable one."""
    if predictions.ndim == 2:
        outcomes, predictions = metrics.hits(outcomes, predictions), predictions.max(axis=1)
    inner_edges = np.quantile(predictions, np.linspace(0, 1, BINS + 1)[1:-1])
    excess = bootstrap.sums(predictions - outcomes, np.searchsorted(inner_edges, predictions, side="right"))
    error: FloatArray = np.abs(bootstrap.weights @ excess).sum(axis=1) / bootstrap.rows
    return error


def _built_in(name: str, resampled: Callable[[FloatArray, FloatArray, BlockBootstrap], FloatArray]) -> Metric:
    lower_is_better = name in LOWER_IS_BETTER
    return Metric(name, resampled, lower_is_better, lower_is_better and name not in ABSOLUTE_MARGIN)


BUILT_IN_METRICS: Mapping[str, Metric] = {
    name: _built_in(name, resampled)
    for name, resampled in {
        "roc_auc": _roc_auc,
        "brier": _mean_of(metrics.brier_losses),
        "log_loss": _mean_of(metrics.log_losses),
        "accuracy": _mean_of(metrics.hits),
        "calibration_error": _calibration_error,
        "rmse": _rmse,
        "mae": _mean_of(metrics.absolute_errors),
        "r2": _r2,
        "bias": _mean_of(metrics.errors),
    }.items()
}
"""Metrics that are computed for all resamples at once."""

REPORTED_METRICS: Mapping[TargetKind, tuple[str, ...]] = {
    "number": ("rmse", "mae", "r2", "bias"),
    "binary": ("roc_auc", "brier", "accuracy", "calibration_error"),
    "multiclass": ("accuracy", "brier", "log_loss", "calibration_error"),
}
"""Built-in metrics of an evaluation, by the kind of target."""
DEFAULT_METRICS: Mapping[TargetKind, str] = {"number": "rmse", "binary": "roc_auc", "multiclass": "roc_auc_ovr"}


def find_metric(spec: MetricSpec | None, target: Target) -> Metric:
    """Return the metric that a use case or an evaluation names; by default the usual one of the target.

    Raises:
        InvalidInput: There is no such metric, or it does not apply to the target.
    """
    if spec is None:
        spec = DEFAULT_METRICS[target.kind]
    if isinstance(spec, CustomMetric):
        return Metric(spec.name, recomputed(spec.function), not spec.greater_is_better, margin_is_relative=True)
    if isinstance(spec, CostMatrix):
        return _cost_metric(spec, target)
    name = canonical_metric_name(spec)
    if name in REPORTED_METRICS[target.kind]:
        return BUILT_IN_METRICS[name]
    from driftloop.evaluation.scorers import scorer_function  # noqa: PLC0415  # scikit-learn takes a second

    lower_is_better = name in LOWER_IS_BETTER
    return Metric(name, recomputed(scorer_function(spec, target)), lower_is_better, margin_is_relative=lower_is_better)


def recomputed(
    function: Callable[[FloatArray, FloatArray], float],
) -> Callable[[FloatArray, FloatArray, BlockBootstrap], FloatArray]:
    """Return a function of resamples that computes a metric again for each of the first ``MAX_RESAMPLES``.

    The metric of the others is NaN, and so is a metric that is undefined for a resample (:class:`ValueError`).
    """

    def resampled(outcomes: FloatArray, predictions: FloatArray, bootstrap: BlockBootstrap) -> FloatArray:
        values = np.full(len(bootstrap.weights), np.nan)
        for number, weights in enumerate(bootstrap.weights[: MAX_RESAMPLES + 1]):
            rows = np.repeat(np.arange(len(outcomes)), weights[bootstrap.block].astype(np.int64))
            try:
                values[number] = function(outcomes[rows], predictions[rows])
            except ValueError:
                continue
        return values

    return resampled


def _cost_metric(spec: CostMatrix, target: Target) -> Metric:
    if target.classes is None:
        raise InvalidInput("a cost matrix needs a target with classes, and this one is a number")
    if unknown := {label for pair in spec.costs for label in pair if label not in target.classes}:
        raise InvalidInput(f"the cost matrix has {sorted(map(str, unknown))}, which are no classes of the target")
    costs = np.array(
        [[spec.costs.get((happened, chosen), 0.0) for chosen in target.classes] for happened in target.classes]
    )

    def row_costs(outcomes: FloatArray, predictions: FloatArray) -> FloatArray:
        chosen = (metrics.class_probabilities(predictions) @ costs).argmin(axis=1)
        return np.asarray(costs[outcomes.astype(np.int64), chosen], dtype=np.float64)

    return Metric(spec.name, _mean_of(row_costs), lower_is_better=True, margin_is_relative=True)
