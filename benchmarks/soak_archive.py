"""Give a stack the archive of a system that has run for long: thousands of slices of each topic, none of them merged.

The slices lie behind what the drift worker has committed, in offsets that the topics have skipped: messages without
content were published there, and deleted.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from kafka import KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import NoError

from drift_worker.windows.archive import write_slice
from driftloop.archive.layout import list_slices
from driftloop.events import ID_COLUMN, OFFSET_COLUMN, ROW_COLUMN, TIME_COLUMN, Window, derived_event_id
from driftloop.kafka import reader
from driftloop.kafka.client import admin_client
from driftloop.storage.object_store import ObjectStore
from tests.support.chaos.load import Load
from tests.support.chaos.system import System
from tests.support.waiting import wait_until

EVENTS_PER_SLICE, ROWS_PER_EVENT = 10, 5
LATEST_SLICES = 500
"""Of a partition, which the drift worker holds in memory: they have as many events and rows as new ones."""
EVENTS_PER_LATEST_SLICE, ROWS_PER_LATEST_EVENT = 1_000, 1
DAYS = 10
"""Before now, over which the slices are spread."""
WRITERS = 8
REQUESTS_PER_SECOND, CONNECTIONS = 20, 4
MIN_EVENTS = 30
GONE_SECONDS = 120


def make_archive(system: System, load: Load, slices: int) -> None:
    """Archive so many slices of each topic behind what is committed, and start the drift worker again.

    Args:
        system: A stack at rest.
        load: Sends some requests first: the slices have rows like theirs.
        slices: The number of slices of each topic.
    """
    store = ObjectStore(system.stack.storage)

    def consumed() -> bool | None:
        name = "driftloop_consumed_events_total"
        return all(system.metric("drift_worker", name, topic=each) > MIN_EVENTS for each in system.audit.topics) or None

    def archived() -> bool | None:
        return reader.is_caught_up(system.stack.kafka, system.worker_group, system.audit.topics) or None

    with load.steady(REQUESTS_PER_SECOND, CONNECTIONS, 1):
        wait_until(consumed, "events of each topic are consumed", GONE_SECONDS)
    wait_until(archived, "all events are archived", GONE_SECONDS)
    system.stop("drift_worker")
    with admin_client(system.stack.kafka) as admin, ThreadPoolExecutor(WRITERS) as writers:
        for topic in system.audit.topics:
            like = _rows(store, topic)
            partitions = [TopicPartition(topic, each["partition_index"]) for each in _partitions(admin, topic)]
            count = slices // len(partitions)
            events = _events_by_slice(count)
            firsts = {each: _skip_offsets(system, admin, each, sum(events)) for each in partitions}
            system.log(f"{topic}: writing {count:,} slices for each of {len(partitions)} partitions")
            list(writers.map(partial(_write_slice, store, like), _made_slices(firsts, events)))
    system.start("drift_worker")


def _events_by_slice(count: int) -> list[int]:
    latest = min(count, LATEST_SLICES)
    return [EVENTS_PER_SLICE] * (count - latest) + [EVENTS_PER_LATEST_SLICE] * latest


def _partitions(admin: KafkaAdminClient, topic: str) -> list[dict[str, int]]:
    return list(admin.describe_topics([topic])[0]["partitions"])


def _rows(store: ObjectStore, topic: str) -> pa.Table:
    """Return the rows of the first archived slice of a topic."""
    return store.read_table(list_slices(store, topic)[0].path)


def _skip_offsets(system: System, admin: KafkaAdminClient, partition: TopicPartition, count: int) -> int:
    """Let a partition's log begin so many offsets behind its end, and commit that; return the first skipped offset."""
    producer = KafkaProducer(bootstrap_servers=system.stack.kafka.bootstrap_servers, linger_ms=50, batch_size=2**20)
    first: int = producer.send(partition.topic, b"", partition=partition.partition).get(60).offset
    for _ in range(count - 1):
        producer.send(partition.topic, b"", partition=partition.partition)
    producer.flush()
    producer.close()
    end = first + count
    admin.delete_records({partition: end})

    def commit() -> bool | None:
        results = admin.alter_group_offsets(system.worker_group, {partition: OffsetAndMetadata(end, "", -1)})
        return all(error is NoError for error in results.values()) or None

    wait_until(commit, "the group has no member any more, and its offset is set", GONE_SECONDS)
    return first


class MadeSlice(NamedTuple):
    """A slice that is to be written."""

    window: Window
    rows_per_event: int
    at: datetime


def _made_slices(firsts: Mapping[TopicPartition, int], events_by_slice: Sequence[int]) -> Iterator[MadeSlice]:
    begin = datetime.now(UTC) - timedelta(days=DAYS)
    for partition, first in firsts.items():
        offset = first
        for number, events in enumerate(events_by_slice):
            window = Window(
                topic=partition.topic,
                partition=partition.partition,
                first_offset=offset,
                last_offset=offset + events - 1,
            )
            rows_per_event = ROWS_PER_LATEST_EVENT if events == EVENTS_PER_LATEST_SLICE else ROWS_PER_EVENT
            yield MadeSlice(window, rows_per_event, begin + timedelta(days=DAYS) * number / len(events_by_slice))
            offset += events


def _write_slice(store: ObjectStore, like: pa.Table, made: MadeSlice) -> None:
    write_slice(store, made.window, _made_rows(like, *made), made.at.date())


def _made_rows(like: pa.Table, window: Window, rows_per_event: int, at: datetime) -> pa.Table:
    """Return the rows of a slice, which have the contents of others, and ids, times and offsets of their own."""
    offsets = range(window.first_offset, window.last_offset + 1)
    size = len(offsets) * rows_per_event
    ids = [derived_event_id(at, window.name, str(offset)) for offset in offsets]
    own = {
        ID_COLUMN: pa.array(np.repeat(ids, rows_per_event)),
        ROW_COLUMN: pa.array(np.tile(np.arange(rows_per_event), len(offsets))),
        TIME_COLUMN: pa.array([at] * size, like.schema.field(TIME_COLUMN).type),
        OFFSET_COLUMN: pa.array(np.repeat(offsets, rows_per_event)),
    }
    rows = like.take(np.arange(size) % len(like))
    for name, values in own.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, values)
    return rows.replace_schema_metadata(None)
