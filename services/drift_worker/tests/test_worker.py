"""Test the worker as the consume loop calls it, with a bucket in a folder and without Kafka."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prometheus_client import REGISTRY

from drift_worker.verdicts.quality_tracker import QualityTracker
from drift_worker.verdicts.window_judge import WindowJudge
from drift_worker.web.report import ReportKey
from drift_worker.web.report_queue import ReportQueue
from drift_worker.windows import archive
from drift_worker.windows.compaction import Compactor
from drift_worker.windows.orphan_cleanup import ArchiveCleaner
from drift_worker.windows.slicer import Slicer
from drift_worker.windows.window_rows import WindowRows
from drift_worker.worker import Worker
from driftloop.archive import erasures
from driftloop.archive.erasing import FileEraser
from driftloop.archive.erasures import ErasedPartition, Erasure, ErasureRequest, Tombstones
from driftloop.archive.layout import list_slices, slice_path
from driftloop.archive.merging import merge_slices
from driftloop.archive.partition_state import from_metadata, version_digest
from driftloop.drift.settings import WindowSettings
from driftloop.errors import StorageUnavailable
from driftloop.evaluation.quality_settings import QualitySettings
from driftloop.events import (
    DriftVerdict,
    Event,
    Outcome,
    Prediction,
    QualityEstimate,
    QualityVerdict,
    Window,
    frame_to_columns,
)
from driftloop.kafka.consumed_message import ConsumedMessage
from driftloop.kafka.message_handler import Commit, RetryLater
from driftloop.kafka.transactional_producer import CommittedPosition
from driftloop.settings import TopicsSettings
from driftloop.storage import reference_store
from driftloop.storage.object_store import ObjectStore
from tests.support.drift_windows import ROWS, make_days, store_reference
from tests.support.waiting import wait_until

pytest_plugins = "tests.support.drift_windows"

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
PARTITION = ("predictions", 0)


@pytest.fixture
def report_queue() -> ReportQueue:
    """Return a queue that is not started: requests stay queued."""
    return ReportQueue(max_queued=10, timeout_seconds=1)


@pytest.fixture
def make_worker(store: ObjectStore, report_queue: ReportQueue) -> Callable[..., Worker]:
    """Return a function that makes a worker as a new process would."""

    def make(**windows: float) -> Worker:
        settings = WindowSettings.model_validate({"rows": ROWS, **windows})
        window_judge = WindowJudge(store, settings)
        return Worker(
            store=store,
            slicer=Slicer(settings, window_judge.window_length),
            window_rows=WindowRows(store),
            window_judge=window_judge,
            quality_tracker=QualityTracker(store, TopicsSettings(), QualitySettings(min_rows=50)),
            archive_cleaner=ArchiveCleaner(store, report_retention_days=90),
            compactor=Compactor(store, 300, partial(merge_slices, store)),
            tombstones=Tombstones(store),
            report_queue=report_queue,
        )

    return make


@pytest.fixture
def worker(make_worker: Callable[..., Worker]) -> Worker:
    return make_worker()


def prediction(seed: int, warmer: float = 0.0, rows: int = ROWS, **changed: str) -> Prediction:
    """Return an event with a day's rows, which fill a window unless ``rows`` says otherwise."""
    frame = make_days(1, seed, warmer).head(rows)
    fields = {
        "id": f"day-{seed}",
        "time": NOON + timedelta(days=seed),
        "model": "m",
        "version": "1",
        "features": frame_to_columns(frame.drop(columns="_prediction")),
        "predictions": frame["_prediction"].tolist(),
    }
    return Prediction.model_validate(fields | changed)


def send(worker: Worker, offset: int, event: Event | None, topic: str = "predictions") -> list[Commit]:
    return list(worker.handle(ConsumedMessage(topic, 0, offset, event, offset)))


def archived(store: ObjectStore, offset: int) -> pd.DataFrame:
    return archive.read_slice(store, Window(topic="predictions", partition=0, first_offset=offset, last_offset=offset))


