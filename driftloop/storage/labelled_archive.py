"""Archived predictions of one model, joined with their outcomes: later versions are trained and judged on them.

DuckDB joins them from the archive's Parquet files within a memory limit and spills the rest to disk. The files are
downloaded first: a year of flights, 674 files, took 0.5 s to download and 0.8 s to join, but 24 s when DuckDB itself
read them from the bucket. Which outcome of a row counts is in :mod:`driftloop.storage.outcome_join`.
"""

# ruff: noqa: S608  # quoted as described in driftloop.storage.duckdb_sql

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from functools import wraps
from itertools import chain
from pathlib import Path
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import structlog

from driftloop.archive.layout import ArchivedFile, files_since
from driftloop.archive.scratch import ARCHIVE, remove_abandoned_folders, scratch_folder
from driftloop.drift.comparable_columns import FeatureKind
from driftloop.events import (
    CLASSES_COLUMN,
    CONTEXT_COLUMN,
    ID_COLUMN,
    MODEL_COLUMN,
    PREDICTION_COLUMN,
    ROW_COLUMN,
    TIME_COLUMN,
    VERSION_COLUMN,
)
from driftloop.settings import TopicsSettings
from driftloop.storage.archive_files import ArchiveDownload, ArchiveFiles, translate_errors
from driftloop.storage.duckdb_sql import (
    TIMESTAMP_TYPE,
    CastFailures,
    ColumnTypes,
    Connection,
    column_types,
    connect,
    copy_to_parquet,
    fetch_frame,
    fetch_row,
    find_cast_failures,
    quote_identifier,
    quote_literal,
    scan_parquet_sql,
    struct_sql,
    tail_by_label_sql,
    with_json_fields_sql,
)
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.outcome_join import (
    EMPTY_OUTCOMES,
    EMPTY_PREDICTIONS,
    ORDER_COLUMNS,
    POSITION_SQL,
    create_outcomes,
    join_outcomes,
    timestamp_literal,
)
from driftloop.storage.outcome_sql import outcome_sql, reported_sql
from driftloop.usecase import UseCase

log = structlog.get_logger(__name__)

FIRST_FILES = 32  # that are looked at for the last rows, before twice as many are
MEMORY_MB = 512  # enough to join three million rows of 15 features in 5 s, in a process of 740 MB
FEATURE_TYPES: dict[FeatureKind, str] = {
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "datetime": "TIMESTAMP_NS",
    "text": "VARCHAR",
}
"""DuckDB types of features by kind. A category has the type of its levels, which may be numbers or texts."""
ORDER_SQL = ", ".join(ORDER_COLUMNS)


@dataclass(frozen=True)
class ArchiveQuery:
    """Which rows of the archive to use, by the time of their prediction; by default all."""

    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""
    excluded_ranges: tuple[tuple[datetime, datetime], ...] = ()
    """Ranges of time to leave out; each includes its start and excludes its end."""
    last_rows: int | None = None
    """Keep only rows from the N-th last labelled row onwards."""
    versions: tuple[str, ...] = ()
    """Keep only rows that these versions predicted; all versions if empty."""


EVERYTHING = ArchiveQuery()


class ArchiveCounts(NamedTuple):
    """The number of rows that match a query."""

    rows: int
    """With and without a known outcome."""
    labelled: int
    days: int
    """Days in the use case's time zone that have labelled rows."""


class ArchiveAnomalies(NamedTuple):
    """Where the archive deviates from one prediction with one outcome per row."""

    outcomes: int
    """Rows of any model whose outcome was reported."""
    unmatched: int
    """Rows with an outcome whose prediction is not in the archive, or not yet."""
    corrected: int
    """Rows whose outcome was reported more than once."""
    repeated: int
    """Additional copies of this model's rows."""
    unknown_labels: int
    """Outcomes of this model's rows that are not one of the use case's classes."""


@contextmanager
def open_archive(
    store: ObjectStore,
    topics: TopicsSettings,
    use_case: UseCase,
    *,
    types: Mapping[str, str] | None = None,
    folder: Path | None = None,
    memory_mb: int = MEMORY_MB,
    query: ArchiveQuery = EVERYTHING,
) -> Iterator["LabelledArchive"]:
    """Open the archive of the use case's model in its present state, or the part of it that a query needs.

    An event reaches its topic no earlier than at its own time. So rows since a time are in the files since then, and
    for the last N rows so many of the latest files are fetched that these have N labelled rows since they began. With
    rows whose time is long past when they are sent, all files are fetched.

    This function and the archive's methods raise :class:`ArchiveUnreadable` for a file that cannot be read.

    Args:
        store: the bucket that holds the archive.
        topics: names of the topics of predictions and outcomes.
        use_case: the model's name, columns and time zone.
        types: DuckDB types of features; by default those of their kinds, and the type in the archive for a category.
        folder: where downloaded files are kept for the next call; by default they are deleted.
        memory_mb: memory limit of the join.
        query: what is going to be read; counts and anomalies are then those of the part that is fetched.
    """
    remove_abandoned_folders(ARCHIVE)
    with scratch_folder(ARCHIVE) as scratch:
        files = folder or scratch
        download = ArchiveDownload(store, topics, files)
        for since in _beginnings(download.listed.predictions, query):
            downloaded = download.fetch(since)
            with connect(scratch, memory_mb) as connection:
                archive = LabelledArchive(connection, use_case, types or {}, downloaded)
                if since == query.since or _has_enough(archive, query, since):
                    yield archive
                    return


