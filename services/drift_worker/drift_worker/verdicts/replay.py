"""Archived windows judged again, with the references as they are now: what a new threshold would have said of them."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby

from kafka.errors import KafkaError

from drift_worker.settings import DriftWorkerSettings
from drift_worker.verdicts.window_judge import WindowJudge
from drift_worker.windows import archive
from drift_worker.windows.recent_windows import RecentWindows
from driftloop.events import DriftVerdict, Event, Window, new_event_id
from driftloop.kafka import topics
from driftloop.kafka.publisher import Publisher, BrokerUnavailable
from driftloop.settings import WindowSettings, load
from driftloop.storage.bucket import Away, Bucket

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
        given = topics.read_last(settings.kafka, settings.topics.drift, ALL_EVENTS)
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
    except (KafkaError, BrokerUnavailable) as error:
        print(
            f"no answer from Kafka at {settings.kafka.bootstrap_servers} (DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS): {error}"
        )
        raise SystemExit(UNREACHABLE) from error
    except Away as error:
        print(f"{settings.storage.bucket} (DRIFTLOOP_STORAGE__BUCKET): {error}")
        raise SystemExit(UNREACHABLE) from error


def rejudge(
    chosen: Iterable[DriftVerdict], given: Iterable[Event], bucket: Bucket, window: WindowSettings
) -> Iterator[tuple[DriftVerdict, DriftVerdict]]:
    """Each chosen verdict with the one that its rows get now, which has an id of its own; none where the rows are gone.

    ``given`` are all verdicts: the windows before one are named by theirs.
    """
    named = {one.window for one in given if isinstance(one, DriftVerdict)}
    by_end = {(one.topic, one.partition, one.last_offset + 1): one for one in named}

    def finals(before: Window, count: int) -> Sequence[Window]:
        found: list[Window] = []
        while len(found) < count and (one := by_end.get((before.topic, before.partition, before.first_offset))):
            found.insert(0, one)
            before = one
        return found

    history = RecentWindows(bucket, window.min_rows, finals)
    judging = WindowJudge(bucket, window, history)
    in_order = sorted(chosen, key=lambda verdict: (verdict.window.name, verdict.model, verdict.version))
    for one, verdicts in groupby(in_order, key=lambda verdict: verdict.window):
        try:
            rows = archive.read_slice(bucket, one)
        except FileNotFoundError:
            continue
        for old in verdicts:
            of_version = rows[(rows["model"] == old.model) & (rows["version"] == old.version)]
            new = judging.judge(one, old.model, old.version, of_version, old.archive)
            yield old, new.model_copy(update={"id": new_event_id(), "replayed": True})
        history.add(one, rows)


def format_table(pairs: Sequence[tuple[DriftVerdict, DriftVerdict]]) -> Iterator[str]:
    """Old and new verdicts as lines of text, with what has changed in the last."""
    lines = [("window", "version", "rows", "from", "old", "new", "drifted now")]
    for old, new in pairs:
        of = f"{old.model} {old.version}"
        drifted = ", ".join(new.drifted_columns) or (new.explanation if new.verdict == "inconclusive" else "")
        lines.append(
            (
                old.window.name,
                of,
                str(new.rows),
                f"{old.first_prediction_at:%Y-%m-%d %H:%M}",
                _said(old),
                _said(new),
                drifted,
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
    changed = sum(old.verdict != new.verdict for old, new in pairs)
    yield f"{len(pairs)} verdicts given again, {changed} of them another one"


def _said(verdict: DriftVerdict) -> str:
    """The verdict, with the scores that it comes from and their limits."""
    scores = [
        (verdict.score, verdict.score_threshold),
        (verdict.multiwindow_score, verdict.multiwindow_score_threshold),
    ]
    return " ".join([verdict.verdict, *(f"{score:.1f}/{limit:.1f}" for score, limit in scores if score and limit)])


def _day(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
