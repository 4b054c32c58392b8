"""Properties of the worker: verdicts, archive and sums are the same whatever is killed, and whatever is read again."""

import tempfile
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_worker.settings import QualitySettings
from drift_worker.verdicts.quality_tracker import QualityTracker
from drift_worker.verdicts.window_judge import WindowJudge
from drift_worker.windows import archive
from drift_worker.windows.orphan_cleanup import ArchiveCleaner
from drift_worker.windows.partition_state import version_digest
from drift_worker.windows.slicer import Slicer
from drift_worker.windows.window_rows import WindowRows
from drift_worker.worker import Worker
from driftloop.drift.cumulated import CumulatedState
from driftloop.drift.settings import WindowSettings
from driftloop.events import DriftVerdict, Window
from driftloop.kafka.consumed_message import ConsumedMessage
from driftloop.kafka.consumer_loop import Commit
from driftloop.kafka.transactional_producer import CommittedPosition
from driftloop.settings import TopicsSettings
from tests.support.drift_windows import FolderBucket
from tests.support.prediction_streams import KILLS, MESSAGES, NOON, PARTITION, read_through_kills

WINDOWS = WindowSettings.model_construct(
    None, rows=6, idle_timeout_seconds=1e9, max_age_seconds=60, min_fraction=0.5, false_alarm_rate=0.01
)


def judge(
    messages: list[ConsumedMessage], kills: Collection[int] = ()
) -> tuple[list[DriftVerdict], dict[str, bytes], list[tuple[int, str | None]]]:
    """Return verdicts without their time, the archive's files and the committed positions."""
    with tempfile.TemporaryDirectory() as folder:
        bucket = FolderBucket(Path(folder))

        def start(latest: Commit | None) -> Callable[[ConsumedMessage], Iterable[Commit]]:
            window_judge = WindowJudge(bucket, WINDOWS)
            worker = Worker(
                bucket=bucket,
                slicer=Slicer(WINDOWS, lambda *_: WINDOWS.rows),
                window_rows=WindowRows(bucket),
                window_judge=window_judge,
                quality_tracker=QualityTracker(bucket, TopicsSettings(), QualitySettings()),
                archive_cleaner=ArchiveCleaner(bucket, report_retention_days=90),
            )
            if latest is not None:
                worker.on_assigned({PARTITION: CommittedPosition(latest.offset, latest.metadata)})
            return worker.handle

        commits = list(read_through_kills(messages, start, lambda commit: commit.offset, kills))
        files = {path: bucket.read(path) for path in bucket.list_paths("events/predictions/predictions-")}
    verdicts = [event for commit in commits for event in commit.events if isinstance(event, DriftVerdict)]
    return (
        [verdict.model_copy(update={"time": NOON}) for verdict in verdicts],
        files,
        [(commit.offset, commit.metadata) for commit in commits],
    )


@settings(max_examples=20, deadline=timedelta(seconds=20))
@given(messages=MESSAGES, kills=KILLS)
def test_verdicts_and_archive_are_the_same_wherever_the_worker_is_killed(
    messages: list[ConsumedMessage], kills: set[int]
) -> None:
    verdicts, files, positions = judge(messages)
    verdicts_after_kills, files_after_kills, positions_after_kills = judge(messages, kills)
    assert positions_after_kills == positions
    assert verdicts_after_kills == verdicts
    assert {path: files_after_kills[path] for path in files} == files
    assert len({verdict.id for verdict in verdicts}) == len(verdicts)


numbers = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4)
counts = st.lists(st.integers(0, 2**31), max_size=4)
sums_of_versions = st.dictionaries(
    st.sampled_from([version_digest("m", number) for number in "123"]),
    st.builds(
        CumulatedState,
        windows=st.integers(0, 2**31),
        upward=numbers,
        downward=numbers,
        upward_windows=counts,
        downward_windows=counts,
    ),
)


@settings(max_examples=40)
@given(sums=sums_of_versions)
def test_sums_that_are_archived_with_a_slice_are_read(sums: dict[str, CumulatedState]) -> None:
    window = Window(topic="predictions", partition=0, first_offset=0, last_offset=1)
    with tempfile.TemporaryDirectory() as folder:
        bucket = FolderBucket(Path(folder))
        archive.write_slice(bucket, window, archive.with_sums(pa.table({"x": [1.0]}), sums))
        assert archive.read_slice_with_sums(bucket, window)[1] == sums