def _beginnings(predictions: Sequence[ArchivedFile], query: ArchiveQuery) -> Iterator[datetime | None]:
    """Yield times from which on files may be enough for a query, ever earlier ones; the last one is enough."""
    if query.last_rows is not None:
        files = files_since(predictions, query.since)
        begins = sorted((file.begin for file in files), reverse=True)
        count = FIRST_FILES
        while count < len(begins):
            yield begins[count]
            count *= 2
    yield query.since


def _has_enough(archive: "LabelledArchive", query: ArchiveQuery, since: datetime | None) -> bool:
    """Return whether the archive since a time has all labelled rows that a query for the last rows asks for."""
    return archive.counts(replace(query, since=since, last_rows=None)).labelled >= (query.last_rows or 0)


P = ParamSpec("P")
R = TypeVar("R")


def _name_damaged_files(
    method: Callable[Concatenate["LabelledArchive", P], R],
) -> Callable[Concatenate["LabelledArchive", P], R]:
    """Let a method raise :class:`ArchiveUnreadable`, with the name of the file, for DuckDB's errors."""

    @wraps(method)
    def translated(archive: "LabelledArchive", /, *args: P.args, **kwargs: P.kwargs) -> R:
        with translate_errors(chain(*archive.files)):
            return method(archive, *args, **kwargs)

    return translated


