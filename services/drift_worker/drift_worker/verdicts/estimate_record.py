"""How good estimates of a version's quality have been, once outcomes were known: by that they are trusted. Pure."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from drift_worker.verdicts.scored_rows import score_rows
from driftloop.evaluation.metric import BUILT_IN_METRICS
from driftloop.evaluation.metrics import FloatArray, are_probabilities
from driftloop.evaluation.performance_estimation import estimate_performance
from driftloop.events import EstimateTrackRecord, Window

MIN_WINDOWS = 5  # a good track record of fewer windows can be luck


def estimate_errors(rows: pd.DataFrame, min_rows: int, max_windows: int) -> dict[Window, float]:
    """Return by how much a version's quality was estimated too high, by window of predictions.

    The quality is the ROC AUC, or for more than two classes the accuracy. Estimate and quality are both of the
    window's rows with an outcome. A window is here the fewest consecutive slices that have enough of these rows.

    Args:
        rows: The version's rows with outcomes, each with its prediction and the slice of that.
        min_rows: The rows that a window has at least.
        max_windows: How many windows are looked at, the latest ones.
    """
    windows = pd.Series(windows_of_slices(rows["prediction_slice"].value_counts(), min_rows))
    window_of_row = rows["prediction_slice"].map(windows)
    ends = rows.groupby(window_of_row)["predicted_at"].max().sort_values(kind="stable")
    errors = {}
    for name in ends.index[-max_windows:]:
        scored = score_rows(rows[window_of_row == name]).known()
        if scored.target.classes is not None and are_probabilities(scored.predictions):
            metric = tracked_metric(scored.predictions)
            measured = BUILT_IN_METRICS[metric].compute(scored.outcomes, scored.predictions)
            error = estimate_performance(scored.predictions).get(metric, np.nan) - measured
            if not np.isnan(error):
                errors[Window.parse(name)] = error
    return errors


def track_record(errors_by_window: Mapping[Window, float], own: Window) -> EstimateTrackRecord:
    """Return the record of a version's earlier estimates, without those for rows of a window of its own."""
    errors = [error for window, error in errors_by_window.items() if not _overlap(window, own)]
    if not errors:
        return EstimateTrackRecord()
    return EstimateTrackRecord(
        windows=len(errors),
        mean_error=float(np.mean(errors)),
        mean_absolute_error=float(np.mean(np.abs(errors))),
    )


def is_trusted(record: EstimateTrackRecord, max_error: float) -> tuple[bool, str]:
    """Return whether estimates that were off by no more than ``max_error`` on average are trusted, and the reason."""
    if record.mean_error is None or record.windows < MIN_WINDOWS:
        return False, f"outcomes are known for {record.windows} windows of at least {MIN_WINDOWS}"
    trusted = abs(record.mean_error) <= max_error
    return trusted, (
        f"estimates of the quality of {record.windows} windows were off by {record.mean_error:+.3f} on "
        f"average, {'within' if trusted else 'more than'} {max_error:g}"
    )


def windows_of_slices(row_counts: pd.Series, min_rows: int) -> dict[str, str]:
    """Return for each slice the name of its window: the fewest consecutive slices that have enough rows together.

    Slices of a partition that have too few together are left out.

    Args:
        row_counts: A version's rows by the name of their slice.
        min_rows: The rows that a window has at least.
    """
    slices = sorted(map(Window.parse, row_counts.index), key=lambda each: (each.partition, each.first_offset))
    windows: dict[str, str] = {}
    pooled: list[Window] = []
    for each in slices:
        if pooled and pooled[-1].partition != each.partition:
            pooled = []
        pooled.append(each)
        if row_counts[[one.name for one in pooled]].sum() >= min_rows:
            name = pooled[0].model_copy(update={"last_offset": each.last_offset}).name
            windows |= dict.fromkeys((one.name for one in pooled), name)
            pooled = []
    return windows


def _overlap(one: Window, other: Window) -> bool:
    return (
        (one.topic, one.partition) == (other.topic, other.partition)
        and one.first_offset <= other.last_offset
        and other.first_offset <= one.last_offset
    )


def tracked_metric(probabilities: FloatArray) -> str:
    """Return the metric whose estimates are compared with what it turned out to be."""
    return "roc_auc" if probabilities.ndim == 1 else "accuracy"
