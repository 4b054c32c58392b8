"""Compare a version with the predictions that were served, on archived rows. The predictor is not involved."""

from collections import Counter
from typing import Any, NamedTuple

import pandas as pd
from rich.table import Table

from driftloop.evaluation.bootstrap import Interval, evaluate, paired_difference
from driftloop.evaluation.metric import BUILT_IN_METRICS, REPORTED_METRICS
from driftloop.evaluation.metric_names import format_interval, metric_label
from driftloop.evaluation.metrics import FloatArray
from driftloop.events import VERSION_COLUMN, Evaluation
from driftloop.registry.model_registry import ModelRegistry
from driftloop.storage.labelled_archive import ArchiveQuery
from driftloop.usecase import UseCase
from driftloop_cli.archived_rows import ArchivedRowsSettings, predict_rows, read_labelled_rows
from driftloop_cli.console import out, print_table


class ShadowComparison(NamedTuple):
    """A version and the predictions that were served, evaluated on the same rows."""

    version: str
    rows_by_version: dict[str, int]
    """Number of rows that each version has predicted in service."""
    rows_seen_in_training: int
    """Rows no later than ``trained_through``, on which the version's metrics are too good."""
    trained_through: pd.Timestamp
    """The time of the latest row that the version was trained on."""
    served: Evaluation
    """Evaluation of the predictions that were served."""
    shadowed: Evaluation
    """Evaluation of the version's predictions."""
    differences: dict[str, Interval]
    """Metrics of the version minus metrics of the served predictions; whole blocks of days were resampled."""

    def facts(self) -> dict[str, Any]:
        """Return the comparison for programs: all fields by name, and intervals as value, low and high."""
        differences = {name: interval._asdict() for name, interval in self.differences.items()}
        return {**self._asdict(), "differences": differences}


def evaluate_shadow(settings: ArchivedRowsSettings, version: str, last_rows: int | None) -> ShadowComparison | None:
    """Compare a version with the served predictions on labelled rows of the archive; ``None`` if there are none.

    Args:
        settings: Registry, store and use case.
        version: The version to load.
        last_rows: How many of the latest labelled rows to use; ``None`` for all.

    Raises:
        ModelRejected: The version cannot be loaded.
    """
    registry, use_case = ModelRegistry(settings.registry), settings.use_case
    model = registry.load(version)
    rows = read_labelled_rows(settings, ArchiveQuery(last_rows=last_rows))
    if rows.empty:
        return None
    return compare(use_case, rows, version, predict_rows(use_case, model, rows), registry.trained_through(version))


def compare(
    use_case: UseCase, rows: pd.DataFrame, version: str, predictions: FloatArray, trained_through: pd.Timestamp
) -> ShadowComparison:
    """Compare a version's predictions for labelled rows with those that were served."""
    target, outcomes = use_case.target_type, use_case.outcomes(rows)
    served_predictions = use_case.archived_predictions(rows)
    days, blocks = use_case.day_ordinals(rows[use_case.timestamp]), use_case.block_ids(rows[use_case.timestamp])
    served, shadowed = (
        evaluate(target, outcomes, answers, days, use_case.headline_metric)
        for answers in (served_predictions, predictions)
    )
    compared = {use_case.headline_metric.name: use_case.headline_metric} | {
        name: BUILT_IN_METRICS[name] for name in REPORTED_METRICS[target.kind] if name != "calibration_error"
    }
    return ShadowComparison(
        version=version,
        rows_by_version=dict(Counter(rows[VERSION_COLUMN].astype(str)).most_common()),
        rows_seen_in_training=int((rows[use_case.timestamp] <= trained_through).sum()),
        trained_through=trained_through,
        served=served,
        shadowed=shadowed,
        differences={
            name: paired_difference(metric, outcomes, served_predictions, predictions, blocks)
            for name, metric in compared.items()
            if name in served.metrics and name in shadowed.metrics
        },
    )


def print_comparison(comparison: ShadowComparison) -> None:
    """Print a comparison as a table."""
    versions = ", ".join(f"version {version} ({rows:,})" for version, rows in comparison.rows_by_version.items())
    out.print(
        f"{comparison.shadowed.rows:,} rows of {comparison.shadowed.days} days, predicted by {versions}; "
        "95 % intervals, whole days resampled",
        highlight=False,
        soft_wrap=True,
    )
    if comparison.rows_seen_in_training:
        out.print(
            f"[yellow]{comparison.rows_seen_in_training:,} of them are no later than "
            f"{comparison.trained_through:%Y-%m-%d}, which the training of version {comparison.version} reaches: "
            "the version's metrics on them are too good[/]",
            highlight=False,
            soft_wrap=True,
        )
    table = Table("metric", "served", f"version {comparison.version}", "difference")
    for name, difference in comparison.differences.items():
        table.add_row(
            metric_label(name),
            format_interval(name, comparison.served.metrics[name]),
            format_interval(name, comparison.shadowed.metrics[name]),
            format_interval(name, difference, signed=True),
        )
    print_table(table)
