"""What the pages show, computed from verdicts and rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from drift_worker.web import charts
from drift_worker.web.charts import largest_finding_by_column, threshold_ratio
from drift_worker.web.distribution_charts import distribution_chart
from drift_worker.web.distributions import Statistic, compare_column
from drift_worker.web.report import ReportKey, WindowNotArchived, load_rows
from drift_worker.web.verdict_cache import VerdictCache
from driftloop.drift.profile import DriftProfile
from driftloop.errors import ArchiveUnreadable, StorageUnavailable
from driftloop.evaluation.metric_names import HEADLINE_METRICS, metric_label
from driftloop.events import DriftVerdict, Finding, QualityEstimate, QualityVerdict
from driftloop.privacy import FeaturePolicy
from driftloop.storage import reference_store
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import ReferenceUnavailable
from driftloop.version_status import VersionStatus

if TYPE_CHECKING:
    import plotly.graph_objects as go  # type: ignore[import-untyped]

MAX_WINDOWS = 60  # per version; more cannot be distinguished on a phone
RANKED_WINDOWS = 10  # conclusive windows over which columns are ranked
MAX_COLUMNS = 30  # in the heat map, and with a chart each on a window's page


class RankedColumn(NamedTuple):
    """A column on the overview, over a version's latest conclusive windows."""

    column: str
    priority: float
    """The mean of the column's largest priority in each window."""
    drifted_windows: int
    """The number of windows in which the column drifted."""
    max_ratio: float | None
    """The largest ratio of one of its statistics to the threshold."""


class VersionSection(NamedTuple):
    """A version on the overview."""

    status: VersionStatus
    verdicts: list[DriftVerdict]
    """The oldest first."""
    replayed: list[DriftVerdict | None]
    """For each verdict the latest one of a replay."""
    counts: Counter[str]
    """The number of windows by verdict."""
    ranked_windows: int
    """The number of windows over which columns are ranked."""
    columns: list[RankedColumn]
    """In descending order of priority."""
    quality: QualityVerdict | None
    """The last verdict that compares quality with the gate's; if there is none, the last one with an evaluation."""
    metrics: list[str]
    """Names of all metrics of that evaluation and of the gate's."""
    estimate: QualityEstimate | None
    """The latest estimate."""
    charts: dict[str, go.Figure]
    """``scores`` and ``heatmap`` if a window is conclusive, ``cumulated`` if one has that score, ``quality`` if there
    is an evaluation."""


class ColumnChart(NamedTuple):
    """A column of a window, compared with the reference."""

    column: str
    drifted: bool
    statistics: list[Statistic]
    chart: go.Figure


def version_section(cache: VerdictCache, status: VersionStatus) -> VersionSection:
    """Return what the overview shows of a version that has at least one verdict."""
    model, version, run_id = status.model, status.version, status.run_id
    verdicts = cache.latest(DriftVerdict, model, version, MAX_WINDOWS, run_id)
    conclusive = cache.latest_conclusive(DriftVerdict, model, version, RANKED_WINDOWS, run_id)
    if all(verdict.verdict == "inconclusive" for verdict in verdicts):
        verdicts = [*conclusive, *verdicts]
    columns = rank_columns(conclusive)
    qualities = cache.latest(QualityVerdict, model, version, MAX_WINDOWS, run_id)
    measured = [verdict for verdict in qualities if verdict.in_service]
    compared = status.quality if status.quality and status.quality.in_service else None
    quality = compared or (measured[-1] if measured else None)
    estimates = cache.latest(QualityEstimate, model, version, MAX_WINDOWS, run_id)
    figures = {}
    if conclusive:
        shown = [column.column for column in columns[:MAX_COLUMNS]]
        figures = {"scores": charts.score_chart(verdicts), "heatmap": charts.drift_heatmap(verdicts, shown)}
        if any(verdict.cumulated_score is not None for verdict in verdicts):
            figures["cumulated"] = charts.cumulated_chart(verdicts)
    if name := _headline_metric(measured):
        figures["quality"] = charts.quality_chart(name, metric_label(name), measured, estimates)
    return VersionSection(
        status=status,
        verdicts=verdicts,
        replayed=[cache.replayed(verdict) for verdict in verdicts],
        counts=Counter(verdict.verdict for verdict in verdicts),
        ranked_windows=len(conclusive),
        columns=columns,
        quality=quality,
        metrics=_metric_names(quality) if quality else [],
        estimate=estimates[-1] if estimates else None,
        charts=figures,
    )