class LabelledArchive:
    """The archived predictions of one model, joined with their outcomes."""

    def __init__(
        self,
        connection: Connection,
        use_case: UseCase,
        types: Mapping[str, str],
        files: ArchiveFiles,
    ) -> None:
        """Join the slices of predictions and outcomes; see :func:`open_archive` for the arguments."""
        self.files = files
        self._connection = connection
        self._use_case = use_case
        self._model = quote_literal(use_case.name)
        self._archived_types = self._scan()
        self._types = {
            name: types.get(name) or FEATURE_TYPES.get(kind) or self._archived_types.get(name, "VARCHAR")
            for name, kind in use_case.feature_kinds.items()
        } | dict.fromkeys(use_case.context_columns, "VARCHAR")
        self._join()

    @_name_damaged_files
    def counts(self, query: ArchiveQuery = EVERYTHING) -> ArchiveCounts:
        """Count the rows that match a query."""
        local_date = f"CAST(timezone({quote_literal(self._use_case.timezone)}, time::TIMESTAMPTZ) AS DATE)"
        labelled = "FILTER (WHERE outcome IS NOT NULL)"
        counts = fetch_row(
            self._connection,
            f"SELECT count(*), count(outcome), count(DISTINCT {local_date}) {labelled} FROM ({_matching_rows(query)})",
        )
        return ArchiveCounts(*counts)

    @_name_damaged_files
    def anomalies(self) -> ArchiveAnomalies:
        """Count where the archive deviates from one prediction with one outcome per row."""
        outcomes, corrected = fetch_row(
            self._connection, "SELECT count(*), count(*) FILTER (WHERE report_count > 1) FROM latest_outcomes"
        )
        (unmatched,) = fetch_row(
            self._connection,
            f"SELECT count(*) FROM latest_outcomes ANTI JOIN predictions ON id = {ID_COLUMN} AND row = {ROW_COLUMN}",
        )
        (repeated,) = fetch_row(self._connection, "SELECT count(*) FROM duplicates")
        return ArchiveAnomalies(outcomes, unmatched, corrected, repeated, self._count_unknown_labels())

    @_name_damaged_files
    def type_mismatches(self) -> dict[str, CastFailures]:
        """Find the values that do not fit their feature's type, by feature; rows have them as missing or rounded."""
        return find_cast_failures(
            self._connection, f"predictions WHERE {MODEL_COLUMN} = {self._model}", self._archived_types, self._types
        )

    @_name_damaged_files
    def read(self, query: ArchiveQuery = EVERYTHING) -> pd.DataFrame:
        """Read the matching labelled rows, ordered by time.

        The columns are those of a dataset, those of subgroups that come from the context, and the archive's own of id,
        row, version, prediction and classes. Rows whose prediction is not of the use case's target are left out.
        """
        labelled = f"FROM ({_matching_rows(query)}) WHERE outcome IS NOT NULL ORDER BY {ORDER_SQL}"
        own = (
            f"id AS {ID_COLUMN}, row AS {ROW_COLUMN}, version AS {VERSION_COLUMN}, prediction AS {PREDICTION_COLUMN}, "
            f"classes AS {CLASSES_COLUMN}"
        )
        rows = fetch_frame(self._connection, f"SELECT {self._columns}, {own} {labelled}")
        valid = np.isfinite(self._use_case.archived_predictions(rows))
        is_valid = pd.Series(valid if valid.ndim == 1 else valid.all(axis=1), index=rows.index)
        return rows.loc[is_valid].reset_index(drop=True)

    @_name_damaged_files
    def write(self, path: Path, query: ArchiveQuery = EVERYTHING) -> None:
        """Write the matching rows, ordered by time, to a Parquet file: time, features, and the outcome if known."""
        copy_to_parquet(
            self._connection, f"SELECT {self._columns} FROM ({_matching_rows(query)}) ORDER BY {ORDER_SQL}", path
        )

    def _count_unknown_labels(self) -> int:
        """Count the outcomes that are no class of the target, and log examples with their ids."""
        unknown = (
            "FROM latest_outcomes SEMI JOIN typed_predictions USING (id, row) "
            "WHERE outcome IS NULL AND reported IS NOT NULL"
        )
        (count,) = fetch_row(self._connection, f"SELECT count(*) {unknown}")
        if count:
            examples = self._connection.execute(
                f"SELECT id, row, reported {unknown} ORDER BY id, row LIMIT 5"
            ).fetchall()
            log.warning("archive.unknown_labels", model=self._use_case.name, outcomes=count, examples=examples)
        return count

    @property
    def _columns(self) -> str:
        timestamp, target = quote_identifier(self._use_case.timestamp), quote_identifier(self._use_case.target)
        return f"time AS {timestamp}, features.*, outcome AS {target}"

    @_name_damaged_files
    def _scan(self) -> ColumnTypes:
        """Create the views ``predictions`` and ``outcomes`` of the files; return the types of the predictions."""
        predictions = scan_parquet_sql(self.files.predictions) if self.files.predictions else EMPTY_PREDICTIONS
        with_context = with_json_fields_sql(
            predictions, column_types(self._connection, predictions), CONTEXT_COLUMN, self._use_case.context_columns
        )
        self._connection.execute(f"CREATE VIEW predictions AS {with_context}")
        outcomes = scan_parquet_sql(self.files.outcomes) if self.files.outcomes else EMPTY_OUTCOMES
        types = column_types(self._connection, outcomes)
        values = {"outcome": outcome_sql(self._use_case, types), "reported": reported_sql(types)}
        create_outcomes(self._connection, outcomes, types, values)
        return column_types(self._connection, "predictions")

    @_name_damaged_files
    def _join(self) -> None:
        """Create the view ``archive``: the model's rows, each once, with their latest outcome."""
        join_outcomes(self._connection, self._use_case.name, ("outcome", "reported"))
        is_number = self._use_case.target_type.kind != "multiclass" and not self._use_case.target_type.has_text_labels
        prediction = f"TRY_CAST({PREDICTION_COLUMN} AS DOUBLE)" if is_number else PREDICTION_COLUMN
        classes = CLASSES_COLUMN if CLASSES_COLUMN in self._archived_types else "NULL::VARCHAR"
        self._connection.execute(
            f"CREATE VIEW typed_predictions AS SELECT {ID_COLUMN} AS id, {ROW_COLUMN} AS row, "
            f"{VERSION_COLUMN} AS version, {prediction} AS prediction, {classes} AS classes, "
            f"{TIME_COLUMN}::{TIMESTAMP_TYPE} AS time, "
            f"{struct_sql(self._archived_types, self._types)} AS features, {POSITION_SQL} "
            f"FROM predictions ANTI JOIN duplicates USING ({POSITION_SQL}) WHERE {MODEL_COLUMN} = {self._model}"
        )
        self._connection.execute(
            "CREATE VIEW archive AS "
            "SELECT typed_predictions.*, outcome "
            "FROM typed_predictions LEFT JOIN latest_outcomes USING (id, row)"
        )


def start_of_day(use_case: UseCase, day: date) -> datetime:
    """Return the time at which a day begins in the use case's time zone."""
    return datetime.combine(day, time.min, tzinfo=ZoneInfo(use_case.timezone))


def where_clause(query: ArchiveQuery) -> str:
    """Return the query's times and versions as an SQL condition on the columns ``time`` and ``version``."""
    conditions = ["true"]
    if query.since is not None:
        conditions.append(f"time >= {timestamp_literal(query.since)}")
    if query.until is not None:
        conditions.append(f"time < {timestamp_literal(query.until)}")
    conditions += [
        f"NOT (time >= {timestamp_literal(start)} AND time < {timestamp_literal(end)})"
        for start, end in query.excluded_ranges
    ]
    if query.versions:
        conditions.append(f"version IN ({', '.join(map(quote_literal, query.versions))})")
    return " AND ".join(conditions)


def _matching_rows(query: ArchiveQuery) -> str:
    """Return SQL for the archive's rows that match a query."""
    rows = f"SELECT * FROM archive WHERE {where_clause(query)}"
    return rows if query.last_rows is None else tail_by_label_sql(rows, ORDER_COLUMNS, query.last_rows)
