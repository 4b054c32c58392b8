"""Faults leave each event in one window, and each window judged once with an unchanged verdict.

On the real stack, workers are killed and frozen, and broker and bucket are stopped. ``make faults`` injects many more
faults.
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
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from drift_worker.windows.orphan_cleanup import SCAN_INTERVAL_SECONDS
from driftloop.drift.settings import WindowSettings
from driftloop.events import DriftVerdict, Event, FeatureValue, Prediction, Window
from driftloop.kafka import reader
from driftloop.kafka.topics import dead_letter_topic
from driftloop.storage import reference_store
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import Reference
from stack.running import Stack, orphans
from tests.support.faults import random_delay, stopped
from tests.support.running_stack import isolated_settings
from tests.support.waiting import wait_until
from tests.support.worker_group import (
    IDLE_TIMEOUT_SECONDS,
    MODEL,
    NOON,
    ROWS,
    TopicContents,
    WorkerGroup,
    WorkerProcess,
    make_features,
    make_predictions,
    make_reference,
    parse_topic,
)

KILLS = int(os.environ.get("FAULTS_KILLS", "4"))
BUCKET_OUTAGE_SECONDS = float(os.environ.get("FAULTS_AWAY_SECONDS", "10"))
BROKER_OUTAGE_SECONDS = 10
STOP_SECONDS = 10
SLOW_START_SECONDS = 90.0  # a restarted worker must rejoin before the session of the stopped one times out
PARTITIONS = 4

pytestmark = pytest.mark.timeout(600 + 20 * KILLS + BUCKET_OUTAGE_SECONDS)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start broker and storage; each test starts its workers."""
    stack = Stack(isolated_settings(tmp_path_factory.mktemp("worker")), print)
    try:
        for name in ("kafka", "gcs"):
            stack.start(name)
        yield stack
    finally:
        stack.stop()
        for process in orphans(stack.folder):  # reports that killed workers had begun
            process.kill()


@pytest.fixture(scope="module")
def reference() -> Reference:
    return make_reference()


MakeGroup = Callable[..., WorkerGroup]


@pytest.fixture
def make_group(stack: Stack, reference: Reference) -> Iterator[MakeGroup]:
    """Return a function that makes a group of workers whose version 1 has a reference."""
    opened: list[WorkerGroup] = []

    def make(name: str, **settings: Any) -> WorkerGroup:
        opened.append(WorkerGroup(stack, name, **settings))
        reference_store.save_reference(opened[-1].store, MODEL, "1", reference)
        return opened[-1]

    yield make
    for worker_group in opened:
        worker_group.close()


def test_worker_faults_leave_each_event_in_one_window_judged_once_with_an_equal_verdict(
    stack: Stack, make_group: MakeGroup, reference: Reference, random_source: random.Random
) -> None:
    group = make_group("faulty", partitions=PARTITIONS)
    counts: Counter[str] = Counter()
    workers = run_faults(stack, group, counts, random_source)

    def all_committed() -> bool | None:
        restart_exited(workers, counts)
        return reader.is_caught_up(stack.kafka, group.name, [group.name]) or None

    wait_until(all_committed, "all events are committed", seconds=IDLE_TIMEOUT_SECONDS + 120)
    windows = wait_until(
        lambda: slices_without_overlap(group),
        "no slice overlaps another",
        seconds=SCAN_INTERVAL_SECONDS + 30,
    )
    expected, verdicts = parse_topic(group.messages(group.name)), group.verdicts()
    rows = {window: group.rows(window) for window in chain.from_iterable(windows.values())}
    dead_letters = [dict(record.headers) for record in group.messages(dead_letter_topic(group.name))]
    assert_nothing_lost_or_doubled(
        counts,
        expected,
        Results(
            verdicts,
            rows,
            Counter((int(letter["dlq_partition"]), int(letter["dlq_offset"])) for letter in dead_letters),
        ),
    )

    for partition, partition_windows in windows.items():
        assert partition_windows[0].first_offset == 0
        assert partition_windows[-1].last_offset == expected.last_offsets[partition]
        for window, next_window in pairwise(partition_windows):
            assert window.last_offset + 1 == next_window.first_offset
        for window in partition_windows:
            within = range(window.first_offset, window.last_offset + 1)
            assert set(rows[window]["_id"]) == {
                e.id for offset, e in expected.events[partition].items() if offset in within
            }
    assert_each_row_is_in_one_window_of_its_version(rows, verdicts, expected.duplicates)

    control, store, drift = group.control_worker()
    reference_store.save_reference(store, MODEL, "1", reference)
    control.start()
    # The last slices were closed by the idle timeout, and windows with them.
    ends = {(partition, partition_windows[-1].last_offset) for partition, partition_windows in windows.items()}
    verdicts_under_faults = {
        verdict.id: comparable(verdict)
        for verdict in verdicts
        if (verdict.window.partition, verdict.window.last_offset) not in ends
    }

    def control_verdicts() -> dict[str, dict[str, Any]] | None:
        verdicts_by_id = {verdict.id: comparable(verdict) for verdict in group.verdicts(drift)}
        return (
            {identity: verdicts_by_id[identity] for identity in verdicts_under_faults}
            if verdicts_under_faults.keys() <= verdicts_by_id.keys()
            else None
        )

    assert wait_until(control_verdicts, "the control worker has judged the same windows") == verdicts_under_faults
    assert {verdict.verdict for verdict in verdicts} == {"no_drift", "drift", "inconclusive"}
    assert any(verdict.multiwindow_score is not None for verdict in verdicts)


