"""Test the worker as the consume loop calls it, with a bucket in a folder and without Kafka."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from prometheus_client import REGISTRY

from drift_worker.settings import QualitySettings
from drift_worker.verdicts.quality_tracker import QualityTracker
from drift_worker.verdicts.window_judge import WindowJudge
from drift_worker.web.report import ReportKey
from drift_worker.web.report_queue import ReportQueue
from drift_worker.windows import archive
from drift_worker.windows.committed_slices import CommittedSlices
from drift_worker.windows.orphan_cleanup import ArchiveCleaner
from drift_worker.windows.recent_windows import RecentWindows
from drift_worker.windows.slicer import Slicer
from drift_worker.worker import Worker
from driftloop.drift.settings import WindowSettings
from driftloop.errors import StorageUnavailable
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
from driftloop.kafka.consumer_loop import Commit, RetryLater
from driftloop.kafka.transactional_producer import CommittedPosition
from driftloop.settings import TopicsSettings
from driftloop.storage.bucket import Bucket
from tests.support.drift_windows import ROWS, make_days, store_reference

pytest_plugins = "tests.support.drift_windows"

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
PARTITION = ("predictions", 0)


@pytest.fixture
def report_queue() -> ReportQueue:
    """Return a queue that is not started: requests stay queued."""
    return ReportQueue(max_queued=10, timeout_seconds=1)


@pytest.fixture
def make_worker(bucket: Bucket, report_queue: ReportQueue) -> Callable[[], Worker]:
    """Return a function that makes a worker as a new process would."""

    def make() -> Worker:
        settings = WindowSettings(rows=ROWS)
        committed_slices = CommittedSlices()
        recent_windows = RecentWindows(bucket, settings.min_rows, committed_slices.preceding)
        return Worker(
            bucket=bucket,
            slicer=Slicer(settings),
            committed_slices=committed_slices,
            recent_windows=recent_windows,
            window_judge=WindowJudge(bucket, settings, recent_windows),
            quality_tracker=QualityTracker(bucket, TopicsSettings(), QualitySettings(min_rows=50)),
            archive_cleaner=ArchiveCleaner(bucket, report_retention_days=90),
            report_queue=report_queue,
        )

    return make


@pytest.fixture
def worker(make_worker: Callable[[], Worker]) -> Worker:
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


def archived(bucket: Bucket, offset: int) -> pd.DataFrame:
    return archive.read_slice(bucket, Window(topic="predictions", partition=0, first_offset=offset, last_offset=offset))


def drift_verdict(commits: list[Commit]) -> DriftVerdict:
    (commit,) = commits
    (verdict,) = [event for event in commit.events if isinstance(event, DriftVerdict)]
    return verdict


def test_worker_commits_full_slice_with_its_verdict(worker: Worker, bucket: Bucket) -> None:
    store_reference(bucket)
    assert send(worker, 0, prediction(1, rows=40)) == []
    (commit,) = send(worker, 1, prediction(2))
    assert (commit.topic, commit.partition, commit.offset, commit.metadata) == ("predictions", 0, 2, "0")
    verdict = drift_verdict([commit])
    assert (verdict.verdict, verdict.rows, verdict.model, verdict.version) == ("no_drift", 140, "m", "1")


def test_worker_archives_slice_before_it_returns_the_commit(worker: Worker, bucket: Bucket) -> None:
    commits = send(worker, 0, prediction(1))
    assert len(archived(bucket, 0)) == ROWS
    assert drift_verdict(commits).archive == "gs://b/events/predictions/predictions-0-000000000000-000000000000.parquet"


def test_worker_commits_slice_of_duplicates_and_archives_nothing(worker: Worker, bucket: Bucket) -> None:
    send(worker, 0, prediction(1))
    (commit,) = send(worker, 1, prediction(1))
    assert (commit.offset, list(commit.events), commit.metadata) == (2, [], "0,1")
    assert not bucket.list_paths("events/predictions/predictions-0-000000000001")


def test_worker_counts_duplicate_event_once(worker: Worker, bucket: Bucket) -> None:
    first = prediction(1, rows=60)
    send(worker, 0, first)
    send(worker, 1, first)
    send(worker, 2, prediction(2))  # closes the window with 60 + 60 + 100 rows
    window = Window(topic="predictions", partition=0, first_offset=0, last_offset=1)
    assert len(archive.read_slice(bucket, window)) == 60
    assert len(archived(bucket, 2)) == ROWS
    send(worker, 3, first)
    send(worker, 4, prediction(3, rows=60))
    window = Window(topic="predictions", partition=0, first_offset=3, last_offset=4)
    assert set(archive.read_slice(bucket, window)["_id"]) == {"day-3"}


def test_worker_requests_report_on_drift_only(worker: Worker, bucket: Bucket, report_queue: ReportQueue) -> None:
    store_reference(bucket)
    normal = drift_verdict(send(worker, 0, prediction(1)))
    warm = drift_verdict(send(worker, 1, prediction(2, warmer=12)))
    assert (normal.verdict, warm.verdict) == ("no_drift", "drift")
    assert report_queue.status(ReportKey.for_verdict(normal)).name == "not_requested"
    assert report_queue.status(ReportKey.for_verdict(warm)).name == "queued"


def test_worker_retries_later_if_storage_is_unavailable(
    worker: Worker, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {"model": "unlucky", "version": "1", "verdict": "inconclusive"}

    def unavailable(*_: object) -> None:
        raise StorageUnavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(bucket, "write", unavailable)
        with pytest.raises(RetryLater, match="no answer"):
            send(worker, 0, prediction(1, model="unlucky"))
    assert REGISTRY.get_sample_value("driftloop_drift_windows_total", labels) is None
    worker.on_revoked([PARTITION])
    assert len(send(worker, 0, prediction(1, model="unlucky"))) == 1
    assert REGISTRY.get_sample_value("driftloop_drift_windows_total", labels) == 1


def test_worker_drops_open_slices_of_revoked_partitions(worker: Worker, bucket: Bucket) -> None:
    send(worker, 0, prediction(1, rows=60))
    worker.on_revoked([PARTITION])
    send(worker, 1, prediction(2))
    assert len(archived(bucket, 1)) == ROWS


def test_next_owner_gives_equal_verdicts(make_worker: Callable[[], Worker], bucket: Bucket) -> None:
    store_reference(bucket)
    first_owner, next_owner = make_worker(), make_worker()
    for offset in range(2):
        (commit,) = send(first_owner, offset, prediction(offset + 1))
    next_owner.on_assigned({PARTITION: CommittedPosition(commit.offset, commit.metadata)})
    expected, verdict = (drift_verdict(send(worker, 2, prediction(3))) for worker in (first_owner, next_owner))
    assert verdict.multiwindow_score is not None
    assert verdict.model_copy(update={"time": expected.time}) == expected


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