def drift_verdicts(commits: Iterable[Commit]) -> list[DriftVerdict]:
    return [event for commit in commits for event in commit.events if isinstance(event, DriftVerdict)]


def drift_verdict(commits: list[Commit]) -> DriftVerdict:
    (verdict,) = drift_verdicts(commits)
    return verdict


def position_of(commit: Commit) -> CommittedPosition:
    return CommittedPosition(commit.offset, commit.metadata)


def slices_in(commit: Commit) -> tuple[int, ...]:
    return from_metadata(*position_of(commit)).slices


def comparable(verdict: DriftVerdict) -> DriftVerdict:
    """Return a verdict without the time at which it was given."""
    return verdict.model_copy(update={"time": NOON})


def test_worker_commits_full_slice_with_its_verdict(worker: Worker, store: ObjectStore) -> None:
    store_reference(store)
    assert send(worker, 0, prediction(1, rows=40)) == []
    (commit,) = send(worker, 1, prediction(2))
    assert (commit.topic, commit.partition, commit.offset, slices_in(commit)) == ("predictions", 0, 2, (0,))
    verdict = drift_verdict([commit])
    assert (verdict.verdict, verdict.rows, verdict.model, verdict.version) == ("no_drift", 140, "m", "1")


def test_worker_archives_slice_before_it_returns_the_commit(worker: Worker, store: ObjectStore) -> None:
    commits = send(worker, 0, prediction(1))
    assert len(archived(store, 0)) == ROWS
    assert drift_verdict(commits).archive == [
        store.url("slices/predictions/predictions-0-000000000000-000000000000.parquet")
    ]


def test_worker_commits_slice_of_duplicates_and_archives_nothing(worker: Worker, store: ObjectStore) -> None:
    send(worker, 0, prediction(1))
    (commit,) = send(worker, 1, prediction(1))
    assert (commit.offset, list(commit.events), slices_in(commit)) == (2, [], (0, 1))
    assert not store.list_objects("slices/predictions/predictions-0-000000000001")


def test_worker_counts_duplicate_event_once(worker: Worker, store: ObjectStore) -> None:
    first = prediction(1, rows=60)
    send(worker, 0, first)
    send(worker, 1, first)
    send(worker, 2, prediction(2))  # closes the window with 60 + 60 + 100 rows
    window = Window(topic="predictions", partition=0, first_offset=0, last_offset=1)
    assert len(archive.read_slice(store, window)) == 60
    assert len(archived(store, 2)) == ROWS
    send(worker, 3, first)
    send(worker, 4, prediction(3, rows=60))
    window = Window(topic="predictions", partition=0, first_offset=3, last_offset=4)
    assert set(archive.read_slice(store, window)["_id"]) == {"day-3"}


def test_worker_requests_report_on_drift_only(worker: Worker, store: ObjectStore, report_queue: ReportQueue) -> None:
    store_reference(store)
    normal = drift_verdict(send(worker, 0, prediction(1)))
    warm = drift_verdict(send(worker, 1, prediction(2, warmer=12)))
    assert (normal.verdict, warm.verdict) == ("no_drift", "drift")
    assert report_queue.status(ReportKey.for_verdict(normal)).name == "not_requested"
    assert report_queue.status(ReportKey.for_verdict(warm)).name == "queued"