def assert_each_row_is_in_one_window_of_its_version(
    rows: Mapping[Window, pd.DataFrame],
    verdicts: Sequence[DriftVerdict],
    duplicates: Mapping[int, Mapping[int, Prediction]],
) -> None:
    """Check that each archived row is in one window of its version, or in the window that is still open.

    A version's windows follow one another in a partition, and none but the last closes with too few rows for a verdict.
    Rows of duplicate events count for that.
    """
    counts: dict[tuple[int, str, str], dict[Window, int]] = {}
    for slice_, frame in sorted(rows.items(), key=lambda item: item[0].first_offset):
        for (model, version), of_version in frame.groupby(["_model", "_version"]):
            counts.setdefault((slice_.partition, str(model), str(version)), {})[slice_] = len(of_version)
    windows: dict[tuple[int, str, str], list[DriftVerdict]] = {}
    for verdict in sorted(verdicts, key=lambda verdict: verdict.window.first_offset):
        windows.setdefault((verdict.window.partition, verdict.model, verdict.version), []).append(verdict)
    assert windows.keys() <= counts.keys()
    for key, by_slice in counts.items():
        remaining = dict(by_slice)
        for verdict in windows.get(key, []):
            own = [each for each in remaining if each.first_offset <= verdict.window.last_offset]
            assert (own[0].first_offset, own[-1].last_offset) == (
                verdict.window.first_offset,
                verdict.window.last_offset,
            )
            assert verdict.rows == sum(remaining.pop(each) for each in own)
            repeated = [
                len(event.predictions)
                for offset, event in duplicates.get(verdict.window.partition, {}).items()
                if (event.model, event.version) == (verdict.model, verdict.version)
                and verdict.window.first_offset <= offset <= verdict.window.last_offset
            ]
            assert verdict.rows + sum(repeated) >= WindowSettings().min_rows(ROWS)
        assert sum(remaining.values()) < WindowSettings().min_rows(ROWS)


def slices_without_overlap(group: WorkerGroup) -> dict[int, list[Window]] | None:
    """Return the archived slices by partition, once the orphans of frozen and killed workers are deleted."""
    windows = group.windows()
    pairs = chain.from_iterable(map(pairwise, windows.values()))
    return windows if all(window.last_offset < next_window.first_offset for window, next_window in pairs) else None


