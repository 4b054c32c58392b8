"""The tables of ``driftloop status``: windows, quality, retrains and lag, from the topics' latest events."""

from collections.abc import Iterator, Mapping, Sequence

from rich.markup import escape
from rich.table import Column, Table

from driftloop.events import DriftVerdict, Event, ModelStateChanged, QualityEstimate, QualityVerdict

STATE_COLORS = {
    **{"promoted": "green", "rejected": "yellow", "failed": "red"},
    **{"no_drift": "green", "drift": "red"},
    **{"consistent": "green", "improved": "green", "degraded": "red"},
}
"""Colors of states and verdicts; others have a default that depends on the table."""


def status_tables(
    drift_events: Sequence[Event],
    windows: int,
    retrains: Sequence[ModelStateChanged],
    lag: Mapping[str, Mapping[str, int]],
) -> Iterator[Table | str]:
    """Yield a table, or a sentence if there is nothing to show, for each part of the status.

    Args:
        drift_events: The latest events of the topic of verdicts, in its order.
        windows: How many windows to show.
        retrains: The latest state of each retrain to show.
        lag: Offsets that are not committed yet, by consumer group and by partition.
    """
    yield _windows_table(drift_events, windows)
    quality = _quality_table(drift_events)
    if quality.rows:
        yield quality
    yield _retrains_table(retrains)
    yield _lag_table(lag)


def _windows_table(drift_events: Sequence[Event], count: int) -> Table | str:
    verdicts = [e for e in drift_events if isinstance(e, DriftVerdict) and not e.replayed][-count:]
    replayed = {_verdict_key(e): e.verdict for e in drift_events if isinstance(e, DriftVerdict) and e.replayed}
    columns = ("window", "version", "rows", "from", "to", Column("verdict", no_wrap=True), "score", "threshold")
    table = Table(*columns, "drifted", title="Windows")
    for verdict in verdicts:
        window, key = verdict.window, _verdict_key(verdict)
        table.add_row(
            f"{window.topic}-{window.partition} {window.first_offset}–{window.last_offset}",
            verdict.version,
            str(verdict.rows),
            f"{verdict.first_prediction_at:%Y-%m-%d %H:%M}",
            f"{verdict.last_prediction_at:%Y-%m-%d %H:%M}",
            _colored(verdict.verdict) + (f", replayed: {replayed[key]}" if key in replayed else ""),
            "" if verdict.score is None else f"{verdict.score:.1f}",
            "" if verdict.score_threshold is None else f"{verdict.score_threshold:.1f}",
            escape(verdict.explanation) if verdict.verdict == "inconclusive" else ", ".join(verdict.drifted_columns),
        )
    return table if verdicts else "no windows yet"


def _quality_table(drift_events: Sequence[Event]) -> Table:
    verdicts = {(e.model, e.version): e for e in drift_events if isinstance(e, QualityVerdict)}
    estimates = {(e.model, e.version): e for e in drift_events if isinstance(e, QualityEstimate)}
    table = Table("version", "quality", "explanation", title="Quality of the latest predictions")
    for version in sorted(verdicts.keys() | estimates.keys()):
        if (verdict := verdicts.get(version)) is not None:
            table.add_row(verdict.version, _colored(verdict.verdict), escape(verdict.explanation))
        if (estimate := estimates.get(version)) is not None and "roc_auc" in estimate.metrics:
            label = "estimated" if estimate.trusted else "[yellow]estimated, not trusted[/]"
            text = f"ROC AUC {estimate.metrics['roc_auc']:.3f}; {escape(estimate.explanation)}"
            table.add_row(estimate.version, label, text)
    return table


def _retrains_table(retrains: Sequence[ModelStateChanged]) -> Table | str:
    table = Table("time", "retrain", "version", "state", "explanation", title="Retrains")
    for state in retrains:
        time = f"{state.time:%Y-%m-%d %H:%M:%S}"
        colored = _colored(state.state, default="cyan")
        table.add_row(time, state.retrain_id, state.version or "", colored, escape(state.explanation))
    return table if retrains else "no retrains yet"


def _lag_table(lag: Mapping[str, Mapping[str, int]]) -> Table:
    table = Table("group", "partition", "lag (offsets)", title="Lag")
    for group, partitions in lag.items():
        for partition, offsets in sorted(partitions.items()):
            table.add_row(group, partition, str(offsets))
    return table


def _colored(name: str, default: str = "yellow") -> str:
    return f"[{STATE_COLORS.get(name, default)}]{name}[/]"


def _verdict_key(verdict: DriftVerdict) -> tuple[str, str, str]:
    """Return what a verdict and its replays have in common."""
    return verdict.window.name, verdict.model, verdict.version
