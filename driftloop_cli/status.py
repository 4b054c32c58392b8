"""How things stand, as tables: what ``driftloop status`` shows of what the topics say."""

from collections.abc import Iterator, Mapping, Sequence

from rich.markup import escape
from rich.table import Column, Table

from driftloop.events import Drift, Estimate, Event, ModelChange, Quality

COLORS = {
    **{"promoted": "green", "rejected": "yellow", "failed": "red"},
    **{"quiet": "green", "alarm": "red"},
    **{"as measured": "green", "better": "green", "worse": "red"},
}
"""What is green, yellow or red; all else has no colour of its own."""


def tables(
    judged: Sequence[Event], windows: int, changes: Sequence[ModelChange], lags: Mapping[str, Mapping[str, int]]
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
    verdicts = [e for e in judged if isinstance(e, Drift) and not e.replayed][-count:]
    again = {_on(e): e.verdict for e in judged if isinstance(e, Drift) and e.replayed}
    said = Column("verdict", no_wrap=True)
    table = Table("window", "version", "rows", "from", "to", said, "score", "limit", "drifted", title="Windows")
    for verdict in verdicts:
        table.add_row(
            f"{verdict.window.topic}-{verdict.window.partition} {verdict.window.first_offset}–"
            f"{verdict.window.last_offset}",
            verdict.version,
            str(verdict.rows),
            f"{verdict.starts:%Y-%m-%d %H:%M}",
            f"{verdict.ends:%Y-%m-%d %H:%M}",
            f"[{COLORS.get(verdict.verdict, 'yellow')}]{verdict.verdict}[/]"
            + (f", again: {again[_on(verdict)]}" if _on(verdict) in again else ""),
            "" if verdict.score is None else f"{verdict.score:.1f}",
            "" if verdict.limit is None else f"{verdict.limit:.1f}",
            ", ".join(verdict.drifted) or ("" if verdict.verdict != "unjudged" else escape(verdict.why)),
        )
    return table if verdicts else "no windows yet"


def _quality(judged: Sequence[Event]) -> Table:
    qualities = {(e.model, e.version): e for e in judged if isinstance(e, Quality)}
    estimates = {(e.model, e.version): e for e in judged if isinstance(e, Estimate)}
    table = Table("version", "quality", "why", title="Quality of the latest predictions")
    for one in sorted(qualities.keys() | estimates.keys()):
        if (quality := qualities.get(one)) is not None:
            verdict = f"[{COLORS.get(quality.verdict, 'yellow')}]{quality.verdict}[/]"
            table.add_row(quality.version, verdict, escape(quality.why))
        if (estimate := estimates.get(one)) is not None and "roc_auc" in estimate.figures:
            trust = "estimated" if estimate.trusted else "[yellow]estimated, not to be trusted[/]"
            table.add_row(estimate.version, trust, f"ROC AUC {estimate.figures['roc_auc']:.3f}; {escape(estimate.why)}")
    return table


def _retrains(changes: Sequence[ModelChange]) -> Table | str:
    table = Table("time", "retrain", "version", "state", "why", title="Retrains")
    for change in changes:
        state = f"[{COLORS.get(change.state, 'cyan')}]{change.state}[/]"
        table.add_row(
            f"{change.time:%Y-%m-%d %H:%M:%S}", change.retrain_id, change.version or "", state, escape(change.why)
        )
    return table if changes else "no retrains yet"


def _lag(lags: Mapping[str, Mapping[str, int]]) -> Table:
    table = Table("group", "partition", "events behind", title="Lag")
    for group, partitions in lags.items():
        for partition, behind in sorted(partitions.items()):
            table.add_row(group, partition, str(behind))
    return table


def _on(verdict: Drift) -> tuple[str, str, str]:
    """What a verdict is on, when it is given first and when it is given again."""
    return verdict.window.name, verdict.model, verdict.version
