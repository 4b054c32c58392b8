"""Properties of the worker: verdicts, archive and sums are the same whatever is killed, and whatever is read again."""

import json
import tempfile
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_worker.verdicts.quality_tracker import QualityTracker
from drift_worker.verdicts.window_judge import WindowJudge
from drift_worker.windows import archive
from drift_worker.windows.compaction import Compactor
from drift_worker.windows.orphan_cleanup import ArchiveCleaner
from drift_worker.windows.slicer import Slicer
from drift_worker.windows.window_rows import WindowRows
from drift_worker.worker import Worker
from driftloop.archive.erasures import Tombstones
from driftloop.archive.layout import list_slices
from driftloop.archive.merging import merge_slices
from driftloop.archive.partition_state import version_digest
from driftloop.drift.cumulated import CumulatedState
from driftloop.drift.settings import WindowSettings
from driftloop.evaluation.quality_settings import QualitySettings
from driftloop.events import DriftVerdict, Prediction, Window
from driftloop.kafka.consumed_message import ConsumedMessage
from driftloop.kafka.message_handler import Commit
from driftloop.kafka.transactional_producer import CommittedPosition
from driftloop.settings import TopicsSettings
from tests.support.archived_rows import archive_rows
from tests.support.folder_store import folder_store
from tests.support.prediction_streams import KILLS, MESSAGES, NOON, PARTITION, read_through_kills

ROWS = 6
WINDOWS = WindowSettings.model_construct(
    None, rows=ROWS, idle_timeout_seconds=1e9, max_age_seconds=60, min_fraction=0.5, false_alarm_rate=0.01
)


class Judged(NamedTuple):
    """What workers have left behind."""

    positions: list[tuple[int, str | None]]
    verdicts: list[str]
    """Without the time at which they were given."""
    files: dict[str, bytes]
    """The archive."""
    rows: list[tuple[str, int]]
    """Event and row of each archived row."""


def judge(messages: list[ConsumedMessage], kills: Collection[int] = ()) -> Judged:
    with tempfile.TemporaryDirectory() as folder:
        store = folder_store(Path(folder))

        def start(latest: Commit | None) -> Callable[[ConsumedMessage], Iterable[Commit]]:
            window_judge = WindowJudge(store, WINDOWS)
            worker = Worker(
                store=store,
                slicer=Slicer(WINDOWS, lambda *_: ROWS),
                window_rows=WindowRows(store),
                window_judge=window_judge,
                quality_tracker=QualityTracker(store, TopicsSettings(), QualitySettings()),
                archive_cleaner=ArchiveCleaner(store, report_retention_days=90),
                compactor=Compactor(store, 300, partial(merge_slices, store)),
                tombstones=Tombstones(store),
            )
            if latest is not None:
                worker.on_assigned({PARTITION: CommittedPosition(latest.offset, latest.metadata)})
            return worker.handle

        commits = list(read_through_kills(messages, start, lambda commit: commit.offset, kills))
        files = {path: store.read(path) for path, *_ in store.list_objects("slices/predictions/predictions-")}
        at = store.url("")
        rows = [archive.read_slice(store, each.window)[["_id", "_row"]] for each in list_slices(store, *PARTITION)]
    verdicts = [event for commit in commits for event in commit.events if isinstance(event, DriftVerdict)]
    return Judged(
        [(commit.offset, commit.metadata) for commit in commits],
        [verdict.model_copy(update={"time": NOON}).model_dump_json().replace(at, "store:") for verdict in verdicts],
        files,
        [(event_id, row) for frame in rows for event_id, row in frame.itertuples(index=False)],
    )


@settings(max_examples=10)
@given(messages=MESSAGES, kills=KILLS)
def test_verdicts_and_archive_are_the_same_wherever_the_worker_is_killed(
    messages: list[ConsumedMessage], kills: set[int]
) -> None:
    undisturbed, killed = judge(messages), judge(messages, kills)
    assert killed == undisturbed
    assert len({json.loads(verdict)["id"] for verdict in undisturbed.verdicts}) == len(undisturbed.verdicts)


@settings(max_examples=10)
@given(messages=MESSAGES)
def test_each_row_is_archived_once_although_events_are_repeated(messages: list[ConsumedMessage]) -> None:
    judged = judge(messages)
    end = judged.positions[-1][0] if judged.positions else 0
    events = {
        message.event.id: message.event
        for message in messages
        if isinstance(message.event, Prediction) and message.offset < end
    }
    assert judged.rows == [(event.id, row) for event in events.values() for row in range(len(event.predictions))]


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
        store = folder_store(Path(folder))
        archive_rows(store, window, archive.with_sums(pa.table({"x": [1.0]}), sums))
        assert archive.read_slice_with_sums(store, window)[1] == sums
