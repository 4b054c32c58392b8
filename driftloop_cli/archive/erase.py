"""Erase rows: find them, write down where they were, and remove them everywhere.

1. Erasures that were begun and never ended go on first.
2. Rows are looked for in the archive and on the topics, with their outcomes, and copies in datasets and references.
3. What was found is written to the store as an erasure: from now on readers of the topics leave it out.
4. The archive's files, the reports and the references are rewritten or deleted, again and again until none has a row.
5. The erasure is marked as done.

A process that is killed before the third step has changed nothing, and after it any later run goes on.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow as pa

from driftloop.archive import erasures
from driftloop.archive.erasing import FileEraser
from driftloop.archive.erasures import (
    ErasedCounts,
    ErasedPartition,
    Erasure,
    ErasureRequest,
    Tombstones,
)
from driftloop.archive.layout import ArchivedFile
from driftloop.archive.listed_reads import read_listed
from driftloop.errors import StorageUnavailable
from driftloop.events import ID_COLUMN, KEY_COLUMN, MODEL_COLUMN, OFFSET_COLUMN, ROW_COLUMN, TIME_COLUMN, now
from driftloop.kafka.topics import dead_letter_topic, keeping_times
from driftloop.storage.object_store import ObjectStore
from driftloop_cli.archive import erase_copies
from driftloop_cli.archive.erase_search import (
    FoundRows,
    Selection,
    TopicSearch,
    archived_bounds,
    earliest_time,
    latest_time,
    search_archive,
)
from driftloop_cli.archive.erase_selection import (
    Condition,
    KeyedRow,
    OutcomeSelection,
    PredictionSelection,
    column_values,
    common_types,
)
from driftloop_cli.settings import StorageCliSettings

MIN_RESPECTED = timedelta(days=1)  # however short the retention is: a worker may have been frozen with old rows
MAX_PASSES = 20  # over files and references; a second one finds what was written during the first one

Report = Callable[[str], None]
"""Gets what is being done."""


class Request(NamedTuple):
    """What the operator asks for."""

    ids: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    condition: str | None = None
    model: str | None = None

    def recorded(self, columns: Collection[str]) -> ErasureRequest:
        """Return what the audit log has of it: no values."""
        if self.condition is not None:
            return ErasureRequest(kind="condition", columns=list(columns), model=self.model)
        kind = "id" if self.ids else "key"
        return ErasureRequest(kind=kind, values=len(self.ids or self.keys), model=self.model)


@dataclass
class FoundOnTopic:
    """What was found on a topic and in its archive."""

    erased: dict[int, dict[int, set[int] | None]] = field(default_factory=dict)
    """Row numbers by partition and offset; ``None`` for all rows of an event."""
    rows: list[pa.Table] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    archived: set[tuple[int, int, int]] = field(default_factory=set)
    """Partition, offset and row number of rows in the archive."""
    unarchived: set[tuple[int, int, int]] = field(default_factory=set)

    def add(self, found: FoundRows) -> None:
        """Add what was found in a file or on the topic."""
        self.rows.append(found.rows)
        if found.path is not None:
            self.files.append(found.path)
        of_partition = self.erased.setdefault(found.partition, {})
        for offset, numbers in found.erased.items():
            known = of_partition.get(offset, set())
            of_partition[offset] = None if numbers is None or known is None else known | set(numbers)
        place = self.archived if found.path is not None else self.unarchived
        offsets = found.rows[OFFSET_COLUMN].to_pylist()
        numbers_of_rows = found.rows[ROW_COLUMN].to_pylist()
        place.update(
            (found.partition, offset, number or 0) for offset, number in zip(offsets, numbers_of_rows, strict=True)
        )

    def partitions(self, topic: str) -> Iterator[ErasedPartition]:
        """Yield what is erased of each partition."""
        for partition, erased in sorted(self.erased.items()):
            yield ErasedPartition.of_rows(topic, partition, erased)

    def table(self) -> pa.Table:
        """Return all rows, each once, with the columns of all files."""
        types = common_types(rows.schema for rows in self.rows)
        parts = [
            pa.table({name: column_values(rows, name, kind) for name, kind in types.items()}) for rows in self.rows
        ]
        if not parts:
            return pa.table({})
        table = pa.concat_tables(parts)
        first: dict[tuple[object, object], int] = {}
        for position, name in enumerate(zip(_values(table, ID_COLUMN), _values(table, ROW_COLUMN), strict=True)):
            first.setdefault(name, position)
        return table.take(pa.array(first.values(), pa.int64()))

    def counts(self, search: TopicSearch) -> ErasedCounts:
        """Return how much was found."""
        messages = sum(
            offset >= search.bounds[partition].first
            for partition, erased in self.erased.items()
            if partition in search.bounds
            for offset in erased
        )
        return ErasedCounts(
            archived_rows=len(self.archived),
            unarchived_rows=len(self.unarchived - self.archived),
            messages=messages,
        )


class Eraser:
    """Finds and erases rows of one archive and its topics."""

    def __init__(self, settings: StorageCliSettings, report: Report) -> None:
        """Connect to the store.

        Raises:
            StorageUnavailable: The store does not answer.
            BrokerUnavailable: Kafka does not answer.
        """
        self._settings = settings
        self._report = report
        topics = settings.topics
        self._topics = (topics.predictions, topics.outcomes)
        names = [*self._topics, *map(dead_letter_topic, self._topics)]
        self._keeping_times = keeping_times(settings.kafka, names)
        self._store = ObjectStore(settings.storage).require_answer()
        self._tombstones = Tombstones(self._store, max_age_seconds=0)

    def unfinished(self) -> list[Erasure]:
        """Return the erasures that were begun and are not done."""
        return [erasure for erasure in erasures.read_all(self._store) if erasure.done_at is None]

    def find(self, request: Request, requested_by: str, reason: str) -> Erasure:
        """Return the erasure of what a request means, which is not begun yet.

        Raises:
            InvalidInput: The condition is none.
            DependencyUnavailable: Store, Kafka or MLflow does not answer.
        """
        with self._selection(request) as (selection, columns):
            since = earliest_time(request.ids) if request.ids else None
            predictions, prediction_search = self._find_on(self._topics[0], selection, since, request)
            found = predictions.table()
            outcome_selection = self._outcomes_of(request, found)
            outcome_since = None if request.keys else since or earliest_time(set(_texts(found, ID_COLUMN)))
            outcomes, outcome_search = self._find_on(self._topics[1], outcome_selection, outcome_since, request)
            letters = [
                letter
                for topic, each in self._selections(selection, outcome_selection)
                for letter in self._search_letters(dead_letter_topic(topic), each)
            ]
        partitions = [*predictions.partitions(self._topics[0]), *outcomes.partitions(self._topics[1]), *letters]
        datasets, references = self._find_copies(found)
        return Erasure(
            requested_by=requested_by,
            reason=reason,
            request=request.recorded(columns),
            respected_until=self._respected_until(),
            partitions=partitions,
            counts={
                self._topics[0]: predictions.counts(prediction_search),
                self._topics[1]: outcomes.counts(outcome_search),
                **{each.topic: ErasedCounts(messages=sum(b - a + 1 for a, b in each.events)) for each in letters},
            },
            files=sorted(set(predictions.files + outcomes.files)),
            reports=erase_copies.find_reports(self._store, partitions),
            datasets=datasets,
            references=references,
            latest_id_at=latest_time(
                name for rows in (*predictions.rows, *outcomes.rows) for name in _texts(rows, ID_COLUMN)
            ),
        )

    def erase(self, erasure: Erasure) -> Erasure:
        """Erase what an erasure names, and return it as it is written down in the end.

        Raises:
            StorageUnavailable: The store does not answer; any later run goes on.
            Rejected: A reference was replaced since rows of it were found.
        """
        erasures.save(self._store, erasure)
        partitions = {(each.topic, each.partition) for each in erasure.partitions}
        file_eraser = FileEraser(self._store)
        files, reports = set(erasure.files), set(erasure.reports)
        for _ in range(MAX_PASSES):
            known = {each.id: each for each in (*self._tombstones.current(), erasure)}.values()
            done = [file for partition in sorted(partitions) for file in file_eraser.run(*partition, known)]
            files.update(file.path for file in done)
            changed = [
                each for each in erasure.references if erase_copies.erase_from_reference(self._store, each, erasure.id)
            ]
            if not done and not changed:
                break
            if done:
                self._report(f"removed {sum(file.rows for file in done):,} rows from {len(done):,} files")
        else:
            raise StorageUnavailable(f"files have erased rows again after {MAX_PASSES} passes: run it again")
        for path in sorted(reports | set(erase_copies.find_reports(self._store, erasure.partitions))):
            self._store.delete(path)
            reports.add(path)
        finished = erasure.model_copy(update={"done_at": now(), "files": sorted(files), "reports": sorted(reports)})
        erasures.save(self._store, finished)
        return finished

    @contextmanager
    def _selection(self, request: Request) -> Iterator[tuple[PredictionSelection, list[str]]]:
        """Provide what is looked for among predictions, and the columns of the condition."""
        privacy = self._settings.privacy.privacy
        if request.condition is None:
            # Rows from before keys were hashed have them as they are.
            keys = request.keys | {privacy.treat_key(key) for key in request.keys}
            yield PredictionSelection(request.ids, keys, model=request.model), []
            return
        with TemporaryDirectory(prefix="driftloop-erase-") as scratch:
            condition = Condition(request.condition, self._schemas(), Path(scratch), privacy)
            try:
                yield PredictionSelection(condition=condition, model=request.model), condition.columns
            finally:
                condition.close()

    def _schemas(self) -> list[pa.Schema]:
        """Return the schemas of the files of archived predictions."""

        def read(file: ArchivedFile) -> pa.Schema:
            self._report("reads which columns the archive's files have")
            with self._store.open_parquet(file.path) as opened:
                return opened.schema_arrow

        return list(read_listed(self._store, self._topics[0], None, read).results)

    def _find_on(
        self, topic: str, selection: Selection, since: datetime | None, request: Request
    ) -> tuple[FoundOnTopic, TopicSearch]:
        """Find rows in the archive of a topic and on the topic itself."""
        found = FoundOnTopic()
        if isinstance(selection, OutcomeSelection) and not selection.sorted_values:
            return found, TopicSearch(self._settings.kafka, topic, (), lambda *_: None)
        archived = archived_bounds(self._store, topic)  # first: what is archived meanwhile is found on the topic
        for each in search_archive(
            self._store, topic, selection, since, lambda done, total: self._progress(f"files of {topic}", done, total)
        ):
            found.add(each)
        search = TopicSearch(
            self._settings.kafka,
            topic,
            self._tombstones.current(),
            lambda done, total: self._progress(f"messages of {topic}", done, total),
        )
        ids = {value for rows in found.rows for value in _texts(rows, ID_COLUMN)}
        first_time = since if request.condition is None else earliest_time(ids)
        starts = search.starts(first_time, archived, everywhere=request.condition is None or bool(ids))
        if request.condition is not None and isinstance(selection, PredictionSelection):
            # Copies of what was found, by their ids; and whatever is not archived, by the condition.
            for each in search.search(PredictionSelection(ids=frozenset(ids)), starts) if ids else ():
                _keep_rows(each, found)
            starts = search.starts(None, archived, everywhere=False)
        for each in search.search(selection, starts):
            found.add(each)
        return found, search

    def _outcomes_of(self, request: Request, found: pa.Table) -> OutcomeSelection:
        """Return which outcomes are erased with predictions."""
        privacy = self._settings.privacy.privacy
        keys = request.keys | {privacy.treat_key(key) for key in request.keys}
        rows = frozenset(zip(_values(found, ID_COLUMN), _values(found, ROW_COLUMN), strict=True))
        named = {
            (model, key)
            for model, key in zip(_values(found, MODEL_COLUMN), _values(found, KEY_COLUMN), strict=True)
            if key is not None and key not in keys
        }
        rows_of_keys: dict[tuple[str, str], list[KeyedRow]] = {}
        if named:
            of_keys = PredictionSelection(keys=frozenset(key for _, key in named))
            others, _ = self._find_on(self._topics[0], of_keys, None, Request(keys=of_keys.keys))
            for table in (*others.rows, found):
                for model, key, time, event_id, row in zip(
                    _values(table, MODEL_COLUMN),
                    _values(table, KEY_COLUMN),
                    table[TIME_COLUMN].cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_pylist(),
                    _values(table, ID_COLUMN),
                    _values(table, ROW_COLUMN),
                    strict=True,
                ):
                    if (model, key) in named:
                        rows_of_keys.setdefault((model, key), []).append((time, event_id, row))
            rows_of_keys = {name: sorted(set(of_key)) for name, of_key in rows_of_keys.items()}
        return OutcomeSelection(request.ids, keys, request.model, rows, rows_of_keys)

    def _selections(self, *selections: Selection) -> Iterable[tuple[str, Selection]]:
        return zip(self._topics, selections, strict=True)

    def _search_letters(self, topic: str, selection: Selection) -> list[ErasedPartition]:
        if topic not in self._keeping_times:
            return []
        search = TopicSearch(self._settings.kafka, topic, self._tombstones.current(), lambda *_: None)
        return search.search_dead_letters(selection)

    def _find_copies(
        self, found: pa.Table
    ) -> tuple[list[erasures.DatasetWithErasedRows], list[erasures.ReferenceWithErasedRows]]:
        """Return the dataset versions and references with copies of erased rows."""
        datasets = erase_copies.find_datasets(
            self._store, found, lambda done, total: self._progress("dataset versions", done, total)
        )
        if not datasets:
            return [], []
        models = sorted({self._settings.registry.model, *_values(found, MODEL_COLUMN)})
        versions = erase_copies.trained_versions(self._settings.registry, models)
        named = [
            each.model_copy(update={"versions": ["/".join(pair) for pair in versions.get(each.md5, [])]})
            for each in datasets
        ]
        trained = sorted({pair for each in datasets for pair in versions.get(each.md5, [])})
        return named, erase_copies.find_references(self._store, found, trained)

    def _respected_until(self) -> datetime | None:
        """Return when no topic has any of its present messages."""
        times = list(self._keeping_times.values())
        longest = max((each for each in times if each is not None), default=timedelta())
        return None if None in times else now() + max(longest, MIN_RESPECTED) + MIN_RESPECTED

    def _progress(self, what: str, done: int, total: int) -> None:
        self._report(f"{what}: {done:,} of {total:,}")


def _keep_rows(copy: FoundRows, found: FoundOnTopic) -> None:
    """Add copies of found rows on the topic, without other rows of their events."""
    known = {
        (event_id, row)
        for rows in found.rows
        for event_id, row in zip(_values(rows, ID_COLUMN), _values(rows, ROW_COLUMN), strict=True)
    }
    ids, numbers = _values(copy.rows, ID_COLUMN), _values(copy.rows, ROW_COLUMN)
    keeps = [pair in known for pair in zip(ids, numbers, strict=True)]
    rows = copy.rows.filter(pa.array(keeps, pa.bool_()))
    kept: dict[int, list[int]] = {}
    for offset, number in zip(_values(rows, OFFSET_COLUMN), _values(rows, ROW_COLUMN), strict=True):
        kept.setdefault(offset, []).append(number)
    all_rows: dict[int, int] = {}
    for offset in _values(copy.rows, OFFSET_COLUMN):
        all_rows[offset] = all_rows.get(offset, 0) + 1
    if kept:
        erased = {offset: None if len(rows) == all_rows[offset] else rows for offset, rows in kept.items()}
        found.add(FoundRows(copy.partition, rows, erased))


def _values(table: pa.Table, column: str) -> list[Any]:
    return table[column].to_pylist() if column in table.column_names else [None] * len(table)


def _texts(table: pa.Table, column: str) -> list[str]:
    return [str(value) for value in _values(table, column) if value is not None]