def test_worker_retries_later_if_storage_is_unavailable(
    worker: Worker, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {"model": "unlucky", "version": "1", "verdict": "inconclusive"}

    def unavailable(*_: object) -> None:
        raise StorageUnavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write", unavailable)
        with pytest.raises(RetryLater, match="no answer"):
            send(worker, 0, prediction(1, model="unlucky"))
    assert REGISTRY.get_sample_value("driftloop_drift_windows_total", labels) is None
    worker.on_revoked([PARTITION])
    assert len(send(worker, 0, prediction(1, model="unlucky"))) == 1
    assert REGISTRY.get_sample_value("driftloop_drift_windows_total", labels) == 1


def test_worker_drops_open_slices_of_revoked_partitions(worker: Worker, store: ObjectStore) -> None:
    send(worker, 0, prediction(1, rows=60))
    worker.on_revoked([PARTITION])
    send(worker, 1, prediction(2))
    assert len(archived(store, 1)) == ROWS


def test_next_owner_gives_equal_verdicts(make_worker: Callable[..., Worker], store: ObjectStore) -> None:
    store_reference(store)
    first_owner, next_owner = make_worker(), make_worker()
    for offset in range(2):
        (commit,) = send(first_owner, offset, prediction(offset + 1))
    next_owner.on_assigned({PARTITION: CommittedPosition(commit.offset, commit.metadata)})
    expected, verdict = (drift_verdict(send(worker, 2, prediction(3))) for worker in (first_owner, next_owner))
    assert verdict.multiwindow_score is not None
    assert verdict.cumulated_score
    assert verdict.model_copy(update={"time": expected.time}) == expected


def test_small_lasting_change_becomes_drift_though_no_window_shows_it(worker: Worker, store: ObjectStore) -> None:
    store_reference(store)
    verdicts = drift_verdicts(run(worker, [prediction(number, warmer=2) for number in range(1, 41)]))
    first = next(verdict for verdict in verdicts if verdict.verdict == "drift")
    assert (first.drifted_columns, [finding for finding in first.findings if finding.drifted]) == (["temp"], [])
    (change,) = first.cumulated_changes
    assert (change.column, change.statistic, change.direction) == ("temp", "mean_rank", "up")
    assert first.cumulated_score == change.score
    assert {verdict.verdict for verdict in verdicts[verdicts.index(first) :]} == {"drift"}


def test_window_that_cannot_be_judged_adds_nothing_to_the_sums(
    make_worker: Callable[..., Worker], store: ObjectStore
) -> None:
    store_reference(store)
    worker, next_owner = make_worker(max_age_seconds=60), make_worker(max_age_seconds=60)
    run(worker, [prediction(number, warmer=4) for number in range(1, 4)])
    short = [ConsumedMessage(*PARTITION, 3 + n, prediction(10 + n, rows=20), 3 + n, 100.0 * n) for n in range(5)]
    commits = [commit for message in short for commit in worker.handle(message)]
    assert {verdict.reason for verdict in drift_verdicts(commits)} == {"too_few_rows"}
    next_owner.on_assigned({PARTITION: position_of(commits[-1])})
    full = ConsumedMessage(*PARTITION, 7, prediction(20, warmer=4, rows=ROWS), 7, 400.0)
    verdict = drift_verdict(list(next_owner.handle(full)))
    _, sums = archive.read_slice_with_sums(store, verdict.window)
    assert sums[version_digest("m", "1")].windows == 4


def test_slice_that_is_closed_again_has_the_same_sums(make_worker: Callable[..., Worker], store: ObjectStore) -> None:
    store_reference(store)
    first_owner, next_owner = make_worker(), make_worker()
    (commit,) = send(first_owner, 0, prediction(1))
    files = []
    next_owner.on_assigned({PARTITION: position_of(commit)})
    for owner in (first_owner, next_owner):
        window = drift_verdict(send(owner, 1, prediction(2))).window
        files.append(store.read(slice_path(window)))
    assert files[0] == files[1]
    assert archive.read_slice_with_sums(store, window)[1][version_digest("m", "1")].windows == 2


def test_worker_commits_estimates_and_quality_verdicts_with_offsets(worker: Worker) -> None:
    commits: list[Commit] = []
    row = {"time": NOON, "model": "m", "version": "1", "features": {"x": [1.0]}, "classes": [0, 1]}
    for offset, probability in enumerate(np.random.default_rng(0).random(ROWS)):
        event = Prediction.model_validate({**row, "id": str(offset), "predictions": [probability]})
        commits += send(worker, offset, event)
    for offset in range(ROWS):
        outcome = Outcome(time=NOON, prediction_id=str(offset), index=0, outcome=offset % 2)
        commits += send(worker, offset, outcome, "outcomes")
    assert [(commit.topic, commit.offset) for commit in commits] == [("predictions", ROWS), ("outcomes", ROWS)]
    assert [[type(event) for event in commit.events] for commit in commits] == [
        [DriftVerdict, QualityEstimate],
        [QualityVerdict],
    ]
    assert len({event.id for commit in commits for event in commit.events}) == 3


@pytest.mark.parametrize(
    ("predictions", "classes"),
    [
        pytest.param([[0.1, 0.9]] * ROWS, [0, 1, 2], id="too few probabilities"),
        pytest.param([[0.1, 0.9], [1.0]] * (ROWS // 2), [0, 1], id="lists of unequal lengths"),
        pytest.param(["good"] * ROWS, [0, 1, 2], id="texts"),
        pytest.param([[10**400, 0, 0]] * ROWS, [0, 10**400, 2], id="integers beyond floats"),
    ],
)
def test_valid_event_without_usable_predictions_gets_a_verdict(
    worker: Worker, store: ObjectStore, predictions: list[Any], classes: list[Any]
) -> None:
    store_reference(store)
    event = prediction(1).model_copy(update={"predictions": predictions, "classes": classes})
    (commit,) = send(worker, 0, Prediction.model_validate_json(event.model_dump_json()))
    (verdict,) = commit.events
    assert isinstance(verdict, DriftVerdict)
    assert ("_prediction", "type_mismatch", 1.0) in {
        (issue.column, issue.kind, issue.fraction) for issue in verdict.data_quality_issues
    }


def test_no_slice_and_no_window_spans_offsets_that_the_broker_has_deleted(worker: Worker, store: ObjectStore) -> None:
    store_reference(store)
    commits = run(worker, [prediction(1), prediction(2, rows=95)])
    commits += send(worker, 47, prediction(3, rows=60)) + send(worker, 48, prediction(4, rows=60))
    assert [commit.offset for commit in commits] == [1, 47, 49]
    verdicts = drift_verdicts(commits)
    assert [(each.window.first_offset, each.window.last_offset, each.rows) for each in verdicts] == [
        (0, 0, ROWS),
        (1, 1, 95),
        (47, 48, 120),
    ]
    assert {each.verdict for each in verdicts} == {"no_drift"}
    windows = [each.window for each in list_slices(store, *PARTITION)]
    assert [(each.first_offset, each.last_offset) for each in windows] == [(0, 0), (1, 1), (47, 48)]


Name = tuple[str, str]
"""A model and a version."""


def store_references(store: ObjectStore, *names: Name) -> None:
    """Store the same reference for several versions."""
    reference = store_reference(store)
    for model, version in names:
        reference_store.save_reference(store, model, version, reference)


def traffic(source: Random, shares: dict[Name, int], events: int, max_rows: int = 10) -> list[Prediction]:
    """Return events of versions by their share, with rows in which nothing has changed."""
    drawn = []
    for number in range(events):
        model, version = source.choices(list(shares), list(shares.values()))[0]
        event = prediction(number, rows=source.randint(1, max_rows), model=model, version=version)
        drawn.append(event.model_copy(update={"time": NOON + timedelta(seconds=number)}))
    return drawn


def run(worker: Worker, events: Sequence[Event], first_offset: int = 0) -> list[Commit]:
    return [commit for offset, event in enumerate(events, first_offset) for commit in send(worker, offset, event)]


def assert_each_row_is_in_one_verdict(
    store: ObjectStore, events: Sequence[Prediction], commits: Sequence[Commit]
) -> None:
    """Check that the rows of the verdicts and of the open windows are those of the committed events."""
    state = from_metadata(*position_of(commits[-1]))
    rows: Counter[Name] = Counter()
    for event in events[: state.end]:
        rows[event.model, event.version] += len(event.predictions)
    judged = Counter[Name]()
    for verdict in drift_verdicts(commits):
        judged[verdict.model, verdict.version] += verdict.rows
        archived_rows = archive.read_window(store, verdict.window, verdict.model, verdict.version)
        assert len(archived_rows) == verdict.rows
        assert (verdict.archive[0], verdict.archive[-1]) == (
            store.url(path_of(store, first_offset=verdict.window.first_offset)),
            store.url(path_of(store, last_offset=verdict.window.last_offset)),
        )
    for name in rows:
        opened = state.versions[version_digest(*name)].open
        assert judged[name] + (opened.rows if opened else 0) == rows[name]


def path_of(store: ObjectStore, **bounds: int) -> str:
    """Return the path of the slice with a bound."""
    ((name, bound),) = bounds.items()
    slices = list_slices(store, *PARTITION)
    return next(each.path for each in slices if getattr(each.window, name) == bound)


def test_model_that_was_made_again_has_windows_of_its_own(worker: Worker, store: ObjectStore) -> None:
    """Both versions have the number 1, and runs tell them apart."""
    store_reference(store, run_id="first")
    store_reference(store, rows=make_days(80, warmer=12), run_id="second")
    events = [
        *(prediction(day, rows=60, run_id="first") for day in (1, 2)),
        *(prediction(day, warmer=12, rows=60, run_id="second") for day in (3, 4)),
    ]
    verdicts = drift_verdicts(run(worker, [events[0], *events[2:], events[1]]))
    assert [(verdict.run_id, verdict.version, verdict.verdict, verdict.rows) for verdict in verdicts] == [
        ("second", "1", "no_drift", 120),
        ("first", "1", "no_drift", 120),
    ]
    for verdict in verdicts:
        rows = archive.read_window(store, verdict.window, "m", "1", verdict.run_id)
        assert len(rows) == verdict.rows
        path = path_of(store, last_offset=verdict.window.last_offset)
        _, sums = archive.read_slice_with_sums(store, Window.parse(path))
        assert {digest: state.windows for digest, state in sums.items()} == {
            version_digest("m", "1", verdict.run_id): 1
        }


@pytest.mark.parametrize(
    "shares",
    [
        {("m", "1"): 1, ("n", "1"): 1},
        {(model, "1"): 1 for model in "abcde"},
        {("m", "1"): 1, ("m", "2"): 2, ("m", "3"): 3},
        {("m", "1"): 9, ("m", "2"): 1},
    ],
    ids=["two models", "five models", "three versions", "1 to 9"],
)
def test_versions_on_one_partition_are_each_judged_in_windows_of_their_own(
    worker: Worker, store: ObjectStore, shares: dict[Name, int], random_source: Random
) -> None:
    store_references(store, *shares)
    events = traffic(random_source, shares, 90 * sum(shares.values()) // min(shares.values()))
    commits = run(worker, events)
    assert_each_row_is_in_one_verdict(store, events, commits)
    verdicts = drift_verdicts(commits)
    by_name = {name: [v for v in verdicts if (v.model, v.version) == name] for name in shares}
    assert all(len(of_name) >= 3 for of_name in by_name.values())
    for of_name in by_name.values():
        assert {verdict.verdict for verdict in of_name} <= {"no_drift", "drift"}
        assert [verdict.multiwindow_score is None for verdict in of_name] == [True] * 2 + [False] * (len(of_name) - 2)
        assert all(ROWS <= verdict.rows < ROWS + 10 for verdict in of_name)


def test_drift_of_one_model_is_found_in_its_first_window_beside_another(worker: Worker, store: ObjectStore) -> None:
    store_references(store, ("changed", "1"), ("same", "1"))
    days = [
        prediction(number, warmer, rows=50, model=model)
        for number in range(8)
        for model, warmer in (("changed", 12.0 if number >= 4 else 0.0), ("same", 0.0))
    ]
    verdicts = drift_verdicts(run(worker, [day.model_copy(update={"id": f"{day.id}-{day.model}"}) for day in days]))
    found = {model: [v.verdict for v in verdicts if v.model == model] for model in ("changed", "same")}
    assert found == {"changed": ["no_drift"] * 2 + ["drift"] * 2, "same": ["no_drift"] * 4}


def test_version_s_window_has_the_length_of_its_profile(make_worker: Callable[..., Worker], store: ObjectStore) -> None:
    store_reference(store)
    worker = make_worker(rows=5 * ROWS)
    events = [prediction(n, rows=50, version=version) for n in range(20) for version in ("1", "2")]
    events = [event.model_copy(update={"id": f"{event.id}-{event.version}"}) for event in events]
    verdicts = drift_verdicts(run(worker, events))
    rows = {version: [v.rows for v in verdicts if v.version == version] for version in ("1", "2")}
    assert rows == {"1": [ROWS] * 10, "2": [5 * ROWS] * 2}
    assert {verdict.reason for verdict in verdicts if verdict.version == "2"} == {"no_reference"}


@pytest.mark.parametrize("restart_after", [1, 5])
def test_next_owner_in_mid_window_gives_equal_verdicts(
    make_worker: Callable[..., Worker], store: ObjectStore, restart_after: int, random_source: Random
) -> None:
    shares = {("m", "1"): 6, ("m", "2"): 3, ("n", "1"): 1}
    store_references(store, *shares)
    events = traffic(random_source, shares, 400)
    undisturbed = run(make_worker(), events)
    restarted: list[Commit] = []
    while not restarted or restarted[-1].offset < undisturbed[-1].offset:
        owner, begin = make_worker(), 0
        if restarted:
            begin = restarted[-1].offset
            owner.on_assigned({PARTITION: position_of(restarted[-1])})
        target = len(restarted) + restart_after
        for offset, event in enumerate(events[begin:], begin):
            restarted += send(owner, offset, event)
            if len(restarted) >= target:
                break
    expected, verdicts = ([comparable(v) for v in drift_verdicts(each)] for each in (undisturbed, restarted))
    assert verdicts == expected
    assert any(len(verdict.archive) > 5 for verdict in verdicts)
    assert any(verdict.multiwindow_score is not None for verdict in verdicts)
    assert all(verdict.cumulated_score is not None for verdict in verdicts)
    assert [commit.metadata for commit in restarted] == [commit.metadata for commit in undisturbed]


def test_event_of_an_open_window_that_comes_again_counts_once(make_worker: Callable[..., Worker]) -> None:
    first_owner, next_owner = make_worker(), make_worker()
    repeated = prediction(1, rows=20)
    run(first_owner, [repeated, *(prediction(2 + n, version="2") for n in range(3))])
    (commit,) = send(first_owner, 4, prediction(9, version="2"))
    next_owner.on_assigned({PARTITION: position_of(commit)})
    (commit,) = run(next_owner, [repeated, prediction(10, rows=80)], 5)
    assert drift_verdict([commit]).rows == ROWS


def test_idle_worker_judges_windows_with_enough_rows_and_keeps_shorter_ones_open(
    make_worker: Callable[..., Worker], store: ObjectStore
) -> None:
    store_references(store, ("m", "1"), ("m", "2"))
    worker = make_worker(idle_timeout_seconds=0.001)
    assert run(worker, [prediction(1, rows=95), prediction(2, rows=30, version="2")]) == []
    (commit,) = wait_until(lambda: list(worker.on_poll()) or None, "the slice is closed")
    assert [(v.version, v.rows, v.verdict) for v in drift_verdicts([commit])] == [("1", 95, "no_drift")]
    assert len(list_slices(store, *PARTITION)) == 1
    verdict = drift_verdict(send(worker, 2, prediction(3, rows=70, version="2")))
    assert (verdict.version, verdict.rows, verdict.verdict) == ("2", 100, "no_drift")
    assert (verdict.window.first_offset, verdict.window.last_offset) == (0, 2)


def test_short_window_that_is_too_old_is_published_as_unjudged_with_the_offset_before(
    make_worker: Callable[..., Worker], store: ObjectStore
) -> None:
    store_reference(store)
    first_owner, next_owner = make_worker(max_age_seconds=60), make_worker(max_age_seconds=60)
    send(first_owner, 0, prediction(1, rows=20))
    (commit,) = send(first_owner, 1, prediction(2, version="2"))
    next_owner.on_assigned({PARTITION: position_of(commit)})
    late = ConsumedMessage(*PARTITION, 2, prediction(3, rows=1), 2, published_at=61)
    (commit,) = next_owner.handle(late)
    verdict = drift_verdict([commit])
    assert (verdict.rows, verdict.verdict, verdict.reason) == (20, "inconclusive", "too_few_rows")
    assert (verdict.window.first_offset, verdict.window.last_offset) == (0, 1)
    assert (commit.offset, slices_in(commit)) == (2, (0,))
    labels = {"model": "m", "version": "1", "reason": "too_few_rows"}
    assert REGISTRY.get_sample_value("driftloop_drift_unjudged_windows_total", labels)


def test_worker_retries_later_if_the_length_of_a_window_is_unavailable(
    worker: Worker, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object) -> None:
        raise StorageUnavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(store, "read", unavailable)
        with pytest.raises(RetryLater, match="no answer"):
            send(worker, 0, prediction(1))
    worker.on_revoked([PARTITION])
    assert len(send(worker, 0, prediction(1))) == 1


def test_rows_of_open_windows_are_counted_as_archived(worker: Worker) -> None:
    run(worker, [prediction(1, rows=30, model="open"), prediction(2)])
    labels = {"model": "open", "version": "1"}
    assert REGISTRY.get_sample_value("driftloop_drift_archived_rows_total", labels) == 30
    assert REGISTRY.get_sample_value("driftloop_drift_windows_total", {**labels, "verdict": "no_drift"}) == 0


def erase(store: ObjectStore, topic: str, erased: dict[int, list[int] | None]) -> None:
    erasures.save(
        store,
        Erasure(
            requested_by="somebody",
            reason="asked to",
            request=ErasureRequest(kind="id", values=len(erased)),
            respected_until=None,
            partitions=[ErasedPartition.of_rows(topic, 0, erased)],
            counts={},
        ),
    )


def test_erased_rows_are_not_archived_and_windows_close_without_them(worker: Worker, store: ObjectStore) -> None:
    store_reference(store)
    erase(store, "predictions", {0: None, 1: [0, 3], 2: None})
    send(worker, 0, prediction(1, rows=4))
    verdict = drift_verdict(send(worker, 1, prediction(2)))
    assert (verdict.verdict, verdict.rows) == ("no_drift", ROWS - 2)
    window = Window(topic="predictions", partition=0, first_offset=0, last_offset=1)
    rows = archive.read_slice(store, window)
    assert set(rows["_offset"]) == {1}
    assert set(range(ROWS)) - set(rows["_row"]) == {0, 3}
    (commit,) = send(worker, 2, prediction(3))
    assert (commit.offset, list(commit.events)) == (3, [])  # nothing is left to be judged
    assert drift_verdict(send(worker, 3, prediction(4))).rows == ROWS


def test_next_owner_in_mid_window_goes_on_when_rows_were_erased(
    make_worker: Callable[..., Worker], store: ObjectStore
) -> None:
    """The committed metadata count the rows that were published, and the archive has fewer of them."""
    store_reference(store)
    store_reference(store, version="2")
    first = make_worker()
    send(first, 0, prediction(1, rows=60))
    (commit,) = send(first, 1, prediction(2, version="2"))  # closes the slice, and not the window of the other version
    erase(store, "predictions", {0: None})
    FileEraser(store).run(*PARTITION, erasures.read_all(store))
    following = make_worker()
    following.on_assigned({PARTITION: position_of(commit)})
    (verdict,) = drift_verdicts(send(following, 2, prediction(3, rows=40)))
    assert (verdict.version, verdict.rows) == ("1", 40)
    assert drift_verdict(send(following, 3, prediction(4))).rows == ROWS


def test_outcomes_of_a_slice_may_all_be_erased(worker: Worker, store: ObjectStore) -> None:
    erase(store, "outcomes", dict.fromkeys(range(ROWS)))
    commits = [
        commit
        for offset in range(ROWS)
        for commit in send(worker, offset, Outcome(prediction_id=f"day-{offset}", index=0, outcome=1), "outcomes")
    ]
    assert [(commit.offset, list(commit.events)) for commit in commits] == [(ROWS, [])]
    (file,) = list_slices(store, "outcomes")
    assert store.read_parquet(file.path).empty