def run_faults(stack: Stack, group: WorkerGroup, counts: Counter[str], source: random.Random) -> list[WorkerProcess]:
    """Publish events while workers are killed and frozen, join and leave, and lose broker and bucket."""
    workers = [group.worker() for _ in range(3)]
    with group.event_flow() as pause:
        wait_until(lambda: group.verdicts() or None, "verdicts are published", seconds=120)
        for number in range(KILLS):
            restart_exited(workers, counts)
            if number % 10 == 1:
                with pause, stopped(stack, "kafka", kill=number % 20 == 1):
                    time.sleep(BROKER_OUTAGE_SECONDS)
                counts["broker restarts"] += 1
            if number == 2:
                with stopped(stack, "gcs"):
                    time.sleep(BUCKET_OUTAGE_SECONDS)
                counts["bucket outages"] += 1
            if number % 10 == 3:
                workers.append(group.worker())
                counts["joined"] += 1
            if number % 10 == 8:
                stop_last_worker(workers, counts)
            random_delay(source)
            restart_exited(workers, counts)
            victim = source.choice(workers)
            others = [worker for worker in workers if worker is not victim]
            frozen = number % 4 == 3
            if frozen:
                victim.freeze()
                counts["freezes"] += 1
            else:
                victim.kill()
                counts["kills"] += 1
            if number % 2:  # its partitions move before it starts again
                gone_at = time.monotonic()
                wait_until(lambda others=others: all_owned_once(others, counts), "the partitions move", seconds=120)  # type: ignore[misc]
                move_seconds = round(time.monotonic() - gone_at)
                counts["seconds at most until partitions moved"] = max(
                    counts["seconds at most until partitions moved"], move_seconds
                )
            if frozen:
                victim.thaw()
            else:
                victim.start()
        if len(workers) > 3:
            stop_last_worker(workers, counts)
    for name, event in {
        "scheduled retries": "consumer.retry_scheduled",
        "refused commits": "consumer.commit_refused",
    }.items():
        counts[name] = sum(len(worker.log_entries(event, all_runs=True)) for worker in group.workers)
    return workers


def stop_last_worker(workers: list[WorkerProcess], counts: Counter[str]) -> None:
    """Stop the last worker and wait until the others have its partitions."""
    wait_until(lambda: all_owned_once(workers, counts), "all partitions have an owner", seconds=120)
    assert workers.pop().stop() < STOP_SECONDS
    counts["left"] += 1
    wait_until(lambda: all_owned_once(workers, counts), "the remaining workers own all partitions", seconds=120)


class Results(NamedTuple):
    """Verdicts, archived rows and dead letters that the workers have written."""

    verdicts: Sequence[DriftVerdict]
    rows: Mapping[Window, pd.DataFrame]
    dead_letters: Counter[tuple[int, int]]
    """Dead letters by the partition and offset of the message."""


def assert_nothing_lost_or_doubled(counts: Counter[str], expected: TopicContents, results: Results) -> None:
    """Print the counts; fail if something was doubled or lost."""
    ids = Counter(verdict.id for verdict in results.verdicts)
    archived = Counter(row for frame in results.rows.values() for row in zip(frame["_id"], frame["_row"], strict=True))
    events = [event for partition_windows in expected.events.values() for event in partition_windows.values()]
    expected_rows = {(event.id, row) for event in events for row in range(len(event.predictions))}
    counts |= {"verdicts": len(ids), "windows": len(results.rows), "events": len(events), "rows": len(expected_rows)}
    counts["dead letters"] = len(results.dead_letters)
    doubled_items = [
        key
        for counter in (ids, archived, results.dead_letters)
        for key, count in counter.items()
        for _ in range(count - 1)
    ]
    doubled = len(doubled_items)
    lost = len(expected_rows - archived.keys()) + len(expected.invalid - results.dead_letters.keys())
    print(
        "\n" + ", ".join(f"{count:,} {name}" for name, count in counts.items()),
        f"{doubled} doubled, {lost} lost",
        sep=", ",
    )
    assert not doubled_items, windows_of(doubled_items, results)
    assert lost == 0
    assert archived.keys() == expected_rows
    assert results.dead_letters.keys() == expected.invalid


def windows_of(doubled_items: Sequence[Any], results: Results) -> list[str]:
    """Return each doubled item with the windows that contain it."""
    windows = {
        window.name: set(zip(frame["_id"], frame["_row"], strict=True)) for window, frame in results.rows.items()
    }
    return [f"{item}: {[name for name, rows in windows.items() if item in rows]}" for item in doubled_items]


