"""Publish many prepared events by several processes: one process spends all of its time in the Kafka client.

Each process has the events of some keys, so that those of one key stay in order; events of different keys do not.
"""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from driftloop.errors import BrokerUnavailable
from driftloop.events import Event
from driftloop.kafka.bulk_publisher import BulkPublisher, PreparedEvent
from driftloop.process import exit_with_parent
from driftloop.settings import KafkaSettings, TopicsSettings
from driftloop.storage.duckdb_sql import quote_literal
from driftloop_cli.files.source import BATCH_ROWS, EVENT_COLUMNS, Source

MIN_EVENTS = 50_000  # fewer are published before further processes have started
MAX_PROCESSES = 4  # the broker needs a processor, too
POLL_SECONDS = 0.2

Report = tuple[int, int | str]
"""The number of a process, and how many events it has published so far, or why it has failed."""


class Part(NamedTuple):
    """What one process publishes."""

    number: int
    file: Path
    kafka: KafkaSettings
    topics: TopicsSettings
    event: type[Event]
    source: str


def publish_in_parallel(
    source: Source,
    view: str,
    kafka: KafkaSettings,
    topics: TopicsSettings,
    event: type[Event],
    publisher: str,
    report_progress: Callable[[int], None],
) -> None:
    """Publish the events of a view by as many processes as there are processors.

    Args:
        source: The database of the view.
        view: A view with the columns of prepared events.
        kafka: How to reach the broker.
        topics: The names of the topics.
        event: The type of all events.
        publisher: Who publishes; becomes part of the CloudEvents source.
        report_progress: Called with how many events are acknowledged.

    Raises:
        BrokerUnavailable: The broker does not take the events in time; some of them are on the topic.
    """
    context = multiprocessing.get_context("spawn")  # threads of the database do not survive a fork
    count = max(1, min(MAX_PROCESSES, os.cpu_count() or 1))
    with tempfile.TemporaryDirectory(prefix="driftloop-events-") as folder:
        parts = [
            Part(number, Path(folder) / f"{number}.parquet", kafka, topics, event, publisher) for number in range(count)
        ]
        for part in parts:
            selected = f"SELECT {EVENT_COLUMNS} FROM {view} WHERE hash(key) % {count} = {part.number}"  # noqa: S608
            source.connection.execute(f"COPY ({selected}) TO {quote_literal(part.file)} (FORMAT parquet)")
        reports: SimpleQueue[Report] = context.SimpleQueue()
        processes = [context.Process(target=_publish_part, args=(part, reports), daemon=True) for part in parts]
        for process in processes:
            process.start()
        published: dict[int, int] = {}
        try:
            while any(process.is_alive() for process in processes) or not reports.empty():
                if reports.empty():
                    wait([process.sentinel for process in processes if process.is_alive()], POLL_SECONDS)
                    continue
                number, outcome = reports.get()
                if isinstance(outcome, str):
                    raise BrokerUnavailable(outcome)
                published[number] = outcome
                report_progress(sum(published.values()))
            if failed := [process.exitcode for process in processes if process.exitcode]:
                raise BrokerUnavailable(f"a process that publishes has ended with code {failed[0]}")
        finally:
            for process in processes:
                process.kill()
                process.join()


def _publish_part(part: Part, reports: "SimpleQueue[Report]") -> None:
    """Publish a file; runs in a process of its own."""
    exit_with_parent()
    try:
        with BulkPublisher(part.kafka, part.topics, part.event, part.source) as publisher:
            for done in publisher.publish(_read(part.file)):
                reports.put((part.number, done))
    except BrokerUnavailable as error:
        reports.put((part.number, str(error)))


def _read(file: Path) -> Iterator[PreparedEvent]:
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(BATCH_ROWS):
            yield from map(PreparedEvent, *(column.to_pylist() for column in batch.columns))
