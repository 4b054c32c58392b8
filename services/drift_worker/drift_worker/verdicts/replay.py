"""Replay: judge archived windows again with the current references, for example to try other thresholds."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby

from drift_worker.settings import DriftWorkerSettings
from drift_worker.verdicts.window_judge import WindowJudge
from drift_worker.windows import archive
from drift_worker.windows.recent_windows import RecentWindows
from drift_worker.windows.version_rows import rows_of_version
from driftloop.errors import BrokerUnavailable, StorageUnavailable
from driftloop.events import DriftVerdict, Event, Window, new_event_id
from driftloop.kafka import reader
from driftloop.kafka.publisher import Publisher
from driftloop.settings import WindowSettings, load
from driftloop.storage.bucket import Bucket

ALL_EVENTS = 10**9  # verdicts are few, and the broker keeps them
UNREACHABLE = 6

ABOUT = """\
Judge archived windows again, with the references as they are now, and show the old verdict beside the new one.

Which windows there are is read from the topic of verdicts, their rows from the archive. Reads the settings of the
drift worker.
"""
EXAMPLES = """\
examples:
  driftloop-drift-worker replay --from 2013-07-01 --to 2013-08-01
  driftloop-drift-worker replay --from 2013-07-01 --to 2013-08-01 --model flights --version 2 --publish
"""


def main(arguments: Sequence[str]) -> None:
    """The command; ``arguments`` are those after its name."""
    parser = argparse.ArgumentParser(
        prog="driftloop-drift-worker replay",
        description=ABOUT,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--from", dest="start", metavar="DAY", type=_day, required=True, help="first day, in UTC")
    parser.add_argument("--to", dest="end", metavar="DAY", type=_day, required=True, help="the day after the last")
    parser.add_argument("--model", help="only windows of this model")
    parser.add_argument("--version", help="only windows of this version")
    parser.add_argument(
        "--publish", action="store_true", help="put the new verdicts on the topic too, marked as replayed"
    )
    asked = parser.parse_args(arguments)
    settings = load(DriftWorkerSettings)
    try:
        given = reader.read_last(settings.kafka, settings.topics.drift, ALL_EVENTS)
        chosen = [
            event
            for event in given
            if isinstance(event, DriftVerdict)
            and not event.replayed
            and event.last_prediction_at >= asked.start
            and event.first_prediction_at < asked.end
            and asked.model in (None, event.model)
            and asked.version in (None, event.version)
        ]
        pairs = list(rejudge(chosen, given, Bucket(settings.storage), settings.window))
        for line in format_table(pairs):
            print(line)
        if gone := len(chosen) - len(pairs):
            print(f"of {gone} more the rows are not in the archive any longer")
        if asked.publish:
            with Publisher(settings.kafka, settings.topics, "drift_worker") as publisher:
                publisher.publish(*(new for _, new in pairs))
            print(f"published {len(pairs)} verdicts to {settings.topics.drift}, marked as replayed")
    except BrokerUnavailable as error:
        print(error)
        raise SystemExit(UNREACHABLE) from error
    except StorageUnavailable as error:
        print(f"{settings.storage.bucket} (DRIFTLOOP_STORAGE__BUCKET): {error}")
        raise SystemExit(UNREACHABLE) from error


def rejudge(
    selected: Iterable[DriftVerdict], all_events: Iterable[Event], bucket: Bucket, settings: WindowSettings
) -> Iterator[tuple[DriftVerdict, DriftVerdict]]:
    """Yield each selected verdict with the verdict that its rows get now, which has a new id.

    Verdicts whose rows are not in the archive are left out.

    Args:
        selected: The verdicts to judge again.
        all_events: All events of the topic: their windows are the committed slices.
        bucket: Where archive and references are.
        settings: The drift worker's settings of windows.
    """
    windows = {event.window for event in all_events if isinstance(event, DriftVerdict)}
    by_end = {(window.topic, window.partition, window.last_offset + 1): window for window in windows}

    def preceding_slices(window: Window, count: int) -> Sequence[Window]:
        preceding: list[Window] = []
        while len(preceding) < count and (earlier := by_end.get((window.topic, window.partition, window.first_offset))):
            preceding.insert(0, earlier)
            window = earlier
        return preceding

    recent_windows = RecentWindows(bucket, settings.min_rows, preceding_slices)
    window_judge = WindowJudge(bucket, settings, recent_windows)
    ordered = sorted(selected, key=lambda verdict: (verdict.window.name, verdict.model, verdict.version))
    for window, verdicts in groupby(ordered, key=lambda verdict: verdict.window):
        try:
            rows = archive.read_slice(bucket, window)
        except FileNotFoundError:
            continue
        for old in verdicts:
            version_rows = rows_of_version(rows, old.model, old.version)
            new = window_judge.judge(window, old.model, old.version, version_rows, old.archive)
            yield old, new.model_copy(update={"id": new_event_id(), "replayed": True})
        recent_windows.add(window, rows)


def format_table(pairs: Sequence[tuple[DriftVerdict, DriftVerdict]]) -> Iterator[str]:
    """Yield old and new verdicts as lines of a table; the last line counts the changes."""
    lines = [("window", "version", "rows", "from", "old", "new", "drifted now")]
    for old, new in pairs:
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
    changed = sum(old.verdict != new.verdict for old, new in pairs)
    yield f"{len(pairs)} windows judged again, {changed} verdicts changed"


def _format_verdict(verdict: DriftVerdict) -> str:
    """Return a verdict with its scores and their thresholds, such as ``drift 9.5/8.1``."""
    scores = [
        (verdict.score, verdict.score_threshold),
        (verdict.multiwindow_score, verdict.multiwindow_score_threshold),
    ]
    ratios = [f"{score:.1f}/{threshold:.1f}" for score, threshold in scores if score and threshold]
    return " ".join([verdict.verdict, *ratios])


def _day(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
