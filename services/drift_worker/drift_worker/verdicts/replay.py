"""Replay: judge archived windows again, with the references that are in the store now."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Annotated, NamedTuple

import typer

from drift_worker.settings import DriftWorkerSettings
from drift_worker.verdicts.window_judge import WindowJudge
from drift_worker.windows import archive
from driftloop.archive import erasures
from driftloop.archive.partition_state import PRECEDING_WINDOWS, version_digest
from driftloop.command_line import load_settings_or_exit
from driftloop.drift.cumulated import CumulatedState
from driftloop.drift.settings import WindowSettings
from driftloop.errors import ArchiveUnreadable, BrokerUnavailable, StorageUnavailable
from driftloop.events import DriftVerdict, Event, Window, new_event_id
from driftloop.exit_codes import ExitCode
from driftloop.kafka import reader
from driftloop.kafka.publisher import Publisher
from driftloop.privacy import ALL_KEPT, FeaturePolicy
from driftloop.storage.object_store import ObjectStore

ALL_EVENTS = 10**9  # more than a topic has with a few events per window

DESCRIPTION = """\
Judge archived windows again with the references that are in the store now, and show old and new verdicts side by side.

The windows are read from the topic of verdicts, their rows from the archive. Uses the settings of the drift worker.
"""
EXAMPLES = """\
\b
Examples:
  driftloop-drift-worker replay --from 2013-07-01 --to 2013-08-01
  driftloop-drift-worker replay --from 2013-07-01 --to 2013-08-01 --model flights --version 2 --publish
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class Stream(NamedTuple):
    """What the windows that follow one another have in common."""

    model: str
    version: str
    run_id: str
    """Empty if it is not known."""
    topic: str
    partition: int


class ReplayedVerdict(NamedTuple):
    """Two verdicts on the same rows: the original one, and that of the replay."""

    old: DriftVerdict
    new: DriftVerdict


def main(arguments: Sequence[str]) -> None:
    """Run the command with the arguments that follow its name."""
    app(list(arguments), prog_name="driftloop-drift-worker replay")


@app.command(help=DESCRIPTION, epilog=EXAMPLES)
def replay(
    start: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="first day to judge, in UTC")],
    end: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="day after the last one, in UTC")],
    model: Annotated[str | None, typer.Option(help="judge only windows of this model")] = None,
    version: Annotated[str | None, typer.Option(help="judge only windows of this version")] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="publish the new verdicts on the topic too, marked as replayed")
    ] = False,
) -> None:
    """Judge windows again, print the verdicts, and publish them if asked to."""
    settings = load_settings_or_exit(DriftWorkerSettings)
    try:
        all_events = reader.read_last(settings.kafka, settings.topics.drift, ALL_EVENTS)
        selected = select_verdicts(all_events, start.replace(tzinfo=UTC), end.replace(tzinfo=UTC), model, version)
        policy = settings.privacy.privacy.feature_policy
        store = ObjectStore(settings.storage).require_answer()
        replayed = list(replay_verdicts(selected, all_events, store, settings.window, policy))
        for line in format_table(replayed):
            print(line)
        if missing := len(selected) - len(replayed):
            print(f"{missing} more could not be judged again: their rows are no longer in the archive, or damaged")
        if publish:
            with Publisher(settings.kafka, settings.topics, "drift_worker") as publisher:
                publisher.publish(*(verdict.new for verdict in replayed))
            print(f"published {len(replayed)} verdicts to {settings.topics.drift}, marked as replayed")
    except BrokerUnavailable as error:
        print(error)
        raise SystemExit(ExitCode.UNAVAILABLE) from error
    except StorageUnavailable as error:
        print(f"{error} (DRIFTLOOP_STORAGE__URL)")
        raise SystemExit(ExitCode.UNAVAILABLE) from error


def select_verdicts(
    events: Iterable[Event], start: datetime, end: datetime, model: str | None, version: str | None
) -> list[DriftVerdict]:
    """Return the original verdicts on windows with predictions from ``start`` to before ``end``.

    ``None`` stands for any model or version.
    """
    return [
        event
        for event in events
        if isinstance(event, DriftVerdict)
        and not event.replayed
        and event.last_prediction_at >= start
        and event.first_prediction_at < end
        and model in (None, event.model)
        and version in (None, event.version)
    ]


