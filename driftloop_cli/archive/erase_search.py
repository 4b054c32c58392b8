"""Find the rows that an erasure is about: in the files of the archive, and on the topics."""

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from kafka.consumer.fetcher import ConsumerRecord

from driftloop.archive.erasures import ErasedPartition, Erasure, erased_rows_mask, positions_of
from driftloop.archive.layout import ArchivedFile, files_since, list_files
from driftloop.archive.lookup import MAX_ID_SKEW
from driftloop.archive.tables import outcomes_table, predictions_table
from driftloop.errors import StorageUnavailable
from driftloop.events import OFFSET_COLUMN, Event, Outcome, Prediction, Window, event_id_time, fold_case
from driftloop.kafka import reader
from driftloop.kafka.codec import InvalidMessage, decode_record
from driftloop.kafka.dead_letters import parse_origin
from driftloop.kafka.reader import TopicBounds
from driftloop.settings import KafkaSettings
from driftloop.storage.object_store import ObjectStore
from driftloop_cli.archive.byte_search import value_finder
from driftloop_cli.archive.erase_selection import Mask

MAX_PARALLEL_READS = 8
MAX_ATTEMPTS = 5
MAX_NEEDLES = 50  # that messages are searched for as bytes, which is ten times faster than decoding them

Progress = Callable[[int, int], None]
"""Gets how much is done, and of how much."""


class Selection(Protocol):
    """What is looked for among rows of a topic."""

    @property
    def columns(self) -> list[str]:
        """The columns that :meth:`mask` needs, of those that there are."""

    @property
    def sorted_values(self) -> Mapping[str, Sequence[str]]:
        """By column, sorted values of which a row has one; none if it is not known."""

    def mask(self, rows: pa.Table) -> Mask:
        """Return which rows are meant."""


class FoundRows(NamedTuple):
    """Rows that were found in one file, or on one partition of a topic behind its archive."""

    partition: int
    rows: pa.Table
    """All of their columns."""
    erased: dict[int, list[int] | None]
    """Row numbers by offset; ``None`` for all rows of an event."""
    path: str | None = None
    """The file; ``None`` on a topic."""


def earliest_time(ids: Collection[str]) -> datetime | None:
    """Return the earliest time of some ids, less what a clock may be ahead; ``None`` if one of them has none."""
    times = [event_id_time(event_id) for event_id in ids]
    known = [at for at in times if at is not None]
    return min(known) - MAX_ID_SKEW if known and len(known) == len(times) else None


def latest_time(ids: Iterable[str]) -> datetime | None:
    """Return the latest time of some ids; ``None`` if none of them has one."""
    return max((at for each in ids if (at := event_id_time(each)) is not None), default=None)


def search_archive(
    store: ObjectStore, topic: str, selection: Selection, since: datetime | None, on_progress: Progress
) -> Iterator[FoundRows]:
    """Yield what the archive has of a topic's rows. A row is found twice if its slice is merged at this moment.

    Args:
        store: Where the archive is.
        topic: The topic.
        selection: What is looked for.
        since: A time before which no such row was made; ``None`` for all times.
        on_progress: Is called with the number of files.

    Raises:
        StorageUnavailable: The store does not answer, or files disappear all the time.
    """
    searched: set[str] = set()
    for _ in range(MAX_ATTEMPTS):
        listed = files_since(list_files(store, topic), since)
        files = [file for file in listed if file.path not in searched]
        is_complete = True
        with ThreadPoolExecutor(MAX_PARALLEL_READS) as readers:
            for start in range(0, len(files), MAX_PARALLEL_READS):
                batch = files[start : start + MAX_PARALLEL_READS]
                for file, found in zip(
                    batch, readers.map(lambda each: search_file(store, each, selection), batch), strict=True
                ):
                    if found is None:
                        is_complete = False
                        continue
                    searched.add(file.path)
                    if len(found.rows):
                        yield found
                on_progress(start + len(batch), len(files))
        if is_complete:
            return
    raise StorageUnavailable(f"files of {topic} were deleted while they were searched, {MAX_ATTEMPTS} times: try again")


