"""Each event is in one window, each window is judged once, and as if nothing had happened.

On the real stack, while workers are killed and their broker and bucket are away. ``make faults`` does the same with
many more faults.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from drift_worker.windows.orphan_cleanup import SCAN_INTERVAL_SECONDS
from driftloop.events import DriftVerdict, Event, FeatureValue, Prediction, Window
from driftloop.kafka import reader
from driftloop.kafka.topics import dead_letter_topic
from driftloop.storage import reference_store
from driftloop.storage.bucket import Bucket
from driftloop.storage.reference_store import Reference
from stack.running import Stack, leftovers
from tests.support.faults import random_delay, stopped
from tests.support.running_stack import isolated_settings
from tests.support.waiting import wait_until
from tests.support.worker_group import (
    MODEL,
    NOON,
    QUIET_SECONDS,
    ROWS,
    SESSION_SECONDS,
    Group,
    Known,
    Worker,
    answered,
    known,
    made_up,
    made_up_reference,
)

KILLS = int(os.environ.get("FAULTS_KILLS", "4"))
AWAY_SECONDS = float(os.environ.get("FAULTS_AWAY_SECONDS", "10"))
BROKER_AWAY_SECONDS = 10
STOP_SECONDS = 10
PARTITIONS = 4

pytestmark = pytest.mark.timeout(600 + 20 * KILLS + AWAY_SECONDS)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Broker and storage; each test brings its workers."""
    stack = Stack(isolated_settings(tmp_path_factory.mktemp("worker")), print)
    try:
        for name in ("kafka", "gcs"):
            stack.start(name)
        yield stack
    finally:
        stack.stop()
        for process in leftovers(stack.folder):  # reports that killed workers had begun
            process.kill()


@pytest.fixture(scope="module")
def good() -> Reference:
    return made_up_reference()


Open = Callable[..., Group]


@pytest.fixture
def group(stack: Stack, good: Reference) -> Iterator[Open]:
    """Makes a group whose version 1 has a reference."""
    opened: list[Group] = []

    def open_(name: str, **settings: Any) -> Group:
        opened.append(Group(stack, name, **settings))
        reference_store.save_reference(opened[-1].bucket, MODEL, "1", good)
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


def test_whatever_is_killed_or_away_each_event_is_in_one_window_and_each_window_is_judged_once_and_the_same(
    stack: Stack, group: Open, good: Reference, random_source: random.Random
) -> None:
    faulty = group("faulty", partitions=PARTITIONS)
    counts: Counter[str] = Counter()
    workers = disturbed(stack, faulty, counts, random_source)

    def over() -> bool | None:
        tend(workers, counts)
        return reader.is_caught_up(stack.kafka, faulty.name, [faulty.name]) or None

    wait_until(over, "all is final", seconds=QUIET_SECONDS + 120)
    windows = wait_until(lambda: tidy(faulty), "no slice begins within another", seconds=SCAN_INTERVAL_SECONDS + 30)
    there, verdicts = known(faulty.messages(faulty.name)), faulty.verdicts()
    rows = {window: faulty.rows(window) for window in chain.from_iterable(windows.values())}
    letters = [dict(record.headers) for record in faulty.messages(dead_letter_topic(faulty.name))]
    tell(
        counts,
        there,
        Found(verdicts, rows, Counter((int(one["dlq_partition"]), int(one["dlq_offset"])) for one in letters)),
    )

    for partition, of_partition in windows.items():
        assert of_partition[0].first_offset == 0
        assert of_partition[-1].last_offset == there.last[partition]
        for one, next_one in pairwise(of_partition):
            assert one.last_offset + 1 == next_one.first_offset
        for window in of_partition:
            within = range(window.first_offset, window.last_offset + 1)
            assert set(rows[window]["id"]) == {e.id for at, e in there.events[partition].items() if at in within}
    of_versions = {(window, version) for window, frame in rows.items() for version in frame["version"].unique()}
    assert {(verdict.window, verdict.version) for verdict in verdicts} == of_versions

    calm, bucket, drift = faulty.undisturbed()
    reference_store.save_reference(bucket, MODEL, "1", good)
    calm.start()
    last = {of_partition[-1] for of_partition in windows.values()}  # these were cut by the clock
    disturbed_ones = {verdict.id: judged(verdict) for verdict in verdicts if verdict.window not in last}

    def undisturbed() -> dict[str, dict[str, Any]] | None:
        found = {verdict.id: judged(verdict) for verdict in faulty.verdicts(drift)}
        return (
            {identity: found[identity] for identity in disturbed_ones}
            if disturbed_ones.keys() <= found.keys()
            else None
        )

    assert wait_until(undisturbed, "the same windows are judged without disturbance") == disturbed_ones
    assert {verdict.verdict for verdict in verdicts} == {"no_drift", "drift", "inconclusive"}
    assert any(verdict.multiwindow_score is not None for verdict in verdicts)