def replay_verdicts(
    selected: Iterable[DriftVerdict],
    all_events: Iterable[Event],
    store: ObjectStore,
    settings: WindowSettings,
    policy: FeaturePolicy = ALL_KEPT,
) -> Iterator[ReplayedVerdict]:
    """Judge the windows of the selected verdicts again, those of a version in their order. A new verdict has a new id.

    Verdicts whose rows are not all in the archive are left out, unless rows were erased: then what is left is judged.
    The cumulated score goes on from the sums that are archived with the window before the first one of a version.

    Args:
        selected: The verdicts to replay.
        all_events: All events of the topic of verdicts, which name the windows before a window.
        store: Where archive and references are.
        settings: The drift worker's settings of windows.
        policy: How features of events are treated.
    """
    windows: dict[Stream, set[Window]] = {}
    for event in all_events:
        if isinstance(event, DriftVerdict) and not event.replayed:
            windows.setdefault(_stream_of(event), set()).add(event.window)
    window_judge = WindowJudge(store, settings, policy=policy)
    sums: dict[Stream, CumulatedState | None] = {}
    erased = erasures.read_all(store)
    read_window = lru_cache(PRECEDING_WINDOWS + 1)(partial(archive.read_window, store))
    for old in sorted(selected, key=lambda verdict: (*_stream_of(verdict), verdict.window.first_offset)):
        earlier = [each for each in windows.get(_stream_of(old), ()) if each.first_offset < old.window.first_offset]
        earlier = sorted(earlier, key=lambda window: window.first_offset)[-PRECEDING_WINDOWS:]
        preceding = []
        with suppress(FileNotFoundError, ArchiveUnreadable):
            preceding = [read_window(window, old.model, old.version, old.run_id) for window in earlier]
        try:
            rows = read_window(old.window, old.model, old.version, old.run_id)
        except (FileNotFoundError, ArchiveUnreadable):
            continue
        is_erased = any(erasure.in_window(old.window) for erasure in erased)  # then the other rows are all there is
        if rows.empty or (len(rows) < old.rows and not is_erased):
            continue
        stream = _stream_of(old)
        if stream not in sums:
            sums[stream] = _sums_before(store, earlier, version_digest(old.model, old.version, old.run_id))
        score = window_judge.cumulate(old.model, old.version, rows, sums[stream], old.run_id)
        sums[stream] = score.state if score else sums[stream]
        new = window_judge.judge(old.window, old.model, old.version, rows, preceding, old.archive, score, old.run_id)
        yield ReplayedVerdict(old, new.model_copy(update={"id": new_event_id(), "replayed": True}))


def _sums_before(store: ObjectStore, earlier: Sequence[Window], digest: str) -> CumulatedState | None:
    """Return a version's sums as they were archived with the latest of the windows before a window that has them.

    Args:
        store: Where the archive is.
        earlier: The windows before the window, the oldest first.
        digest: The digest of the version, by which the archive has its sums.
    """
    for window in reversed(earlier):
        if (found := archive.read_sums_at(store, window).get(digest)) is not None:
            return found
    return None


def _stream_of(verdict: DriftVerdict) -> Stream:
    window = verdict.window
    return Stream(verdict.model, verdict.version, verdict.run_id or "", window.topic, window.partition)


def format_table(replayed: Sequence[ReplayedVerdict]) -> Iterator[str]:
    """Yield old and new verdicts as lines of a table; the last line counts the changes."""
    lines = [("window", "version", "rows", "from", "old", "new", "drifted now")]
    for old, new in replayed:
        drifted = ", ".join(new.drifted_columns) or (new.explanation if new.verdict == "inconclusive" else "")
        lines.append(
            (
                old.window.name,
                f"{old.model} {old.version}",
                str(new.rows),
                f"{old.first_prediction_at:%Y-%m-%d %H:%M}",
                _format_verdict(old),
                _format_verdict(new),
                drifted,
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
    changed = sum(old.verdict != new.verdict for old, new in replayed)
    yield f"{len(replayed)} windows judged again, {changed} verdicts changed"


def _format_verdict(verdict: DriftVerdict) -> str:
    """Return a verdict with its scores and their thresholds, such as ``drift 9.5/8.1``."""
    scores = [
        (verdict.score, verdict.score_threshold),
        (verdict.multiwindow_score, verdict.multiwindow_score_threshold),
        (verdict.cumulated_score, 1.0),
    ]
    ratios = [f"{score:.1f}/{threshold:.1f}" for score, threshold in scores if score and threshold]
    return " ".join([verdict.verdict, *ratios])