def search_file(store: ObjectStore, file: ArchivedFile, selection: Selection) -> FoundRows | None:
    """Return the rows of a file that are meant; ``None`` if it was merged or deleted since it was listed.

    Only the row groups are read whose statistics say that they may have one, and of these only the columns by which
    rows are chosen.
    """
    try:
        with store.open_parquet(file.path) as parquet:
            names = parquet.schema_arrow.names
            wanted = {fold_case(name) for name in (*selection.columns, OFFSET_COLUMN)}
            columns = [name for name in names if fold_case(name) in wanted]
            parts = []
            for group in _groups(parquet, selection.sorted_values):
                is_meant = selection.mask(parquet.read_row_group(group, columns=columns))
                if is_meant.any():
                    parts.append(parquet.read_row_group(group).filter(pa.array(is_meant)))
            rows = pa.concat_tables(parts) if parts else parquet.schema_arrow.empty_table()
            offsets = parquet.read(columns=[OFFSET_COLUMN])[OFFSET_COLUMN].to_numpy() if parts else np.array([])
    except FileNotFoundError:
        return None
    return FoundRows(file.window.partition, rows, _by_offset(rows, offsets), file.path)


def _groups(parquet: pq.ParquetFile, sorted_values: Mapping[str, Sequence[str]]) -> list[int]:
    """Return the row groups that may have one of the values in any of the columns; all if there are no values."""
    names = parquet.schema_arrow.names

    def may_have(group: int) -> bool:
        for name, values in sorted_values.items():
            if name not in names:
                continue
            known = parquet.metadata.row_group(group).column(names.index(name)).statistics
            if known is None or not known.has_min_max:
                return True
            position = bisect_left(values, known.min)
            if position < len(values) and values[position] <= known.max:
                return True
        return False

    groups = range(parquet.num_row_groups)
    return [group for group in groups if may_have(group)] if sorted_values else list(groups)


def _by_offset(rows: pa.Table, all_offsets: np.ndarray) -> dict[int, list[int] | None]:
    """Return the row numbers of found rows by offset; ``None`` where these are all rows that there are of it."""
    found: dict[int, list[int]] = {}
    positions = positions_of(rows)
    for offset, row in zip(positions.offsets.tolist(), positions.rows.tolist(), strict=True):
        found.setdefault(offset, []).append(row)
    offsets, counts = np.unique(all_offsets, return_counts=True)
    totals = dict(zip(offsets.tolist(), counts.tolist(), strict=True))
    return {offset: None if totals[offset] == len(numbers) else numbers for offset, numbers in found.items()}


