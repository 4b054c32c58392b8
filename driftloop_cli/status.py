"""How things stand, as tables: what ``driftloop status`` shows of what the topics say."""

from collections.abc import Iterator, Mapping, Sequence

from rich.markup import escape
from rich.table import Column, Table

from driftloop.events import DriftVerdict, Event, ModelStateChanged, QualityEstimate, QualityVerdict

COLORS = {
    **{"promoted": "green", "rejected": "yellow", "failed": "red"},
    **{"no_drift": "green", "drift": "red"},
    **{"consistent": "green", "improved": "green", "degraded": "red"},
}
"""What is green, yellow or red; all else has no colour of its own."""


def tables(
    judged: Sequence[Event], windows: int, changes: Sequence[ModelStateChanged], lags: Mapping[str, Mapping[str, int]]
) -> Iterator[Table | str]:
    """The last ``windows`` windows, quality, retrains, and events behind by group and partition.

    ``judged`` is what the topic of verdicts has said last, in its order; ``changes`` the last state of each retrain.
    """
    yield _windows(judged, windows)
    quality = _quality(judged)
    if quality.rows:
        yield quality
    yield _retrains(changes)
    yield _lag(lags)


def _windows(judged: Sequence[Event], count: int) -> Table | str:
    verdicts = [e for e in judged if isinstance(e, DriftVerdict) and not e.replayed][-count:]
    again = {_on(e): e.verdict for e in judged if isinstance(e, DriftVerdict) and e.replayed}
    said = Column("verdict", no_wrap=True)
    table = Table("window", "version", "rows", "from", "to", said, "score", "limit", "drifted", title="Windows")
    for verdict in verdicts:
        table.add_row(
            f"{verdict.window.topic}-{verdict.window.partition} {verdict.window.first_offset}–"
            f"{verdict.window.last_offset}",
            verdict.version,
            str(verdict.rows),
            f"{verdict.first_prediction_at:%Y-%m-%d %H:%M}",
            f"{verdict.last_prediction_at:%Y-%m-%d %H:%M}",
            f"[{COLORS.get(verdict.verdict, 'yellow')}]{verdict.verdict}[/]"
            + (f", again: {again[_on(verdict)]}" if _on(verdict) in again else ""),
            "" if verdict.score is None else f"{verdict.score:.1f}",
            "" if verdict.score_threshold is None else f"{verdict.score_threshold:.1f}",
            ", ".join(verdict.drifted_columns)
            or ("" if verdict.verdict != "inconclusive" else escape(verdict.explanation)),
        )
    return table if verdicts else "no windows yet"


def _quality(judged: Sequence[Event]) -> Table:
    qualities = {(e.model, e.version): e for e in judged if isinstance(e, QualityVerdict)}
    estimates = {(e.model, e.version): e for e in judged if isinstance(e, QualityEstimate)}
    table = Table("version", "quality", "why", title="Quality of the latest predictions")
    for one in sorted(qualities.keys() | estimates.keys()):
        if (quality := qualities.get(one)) is not None:
            verdict = f"[{COLORS.get(quality.verdict, 'yellow')}]{quality.verdict}[/]"
            table.add_row(quality.version, verdict, escape(quality.explanation))
        if (estimate := estimates.get(one)) is not None and "roc_auc" in estimate.metrics:
            trust = "estimated" if estimate.trusted else "[yellow]estimated, not to be trusted[/]"
            table.add_row(
                estimate.version, trust, f"ROC AUC {estimate.metrics['roc_auc']:.3f}; {escape(estimate.explanation)}"
            )
    return table


def _retrains(changes: Sequence[ModelStateChanged]) -> Table | str:
    table = Table("time", "retrain", "version", "state", "why", title="Retrains")
    for change in changes:
        state = f"[{COLORS.get(change.state, 'cyan')}]{change.state}[/]"
        table.add_row(
            f"{change.time:%Y-%m-%d %H:%M:%S}",
            change.retrain_id,
            change.version or "",
            state,
            escape(change.explanation),
        )
    return table if changes else "no retrains yet"


def _lag(lags: Mapping[str, Mapping[str, int]]) -> Table:
    table = Table("group", "partition", "offsets behind", title="Lag")
    for group, partitions in lags.items():
        for partition, behind in sorted(partitions.items()):
            table.add_row(group, partition, str(behind))
    return table


def _on(verdict: DriftVerdict) -> tuple[str, str, str]:
    """What a verdict is on, when it is given first and when it is given again."""
    return verdict.window.name, verdict.model, verdict.version