def test_restarted_worker_keeps_its_partitions_without_a_rebalance(make_group: MakeGroup) -> None:
    group = make_group("watched", partitions=2, session_timeout_seconds=SLOW_START_SECONDS)
    stable_worker, other_worker = group.worker(), group.worker()

    def shared() -> bool | None:
        first, second = stable_worker.partitions(), other_worker.partitions()
        return bool(first and second and not first & second and len(first | second) == 4) or None

    wait_until(shared, "each worker owns partitions")
    assignments, before = len(stable_worker.log_entries("consumer.partitions_assigned")), other_worker.partitions()
    stop_seconds = other_worker.stop()
    assert stop_seconds < STOP_SECONDS
    other_worker.start()
    assert wait_until(other_worker.partitions, "the restarted worker owns partitions") == before
    assert len(stable_worker.log_entries("consumer.partitions_assigned")) == assignments
    print(f"\nstopped in {stop_seconds:.1f} s")


def test_inconclusive_windows_have_an_explanation_and_do_not_stop_the_partition(
    make_group: MakeGroup, reference: Reference
) -> None:
    group = make_group("inconclusive")
    save_broken_references(group.store, reference)
    source = np.random.default_rng(4)

    def window(
        version: str = "1", model: str = MODEL, without: str = "", **changed: FeatureValue
    ) -> list[Event | bytes]:
        """Return the events of a window, with all values of some columns changed."""
        events: list[Event | bytes] = []
        for _ in range(10):
            features = make_features(source, 0, ROWS // 10)
            features |= {name: [cell] * (ROWS // 10) for name, cell in changed.items()}
            features.pop(without, None)
            predictions = make_predictions(source, features)
            events.append(Prediction(model=model, version=version, features=features, predictions=predictions))
        return events

    messages_by_name = {
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
    for messages in messages_by_name.values():
        group.publish(messages)
    group.worker()

    def all_verdicts() -> list[DriftVerdict] | None:
        assert group.workers[0].process.poll() is None, "the worker has exited"
        verdicts = sorted(group.verdicts(), key=lambda verdict: verdict.window.name)
        return verdicts if len(verdicts) >= len(messages_by_name) else None

    verdicts = dict(zip(messages_by_name, wait_until(all_verdicts, "a verdict on each window"), strict=True))
    explanations = {
        name: verdict.explanation for name, verdict in verdicts.items() if verdict.verdict == "inconclusive"
    }
    for name, expected_explanation in {
        "unknown version": f"version 9 of {MODEL} has no reference",
        "truncated reference": f"the reference of version truncated of {MODEL} cannot be read",
        "reference without a column": f"the reference of version lacks of {MODEL} has no column k",
        "reference of other types": f"the reference of version types of {MODEL} has another schema",
        "profile of another schema": f"the reference of version profile of {MODEL} cannot be read",
        "profile of other columns": f"the reference of version columns of {MODEL} has another schema",
        "without a feature": "the window has no column k",
        "a model's name with a space": "version 1 of made up has no reference",
    }.items():
        assert expected_explanation in explanations.pop(name)
    assert not explanations
    issues = {
        name: {(f.column, f.kind, f.fraction) for f in verdict.data_quality_issues}
        for name, verdict in verdicts.items()
    }
    assert ("x", "all_missing", 1.0) in issues["only nulls"]
    assert {("x", "type_mismatch", 1.0), ("x", "all_missing", 1.0)} <= issues["another type"]
    assert ("k", "out_of_range", 1.0) in issues["a number too large"]
    for name in ("good", "good again", "a feature more", "a reserved name", "the last"):
        assert issues[name] == set()
    assert [verdicts[name].verdict for name in ("only nulls", "another type")] == ["drift", "drift"]
    (dead_letter,) = group.messages(dead_letter_topic("inconclusive"))
    assert dead_letter.value == b"no event"


def test_several_models_and_a_swap_share_a_topic_and_each_is_judged_also_after_a_restart(
    make_group: MakeGroup, reference: Reference, random_source: random.Random
) -> None:
    group = make_group("shared")
    for model, version in (("other", "1"), (MODEL, "2")):
        reference_store.save_reference(group.store, model, version, reference)
    source = np.random.default_rng(6)

    def events(**counts: int) -> list[Event | bytes]:
        """Return events of ten rows, shuffled: so many of each version of the model, and of the other model."""
        names = {"v1": (MODEL, "1"), "v2": (MODEL, "2"), "other": ("other", "1")}
        created: list[Event | bytes] = []
        for name in (name for name, count in counts.items() for _ in range(count)):
            features = make_features(source, 0, 10)
            predictions = make_predictions(source, features)
            model, version = names[name]
            created.append(Prediction(model=model, version=version, features=features, predictions=predictions))
        random_source.shuffle(created)
        return created

    group.publish(events(v1=15, other=32))  # one window of the other model
    worker = group.worker()
    wait_until(lambda: group.verdicts() or None, "the first window is judged")
    worker.kill()
    group.publish(events(v1=8, other=10))  # fills a window of version 1 that began before the restart
    group.publish(events(v2=43, other=24))
    worker.start()
    verdicts = wait_until(
        lambda: verdicts if len(verdicts := group.verdicts()) >= 6 else None, "six windows are judged"
    )
    assert Counter((verdict.model, verdict.version) for verdict in verdicts) == {
        ("other", "1"): 3,
        (MODEL, "1"): 1,
        (MODEL, "2"): 2,
    }
    assert {verdict.rows for verdict in verdicts} == {ROWS}
    assert not [verdict.explanation for verdict in verdicts if verdict.verdict == "inconclusive"]
    assert [verdict.multiwindow_score is None for verdict in verdicts if verdict.model == "other"] == [
        True,
        True,
        False,
    ]
    wait_until(
        lambda: reader.is_caught_up(group.stack.kafka, group.name, [group.name]) or None, "the last slice is archived"
    )
    rows = {window: group.rows(window) for windows in group.windows().values() for window in windows}
    assert_each_row_is_in_one_window_of_its_version(rows, verdicts, {})
    assert sum(map(len, rows.values())) == 10 * (23 + 43 + 66)


@pytest.mark.parametrize("deleted", [False, True], ids=["whole log", "log begins in a slice"])
def test_worker_goes_on_behind_the_archive_after_its_offsets_were_forgotten(
    stack: Stack, make_group: MakeGroup, random_source: random.Random, deleted: bool
) -> None:
    group = make_group(f"forgotten-{deleted}".lower(), partitions=2, idle_timeout_seconds=5)
    admin = KafkaAdminClient(bootstrap_servers=stack.kafka.bootstrap_servers)
    source = np.random.default_rng(7)

    def publish(count: int) -> list[str]:
        """Publish so many events of ten rows; return their ids."""
        events: list[Prediction] = []
        for _ in range(count):
            features = make_features(source, 0, 10)
            predictions = make_predictions(source, features)
            events.append(Prediction(model=MODEL, version="1", features=features, predictions=predictions))
        group.publish(events)
        return [event.id for event in events]

    def is_caught_up() -> bool | None:
        return reader.is_caught_up(stack.kafka, group.name, [group.name]) or None

    def forget() -> bool | None:
        (result,) = admin.delete_groups([group.name]).items()
        return result[1] == "OK" or None

    published = publish(random_source.randint(90, 130))
    worker = group.worker()
    wait_until(is_caught_up, "everything is archived", seconds=120)
    worker.stop()
    before = {verdict.id: verdict for verdict in group.verdicts()}
    slices = {partition: windows[-1] for partition, windows in group.windows().items()}
    assert before
    assert slices.keys() == {0, 1}
    wait_until(forget, "the group is deleted", seconds=120)  # once the session of its member has ended
    if deleted:
        middle = {number: (last.first_offset + last.last_offset) // 2 for number, last in slices.items()}
        admin.delete_records({TopicPartition(group.name, number): offset for number, offset in middle.items()})
    published += publish(random_source.randint(90, 130))

    worker.start()
    wait_until(lambda: len(group.verdicts()) > len(before) or None, "new windows are judged", seconds=120)
    wait_until(is_caught_up, "the rest is archived", seconds=120)
    worker.stop()
    admin.close()
    forgotten = {entry["partition"]: entry["position"] for entry in worker.log_entries("consumer.commit_forgotten")}
    assert forgotten == {number: last.last_offset + 1 for number, last in slices.items()}
    windows = group.windows()
    assert {number: [each for each in windows[number] if each == last] for number, last in slices.items()} == {
        number: [last] for number, last in slices.items()
    }
    rows = pd.concat([group.rows(window) for window in chain.from_iterable(windows.values())])
    assert Counter(rows["_id"]) == dict.fromkeys(published, 10)
    verdicts = group.verdicts()
    assert {verdict.id: verdict for verdict in verdicts if verdict.id in before} == before
    assert len({verdict.id for verdict in verdicts}) == len(verdicts)
    for number, last in slices.items():
        new = [v.window for v in verdicts if v.id not in before and v.window.partition == number]
        assert all(window.first_offset > last.last_offset for window in new)
        for window, next_window in pairwise(sorted(windows[number], key=lambda each: each.first_offset)):
            assert window.last_offset + 1 == next_window.first_offset


def test_replay_judges_archived_windows_with_the_current_reference(make_group: MakeGroup, reference: Reference) -> None:
    group = make_group("replay")
    source = np.random.default_rng(5)
    for day in range(4):
        features = make_features(source, day, ROWS)
        predictions = make_predictions(source, features)
        event_time = NOON + timedelta(days=day)
        group.publish(
            [Prediction(time=event_time, model=MODEL, version="1", features=features, predictions=predictions)]
        )
    group.worker()
    original = wait_until(
        lambda: verdicts if len(verdicts := group.verdicts()) == 4 else None, "4 verdicts are published"
    )
    spans = [span.model_copy(update={"score_threshold": -1.0}) for span in reference.profile.spans]
    profile = reference.profile.model_copy(update={"spans": spans})
    reference_store.save_reference(group.store, MODEL, "1", reference._replace(profile=profile))

    days = ("--from", f"{NOON + timedelta(days=1):%Y-%m-%d}", "--to", f"{NOON + timedelta(days=3):%Y-%m-%d}")
    result = group.command("replay", *days)
    assert result.stdout.splitlines()[-1] == "2 windows judged again, 2 verdicts changed", result.stdout + result.stderr
    assert len(group.verdicts()) == 4
    group.command("replay", *days, "--publish")
    replayed = wait_until(
        lambda: [verdict for verdict in group.verdicts() if verdict.replayed] or None,
        "replayed verdicts are published",
    )
    assert [(verdict.window, verdict.verdict) for verdict in replayed] == [(v.window, "drift") for v in original[1:3]]
    assert {verdict.id for verdict in replayed}.isdisjoint(verdict.id for verdict in original)


def save_broken_references(store: ObjectStore, reference: Reference) -> None:
    """Save a broken reference for each kind of damage; its name is the version."""
    rows, profile = reference
    prefix = reference_store.reference_prefix(MODEL, "truncated")
    reference_store.save_reference(store, MODEL, "truncated", reference)
    content = store.read(f"{prefix}/rows.parquet")
    store.write(f"{prefix}/rows.parquet", content[: len(content) // 2])
    reference_store.save_reference(store, MODEL, "lacks", Reference(rows.drop(columns="k"), profile))
    reference_store.save_reference(store, MODEL, "types", Reference(rows.assign(x="far"), profile))
    reference_store.save_reference(store, MODEL, "profile", reference)
    store.write(f"{reference_store.reference_prefix(MODEL, 'profile')}/profile.json", b'{"columns": ["x"]}')
    other_kinds = {name: kind for name, kind in profile.kinds.items() if name != "k"}
    reference_store.save_reference(
        store, MODEL, "columns", Reference(rows, profile.model_copy(update={"kinds": other_kinds}))
    )


def comparable(verdict: DriftVerdict) -> dict[str, Any]:
    """Return the fields of a verdict that do not depend on time, worker and bucket."""
    fields = verdict.model_dump(exclude={"time", "archive"})
    return {**fields, "explanation": verdict.explanation.replace("-undisturbed/", "/")}


def restart_exited(workers: Sequence[WorkerProcess], counts: Counter[str]) -> None:
    """Restart workers that have exited, as a supervisor does."""
    for worker in workers:
        if not worker.running():
            counts["exits without a kill"] += 1
            worker.start()


def all_owned_once(workers: Sequence[WorkerProcess], counts: Counter[str]) -> bool | None:
    """Return whether each partition has exactly one owner among the workers."""
    restart_exited(workers, counts)
    owned = [partition for worker in workers for partition in worker.partitions() or ()]
    return (len(owned) == len({*owned}) == 2 * PARTITIONS) or None