class TopicSearch:
    """Searches the messages that a topic still has."""

    def __init__(self, kafka: KafkaSettings, topic: str, known: Collection[Erasure], on_progress: Progress) -> None:
        """Look at the topic's offsets; nothing is read yet.

        Args:
            kafka: How to reach the broker.
            topic: The topic.
            known: The erasures that are respected: what they have is not found again.
            on_progress: Is called with the number of offsets.

        Raises:
            BrokerUnavailable: The broker does not answer.
        """
        self._kafka = kafka
        self._topic = topic
        self._known = known
        self._on_progress = on_progress
        self.bounds = reader.topic_bounds(kafka, topic)

    def starts(
        self, since: datetime | None, archived: Mapping[int, TopicBounds], *, everywhere: bool
    ) -> dict[int, int]:
        """Return the offsets from which the topic has to be searched.

        Args:
            since: A time before which no such message was written; ``None`` if that is not known.
            archived: The bounds of what is archived, by partition.
            everywhere: Whether messages that are archived have to be searched as well, for copies that the archive does
                not have: a message that was published twice is archived once.
        """
        firsts = {partition: bounds.first for partition, bounds in self.bounds.items()}
        unarchived = {
            partition: max(bounds.first, archived[partition].end)
            if partition in archived and _reaches(archived[partition], bounds)
            else bounds.first
            for partition, bounds in self.bounds.items()
        }
        if not everywhere:
            return unarchived
        if since is None:
            return firsts
        later = reader.first_offsets_since(self._kafka, self._topic, since)
        return {
            partition: min(later.get(partition, self.bounds[partition].end), unarchived[partition])
            for partition in firsts
        }

    def search(self, selection: Selection, starts: Mapping[int, int]) -> Iterator[FoundRows]:
        """Yield the rows of events that are meant, and not erased yet, by partition."""
        is_needed = needle_filter(selection)
        total = sum(max(bounds.end - starts[partition], 0) for partition, bounds in self.bounds.items())
        done = 0
        for records in reader.read_records(self._kafka, self._topic, starts):
            events = [(record, event) for record in records if is_needed(record) and (event := _event_of(record))]
            yield from self._found(selection, events)
            done += len(records)
            self._on_progress(min(done, total), total)

    def _found(self, selection: Selection, located: list[tuple[ConsumerRecord, Event]]) -> Iterator[FoundRows]:
        predictions = [(record, event) for record, event in located if isinstance(event, Prediction)]
        outcomes = [(record, event) for record, event in located if isinstance(event, Outcome)]
        tables = [
            predictions_table([event for _, event in predictions], [record.offset for record, _ in predictions]),
            outcomes_table([event for _, event in outcomes], [record.offset for record, _ in outcomes]),
        ]
        for rows in filter(len, tables):
            offsets, partition = rows[OFFSET_COLUMN].to_numpy(), located[0][0].partition
            window = Window(
                topic=located[0][0].topic,
                partition=partition,
                first_offset=int(offsets.min()),
                last_offset=int(offsets.max()),
            )
            is_left = ~erased_rows_mask(self._known, window, *positions_of(rows))
            is_meant = selection.mask(rows) & is_left
            if is_meant.any():
                meant = rows.filter(pa.array(is_meant))
                yield FoundRows(partition, meant, _by_offset(meant, offsets[is_left]))

    def search_dead_letters(self, selection: Selection) -> list[ErasedPartition]:
        """Return the dead letters that are meant, or that have one of the values looked for anywhere in their bytes."""
        erased: dict[int, dict[int, None]] = {}
        has_value = value_finder([value.encode() for each in selection.sorted_values.values() for value in each])
        for records in reader.read_records(self._kafka, self._topic, dict.fromkeys(self.bounds, 0)):
            for record in records:
                parts = [record.value, record.key, *(content for _, content in record.headers)]
                contents = [part for part in parts if isinstance(part, bytes)]
                is_meant = any(map(has_value, contents))
                if not is_meant and (event := _letter_event(record)) is not None:
                    is_meant = next(self._found(selection, [(record, event)]), None) is not None
                window = Window(
                    topic=record.topic,
                    partition=record.partition,
                    first_offset=record.offset,
                    last_offset=record.offset,
                )
                if is_meant and not any(erasure.in_window(window) for erasure in self._known):
                    erased.setdefault(record.partition, {})[record.offset] = None
        return [ErasedPartition.of_rows(self._topic, *each) for each in sorted(erased.items())]


def needle_filter(selection: Selection) -> Callable[[ConsumerRecord], bool]:
    """Return a function that tells which messages may be meant, without decoding them.

    A value stands in a message as it is, or with a backslash that begins an escape sequence.
    """
    needles = [value.encode() for values in selection.sorted_values.values() for value in values]
    if not needles or len(needles) > MAX_NEEDLES:
        return lambda _: True

    def may_be_meant(record: ConsumerRecord) -> bool:
        content = record.value
        if not isinstance(content, bytes):
            return False
        return (
            b"\\" in content
            or any(needle in content for needle in needles)
            or any(value in needles for name, value in record.headers if name == "ce_id")
        )

    return may_be_meant


def _event_of(record: ConsumerRecord) -> Event | None:
    try:
        return decode_record(record)
    except InvalidMessage:
        return None


def _letter_event(record: ConsumerRecord) -> Event | None:
    """Return the event of a dead letter that is a valid event by now, and could be moved back."""
    try:
        parse_origin(record.headers)
    except ValueError:
        return None
    return _event_of(record)


def archived_bounds(store: ObjectStore, topic: str) -> dict[int, TopicBounds]:
    """Return the first archived offset of each partition, and the one after the last."""
    windows: dict[int, list[Window]] = {}
    for file in list_files(store, topic):
        windows.setdefault(file.window.partition, []).append(file.window)
    return {
        partition: TopicBounds(min(each.first_offset for each in found), max(each.last_offset for each in found) + 1)
        for partition, found in windows.items()
    }


def _reaches(archived: TopicBounds, bounds: TopicBounds) -> bool:
    """Return whether a partition's archive begins before what the topic has, and is not one of an earlier topic."""
    return archived.first <= bounds.first and archived.end <= bounds.end