def tidy(faulty: Group) -> dict[int, list[Window]] | None:
    """The archive's slices, once what frozen and killed workers have left there is deleted."""
    found = faulty.windows()
    pairs = chain.from_iterable(map(pairwise, found.values()))
    return found if all(one.last_offset < next_one.first_offset for one, next_one in pairs) else None


def disturbed(stack: Stack, faulty: Group, counts: Counter[str], source: random.Random) -> list[Worker]:
    """Lets events flow to workers while these are killed and frozen, join and leave, and lose broker and bucket."""
    workers = [faulty.worker() for _ in range(3)]
    with faulty.flow() as pause:
        wait_until(lambda: faulty.verdicts() or None, "the first verdicts", seconds=120)
        for number in range(KILLS):
            tend(workers, counts)
            if number % 10 == 1:
                with pause, stopped(stack, "kafka", kill=number % 20 == 1):
                    time.sleep(BROKER_AWAY_SECONDS)
                counts["broker restarts"] += 1
            if number == 2:
                with stopped(stack, "gcs"):
                    time.sleep(AWAY_SECONDS)
                counts["buckets away"] += 1
            if number % 10 == 3:
                workers.append(faulty.worker())
                counts["joined"] += 1
            if number % 10 == 8:
                left(workers, counts)
            random_delay(source)
            tend(workers, counts)
            victim = source.choice(workers)
            others = [one for one in workers if one is not victim]
            frozen = number % 4 == 3
            if frozen:
                victim.freeze()
                counts["freezes"] += 1
            else:
                victim.kill()
                counts["kills"] += 1
            if number % 2:  # its partitions move on before it is back
                wait_until(lambda others=others: owned(others, counts), "the partitions move", seconds=120)  # type: ignore[misc]
            if frozen:
                victim.thaw()
            else:
                victim.start()
        if len(workers) > 3:
            left(workers, counts)
    for what, words in {
        "waits for the bucket": "consumer.retry_scheduled",
        "transactions given up": "consumer.commit_refused",
    }.items():
        counts[what] = sum(len(worker.said(words, ever=True)) for worker in faulty.workers)
    return workers


def left(workers: list[Worker], counts: Counter[str]) -> None:
    """The last worker leaves; returns when the others have its partitions."""
    wait_until(lambda: owned(workers, counts), "all partitions have an owner", seconds=120)
    assert workers.pop().stop() < STOP_SECONDS
    counts["left"] += 1
    wait_until(lambda: owned(workers, counts), "its partitions move", seconds=120)


class Found(NamedTuple):
    """What came of the events."""

    verdicts: Sequence[DriftVerdict]
    rows: Mapping[Window, pd.DataFrame]
    letters: Counter[tuple[int, int]]
    """Dead letters by the partition and offset that they come from."""


def tell(counts: Counter[str], there: Known, found: Found) -> None:
    """Prints how much there was of everything; fails where something was doubled or lost."""
    ids = Counter(verdict.id for verdict in found.verdicts)
    archived = Counter(row for frame in found.rows.values() for row in zip(frame["id"], frame["row"], strict=True))
    events = [event for of_partition in there.events.values() for event in of_partition.values()]
    wanted = {(event.id, row) for event in events for row in range(len(event.predictions))}
    counts |= {"verdicts": len(ids), "windows": len(found.rows), "events": len(events), "rows": len(wanted)}
    counts["dead letters"] = len(found.letters)
    twice = [what for of in (ids, archived, found.letters) for what, count in of.items() for _ in range(count - 1)]
    doubled = len(twice)
    lost = len(wanted - archived.keys()) + len(there.unreadable - found.letters.keys())
    print(
        "\n" + ", ".join(f"{count:,} {what}" for what, count in counts.items()),
        f"{doubled} doubled, {lost} lost",
        sep=", ",
    )
    assert not twice, where(twice, found)
    assert lost == 0
    assert archived.keys() == wanted
    assert found.letters.keys() == there.unreadable


