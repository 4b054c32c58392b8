"""Metrics with confidence intervals, and differences between metrics, by a bootstrap of whole days.

Rows of a day are not independent: they share conditions that no feature describes. Resampled row by row, intervals are
two to four times too narrow.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, stdtrit

from driftloop.evaluation.block_bootstrap import BlockBootstrap, resample_blocks
from driftloop.evaluation.metric import BUILT_IN_METRICS, REPORTED_METRICS, Metric
from driftloop.evaluation.metrics import FloatArray, IntArray
from driftloop.evaluation.targets import Target
from driftloop.events import Evaluation, MetricEstimate

MIN_DAYS = 5  # resampled from fewer days, an interval says next to nothing
PSEUDO_BLOCKS = 100  # replace the days where they are too few; intervals are within 7 % of those of a row bootstrap
POWER = 0.8  # the usual chance of finding a difference that is there


class Interval(NamedTuple):
    """A difference with its confidence interval."""

    value: float
    low: float
    high: float


def evaluate(
    target: Target,
    outcomes: FloatArray,
    predictions: FloatArray,
    days: IntArray,
    headline: Metric | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
) -> Evaluation:
    """Evaluate predictions against outcomes; metrics that are undefined or infinite are left out.

    The intervals come from a bootstrap of whole days, or of rows where there are fewer than five days. Each metric is
    computed from sums by day (a ROC AUC: from the concordant pairs between every two days), so that a resample does not
    touch single rows.

    The percentiles are widened for few days (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section
    5.3): simulated with 7 days, plain percentiles covered the true value in 82 of 100 cases, these in 90.

    The calibration error is the expected calibration error (Naeini, Cooper and Hauskrecht 2015) over bins with equally
    many rows (Nguyen and O'Connor 2015). It is never negative, so chance increases it, and once more in a resample. Its
    interval is therefore reflected ("basic", Davison and Hinkley 1997, section 5.2); the others are percentiles.

    Args:
        target: What is predicted; it decides which metrics are computed.
        outcomes: What happened, by row.
        predictions: What was predicted, by row.
        days: The day of each row.
        headline: The metric by which versions of the model are compared, if it is not one of the usual ones.
        confidence: The confidence level of the intervals.
        resamples: How often the days are resampled.
    """
    distinct_days, block = np.unique(days, return_inverse=True)
    by_day = len(distinct_days) >= MIN_DAYS
    if not by_day:  # neighbouring rows go to different blocks
        block = np.arange(len(outcomes)) % PSEUDO_BLOCKS
    bootstrap = resample_blocks(block, resamples)
    count = bootstrap.weights.shape[1]
    tail = float(ndtr(np.sqrt(count / max(count - 1, 1)) * stdtrit(max(count - 1, 1), (1 - confidence) / 2)))
    metrics: dict[str, MetricEstimate] = {}
    with np.errstate(over="ignore", invalid="ignore"):  # the square of 1e200 is infinite
        resampled = _resampled_metrics(target, outcomes, predictions, bootstrap, headline)
        for name, per_resample in resampled.items():
            value = float(per_resample[0])
            if np.isnan(value):
                continue
            low, high = np.nanquantile(per_resample[1:], [tail, 1 - tail])
            if name == "calibration_error":
                low, high = max(0.0, 2 * value - high), max(0.0, 2 * value - low)
            if np.isfinite([value, low, high]).all():
                metrics[name] = MetricEstimate(value=value, low=low, high=high)
    return Evaluation(
        rows=len(outcomes),
        days=len(distinct_days),
        resampling_unit="days" if by_day else "rows",
        metrics=metrics,
        headline=None if headline is None else headline.name,
        classes=None if target.classes is None else list(target.classes),
    )


def paired_difference(
    metric: Metric,
    outcomes: FloatArray,
    champion: FloatArray,
    challenger: FloatArray,
    blocks: IntArray,
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
) -> Interval:
    """Return the challenger's metric minus the champion's on the same rows; NaN where the metric is undefined.

    Blocks (days) are resampled whole. The interval is Student's with the standard error of the resamples, which few
    blocks make too small by √((n - 1) / n) (Hesterberg 2015, "What Teachers Should Know About the Bootstrap").

    Simulated coverage with 10 and 14 days of correlated rows: 94 to 97 % at a nominal 95 %, and 99 to 100 % at 99.5 %;
    percentiles widened as in :func:`evaluate` covered 93 to 95 % and 98.5 to 99.7 %, plain ones 89 and 97 %. With a
    single block the interval is infinite.

    Args:
        metric: The metric to compare.
        outcomes: What happened, by row.
        champion: The champion's predictions, by row.
        challenger: The challenger's predictions, by row.
        blocks: The number of each row's block, such as its day.
        confidence: The confidence level of the interval.
        resamples: How often the blocks are resampled.
    """
    bootstrap = resample_blocks(np.unique(blocks, return_inverse=True)[1], resamples)
    per_resample = metric.resampled(outcomes, challenger, bootstrap) - metric.resampled(outcomes, champion, bootstrap)
    value, count = float(per_resample[0]), bootstrap.weights.shape[1]
    if np.isnan(value):
        return Interval(value, value, value)
    if count == 1:
        return Interval(value, -np.inf, np.inf)
    standard_error = np.sqrt(count / (count - 1)) * np.nanstd(per_resample[1:], ddof=1)
    half_width = -float(stdtrit(count - 1, (1 - confidence) / 2) * standard_error)
    return Interval(value, value - half_width, value + half_width)


def unpaired_difference(minuend: MetricEstimate, subtrahend: MetricEstimate) -> Interval:
    """Return the difference of two metrics that were measured on different rows.

    The interval is computed from the two intervals alone (Newcombe 1998, method 10; in general Zou and Donner 2008).
    """
    value = minuend.value - subtrahend.value
    return Interval(
        value,
        value - float(np.hypot(minuend.value - minuend.low, subtrahend.high - subtrahend.value)),
        value + float(np.hypot(minuend.high - minuend.value, subtrahend.value - subtrahend.low)),
    )


def as_gain(difference: Interval, *, lower_is_better: bool) -> Interval:
    """Return a difference as a gain, which is positive where the metric is better: the sign is flipped for an RMSE."""
    if lower_is_better:
        return Interval(-difference.value, -difference.high, -difference.low)
    return difference


def detectable_difference(difference: Interval, blocks: int, confidence: float) -> float:
    """Return the smallest difference that as many blocks would show in four of five comparisons.

    It is the standard error, which the interval's width gives, times the sum of Student's quantiles of the confidence
    level and of the power (Cohen 1988, section 2.2); infinite for a single block.
    """
    if blocks < 2 or not np.isfinite(difference.high - difference.low):
        return float("inf")
    quantile = -float(stdtrit(blocks - 1, (1 - confidence) / 2))
    standard_error = (difference.high - difference.low) / 2 / quantile
    return standard_error * (quantile + float(stdtrit(blocks - 1, POWER)))


def _resampled_metrics(
    target: Target,
    outcomes: FloatArray,
    predictions: FloatArray,
    bootstrap: BlockBootstrap,
    headline: Metric | None,
) -> Mapping[str, FloatArray]:
    """Return the values of the target's usual metrics and of the headline metric in all resamples."""
    reported = [BUILT_IN_METRICS[name] for name in REPORTED_METRICS[target.kind]]
    chosen = {metric.name: metric for metric in (*reported, *([headline] if headline else []))}
    return {name: metric.resampled(outcomes, predictions, bootstrap) for name, metric in chosen.items()}