def rank_columns(verdicts: Sequence[DriftVerdict]) -> list[RankedColumn]:
    """Return all columns of conclusive windows in descending order of priority."""
    largest_findings = [largest_finding_by_column(verdict) for verdict in verdicts]
    ranked = []
    for column in sorted({finding.column for verdict in verdicts for finding in verdict.findings}):
        priorities = [
            max((finding.priority for finding in verdict.findings if finding.column == column), default=0.0)
            for verdict in verdicts
        ]
        ratios = [threshold_ratio(findings[column]) for findings in largest_findings if column in findings]
        ranked.append(
            RankedColumn(
                column=column,
                priority=sum(priorities) / len(verdicts),
                drifted_windows=sum(column in verdict.drifted_columns for verdict in verdicts),
                max_ratio=max((ratio for ratio in ratios if ratio is not None), default=None),
            )
        )
    return sorted(ranked, key=lambda column: column.priority, reverse=True)


def rank_findings(verdict: DriftVerdict) -> list[Finding]:
    """Return a verdict's findings, those above their threshold first, by descending priority."""
    return sorted(verdict.findings, key=lambda finding: (not finding.drifted, -finding.priority))


def column_charts(store: ObjectStore, verdict: DriftVerdict, policy: FeaturePolicy) -> tuple[list[ColumnChart], str]:
    """Return charts of a window's columns, drifted ones first; or no charts and the reason."""
    try:
        reference, window = load_rows(store, ReportKey.for_verdict(verdict), policy)
    except (ReferenceUnavailable, WindowNotArchived, ArchiveUnreadable, StorageUnavailable) as error:
        return [], str(error)
    column_types = reference.profile.column_types
    ranked = list(dict.fromkeys(finding.column for finding in rank_findings(verdict)))
    columns = [column for column in ranked if column in column_types]
    columns += [column for column in column_types if column not in ranked]
    drifted = set(verdict.drifted_columns)
    shown = []
    for column in columns[:MAX_COLUMNS]:
        compared = compare_column(column_types[column], reference.rows[column], window[column])
        chart = distribution_chart(compared.fractions, column in drifted)
        shown.append(ColumnChart(column, column in drifted, compared.statistics, chart))
    return shown, ""


def load_profile(store: ObjectStore, status: VersionStatus, policy: FeaturePolicy) -> tuple[DriftProfile | None, str]:
    """Return a version's drift profile; or none and the reason."""
    try:
        profile = reference_store.load_profile(store, status.model, status.version, status.run_id or "")
    except (ReferenceUnavailable, StorageUnavailable) as error:
        return None, str(error)
    return profile.without_columns(policy.differences(profile.privacy)), ""


def _headline_metric(verdicts: Sequence[QualityVerdict]) -> str | None:
    """Return the metric to plot: the headline metric of the latest verdict, or else its first one."""
    evaluation = verdicts[-1].in_service if verdicts else None
    if evaluation is None:
        return None
    names = list(evaluation.metrics)
    return next((name for name in (evaluation.headline, *HEADLINE_METRICS, *names) if name in names), None)


def _metric_names(verdict: QualityVerdict) -> list[str]:
    """Return the names of all metrics, in service and at the gate, in the order of the evaluations."""
    evaluations = (verdict.in_service, verdict.at_gate)
    return list(dict.fromkeys(name for evaluation in evaluations if evaluation for name in evaluation.metrics))