def where(twice: Sequence[Any], found: Found) -> list[str]:
    """What was doubled, and the windows that have it."""
    windows = {window.name: set(zip(frame["id"], frame["row"], strict=True)) for window, frame in found.rows.items()}
    return [f"{one}: {[name for name, rows in windows.items() if one in rows]}" for one in twice]


def test_a_stopped_worker_is_back_before_anybody_notices_and_a_dead_one_is_replaced(group: Open) -> None:
    watched = group("watched", partitions=2)
    stays, goes = watched.worker(), watched.worker()

    def shared() -> bool | None:
        mine, other = stays.partitions(), goes.partitions()
        return bool(mine and other and not mine & other and len(mine | other) == 4) or None

    wait_until(shared, "both have partitions")
    assignments, before = len(stays.said("consumer.partitions_assigned")), goes.partitions()
    took = goes.stop()
    assert took < STOP_SECONDS
    goes.start()
    assert wait_until(goes.partitions, "it is back") == before
    assert len(stays.said("consumer.partitions_assigned")) == assignments

    goes.kill()
    killed_at = time.monotonic()
    wait_until(lambda: len(stays.partitions() or ()) == 4 or None, "the other has all partitions")
    moved_after = time.monotonic() - killed_at
    print(f"\nstopped in {took:.1f} s; partitions of a killed worker moved after {moved_after:.1f} s")
    assert moved_after < SESSION_SECONDS + 5


def test_what_cannot_be_judged_gets_a_verdict_that_says_why_and_the_partition_goes_on(
    group: Open, good: Reference
) -> None:
    odd = group("odd")
    write_odd_references(odd.bucket, good)
    source = np.random.default_rng(4)

    def window(
        version: str = "1", model: str = MODEL, without: str = "", **changed: FeatureValue
    ) -> list[Event | bytes]:
        """A window's events, with all cells of columns changed."""
        events: list[Event | bytes] = []
        for _ in range(10):
            features = made_up(source, 0, ROWS // 10)
            features |= {name: [cell] * (ROWS // 10) for name, cell in changed.items()}
            features.pop(without, None)
            predictions = answered(source, features)
            events.append(Prediction(model=model, version=version, features=features, predictions=predictions))
        return events

    put = {
        "good": window(),
        "unknown version": [b"no event", *window("9")],
        "truncated reference": window("truncated"),
        "reference without a column": window("lacks"),
        "reference of other types": window("types"),
        "profile of another schema": window("profile"),
        "profile of other columns": window("columns"),
        "good again": window(),
        "only nulls": window(x=None),
        "after nulls": window(),
        "without a feature": window(without="k"),
        "after one without a feature": window(),
        "a feature more": window(more=1.0),
        "another type": window(x="far"),
        "after another type": window(),
        "a number too large": window(k=10**30),
        "a reserved name": window(time="noon"),
        "a model's name with a space": window(model="made up"),
        "the last": window(),
    }
    for messages in put.values():
        odd.put(messages)
    odd.worker()

    def all_there() -> list[DriftVerdict] | None:
        assert odd.workers[0].process.poll() is None, "the worker has ended"
        found = sorted(odd.verdicts(), key=lambda verdict: verdict.window.name)
        return found if len(found) >= len(put) else None

    verdicts = dict(zip(put, wait_until(all_there, "a verdict for each window"), strict=True))
    why = {name: verdict.explanation for name, verdict in verdicts.items() if verdict.verdict == "inconclusive"}
    for name, words in {
        "unknown version": f"version 9 of {MODEL} has no reference",
        "truncated reference": f"the reference of version truncated of {MODEL} cannot be read",
        "reference without a column": f"the reference of version lacks of {MODEL} lacks k",
        "reference of other types": f"the reference of version types of {MODEL} is of another schema",
        "profile of another schema": f"the reference of version profile of {MODEL} cannot be read",
        "profile of other columns": f"the reference of version columns of {MODEL} is of another schema",
        "without a feature": "the window lacks k",
        "a model's name with a space": "version 1 of made up has no reference",
    }.items():
        assert words in why.pop(name)
    assert not why
    facts = {
        name: {(f.column, f.kind, f.fraction) for f in verdict.data_quality_issues}
        for name, verdict in verdicts.items()
    }
    assert ("x", "all_missing", 1.0) in facts["only nulls"]
    assert {("x", "type_mismatch", 1.0), ("x", "all_missing", 1.0)} <= facts["another type"]
    assert ("k", "out_of_range", 1.0) in facts["a number too large"]
    for name in ("good", "good again", "a feature more", "a reserved name", "the last"):
        assert facts[name] == set()
    assert [verdicts[name].verdict for name in ("only nulls", "another type")] == ["drift", "drift"]
    (letter,) = odd.messages(dead_letter_topic("odd"))
    assert letter.value == b"no event"


def test_archived_windows_are_judged_again_with_a_new_reference(group: Open, good: Reference) -> None:
    again = group("again")
    source = np.random.default_rng(5)
    for day in range(4):
        features = made_up(source, day, ROWS)
        predictions = answered(source, features)
        time_of = NOON + timedelta(days=day)
        again.put([Prediction(time=time_of, model=MODEL, version="1", features=features, predictions=predictions)])
    again.worker()
    given = wait_until(lambda: found if len(found := again.verdicts()) == 4 else None, "verdicts")
    lowered = [span.model_copy(update={"limit": -1.0}) for span in good.profile.spans]
    profile = good.profile.model_copy(update={"spans": lowered})
    reference_store.save_reference(again.bucket, MODEL, "1", good._replace(profile=profile))

    days = ("--from", f"{NOON + timedelta(days=1):%Y-%m-%d}", "--to", f"{NOON + timedelta(days=3):%Y-%m-%d}")
    shown = again.command("replay", *days)
    assert shown.stdout.splitlines()[-1] == "2 verdicts given again, 2 of them another one", shown.stdout + shown.stderr
    assert len(again.verdicts()) == 4
    again.command("replay", *days, "--publish")
    replayed = wait_until(lambda: [one for one in again.verdicts() if one.replayed] or None, "the new verdicts")
    assert [(one.window, one.verdict) for one in replayed] == [(one.window, "drift") for one in given[1:3]]
    assert {one.id for one in replayed}.isdisjoint(one.id for one in given)


def write_odd_references(bucket: Bucket, good: Reference) -> None:
    """A version for each thing that can be wrong with a reference, named after it."""
    rows, profile = good
    at = reference_store.reference_prefix(MODEL, "truncated")
    reference_store.save_reference(bucket, MODEL, "truncated", good)
    whole = bucket.read(f"{at}/rows.parquet")
    bucket.write(f"{at}/rows.parquet", whole[: len(whole) // 2])
    reference_store.save_reference(bucket, MODEL, "lacks", Reference(rows.drop(columns="k"), profile))
    reference_store.save_reference(bucket, MODEL, "types", Reference(rows.assign(x="far"), profile))
    reference_store.save_reference(bucket, MODEL, "profile", good)
    bucket.write(f"{reference_store.reference_prefix(MODEL, 'profile')}/profile.json", b'{"columns": ["x"]}')
    fewer = {name: kind for name, kind in profile.column_types.items() if name != "k"}
    reference_store.save_reference(
        bucket, MODEL, "columns", Reference(rows, profile.model_copy(update={"kinds": fewer}))
    )


def judged(verdict: DriftVerdict) -> dict[str, Any]:
    """What must not depend on when and by whom it was judged, and into which bucket."""
    said = verdict.model_dump(exclude={"time", "archive"})
    return {**said, "explanation": verdict.explanation.replace("-undisturbed/", "/")}


def tend(workers: Sequence[Worker], counts: Counter[str]) -> None:
    """Starts those that have ended by themselves again, as a supervisor does."""
    for worker in workers:
        if not worker.running():
            counts["ended by themselves"] += 1
            worker.start()


def owned(workers: Sequence[Worker], counts: Counter[str]) -> bool | None:
    """Whether each partition has an owner among the workers, and only one."""
    tend(workers, counts)
    has = [partition for worker in workers for partition in worker.partitions() or ()]
    return (len(has) == len({*has}) == 2 * PARTITIONS) or None
