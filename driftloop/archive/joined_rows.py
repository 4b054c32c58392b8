"""Predictions of the archive joined with their outcomes, for people and tools: no use case is needed."""

# ruff: noqa: S608  # quoted as described in driftloop.storage.duckdb_sql

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

from driftloop.errors import InvalidInput
from driftloop.events import (
    CLASSES_COLUMN,
    CONTEXT_COLUMN,
    ID_COLUMN,
    KEY_COLUMN,
    LABEL_COLUMN,
    MODEL_COLUMN,
    OFFSET_COLUMN,
    PREDICTION_COLUMN,
    ROW_COLUMN,
    RUN_COLUMN,
    TIME_COLUMN,
    VERSION_COLUMN,
)
from driftloop.near_names import near_names
from driftloop.settings import TopicsSettings
from driftloop.storage.archive_files import translate_errors
from driftloop.storage.archive_parts import FetchedPart, Part, fetch_part
from driftloop.storage.duckdb_sql import (
    FLOATS,
    INTEGERS,
    NUMBERS,
    POSITION_COLUMNS,
    TIMESTAMP_TYPE,
    Connection,
    column_types,
    connect,
    fetch_row,
    forbid_access,
    names_in_condition,
    quote_identifier,
    quote_literal,
    scan_parquet_sql,
    try_cast_sql,
)
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.outcome_join import (
    EMPTY_OUTCOMES,
    EMPTY_PREDICTIONS,
    create_outcomes,
    join_outcomes,
    of_model_sql,
    timestamp_literal,
)

YEARS = range(1700, 2262)  # that nanoseconds since 1970 have in 64 bits
MIN_MEMORY_MB = 64  # with less, not even small archives can be joined
BATCH_ROWS = 65_536  # of a record batch: some MB
NULL = "NULL"  # DuckDB's type of a column that has no value anywhere
OWN_TYPES = {
    ID_COLUMN: "VARCHAR",
    ROW_COLUMN: "BIGINT",
    TIME_COLUMN: TIMESTAMP_TYPE,
    MODEL_COLUMN: "VARCHAR",
    VERSION_COLUMN: "VARCHAR",
    RUN_COLUMN: "VARCHAR",
    PREDICTION_COLUMN: "DOUBLE",  # or text, see _prediction_type
    CLASSES_COLUMN: "VARCHAR",
    LABEL_COLUMN: "VARCHAR",
    KEY_COLUMN: "VARCHAR",
    CONTEXT_COLUMN: "VARCHAR",
    OFFSET_COLUMN: "BIGINT",
}
"""The archive's own columns of predictions, with their DuckDB types."""
OUTCOME_TYPES = {"outcome": "DOUBLE", "outcome_label": "VARCHAR", "outcome_time": TIMESTAMP_TYPE}
"""The columns that come from outcomes. The last one is the time at which the outcome became known."""
JOINED_COLUMNS = (ID_COLUMN, ROW_COLUMN, TIME_COLUMN, MODEL_COLUMN, VERSION_COLUMN, KEY_COLUMN)
"""The columns that are read in any case: rows are found, distinguished and joined by them."""
FEATURE_PREFIX = "feature_"
"""Of a feature whose name is that of a column of outcomes."""


@dataclass(frozen=True)
class RowSelection:
    """Which rows and columns of the archive are wanted; by default all. For the fields see :func:`archive.read`."""

    model: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    versions: Sequence[str] = ()
    columns: Sequence[str] | None = None
    where: str | None = None
    labelled_only: bool = False

    def __post_init__(self) -> None:
        """Raise :class:`InvalidInput` for a time without a time zone, and for a text where a list is wanted."""
        for name, time in (("since", self.since), ("until", self.until)):
            if time is None:
                continue
            if not isinstance(time, datetime) or time.tzinfo is None:
                raise InvalidInput(
                    f"{name}: {time} has no time zone; give one, as in datetime(2026, 1, 31, tzinfo=UTC)"
                )
            if time.year not in YEARS:
                raise InvalidInput(
                    f"{name}: give a time of the years {YEARS[0]} to {YEARS[-1]}, or leave it out for no limit"
                )
        for name, texts in (("versions", self.versions), ("columns", self.columns)):
            if isinstance(texts, str):
                raise InvalidInput(f"{name}: give a list, as in [{texts!r}]")
        if self.columns is not None and not self.columns:
            raise InvalidInput("columns: name at least one, or leave them out for all")


def open_reader(
    store: ObjectStore, topics: TopicsSettings, selection: RowSelection, *, in_order: bool, memory_mb: int
) -> Any:
    """Return a ``pyarrow.RecordBatchReader`` of the selected rows, each once, joined with the outcome that counts.

    What is needed of the archive's files is fetched now, into a temporary folder. It is deleted when the last batch is
    read, or when the reader is dropped.

    Args:
        store: Where the archive is.
        topics: Names of the topics of predictions and outcomes.
        selection: Which rows and columns.
        in_order: Whether rows are in the order of their time.
        memory_mb: Memory limit of the join.

    Raises:
        InvalidInput: A column does not exist, the condition is no valid one, or the memory is too little.
        ArchiveUnreadable: A file of the archive cannot be read.
        StorageUnavailable: The store does not answer.
    """
    if memory_mb < MIN_MEMORY_MB:
        raise InvalidInput(f"memory_mb: {memory_mb} is too little; give {MIN_MEMORY_MB} or more")
    batches = _read_batches(store, topics, selection, in_order, memory_mb)
    return pa.RecordBatchReader.from_batches(next(batches), batches)


def _read_batches(
    store: ObjectStore, topics: TopicsSettings, selection: RowSelection, in_order: bool, memory_mb: int
) -> Iterator[Any]:
    """Yield the schema, then the batches."""
    with (
        TemporaryDirectory(prefix="driftloop-archive-") as scratch,
        connect(Path(scratch), memory_mb) as connection,
        translate_errors(Path(scratch).rglob("*.parquet")),
        _name_condition(selection.where),
    ):
        forbid_access(connection, Path(scratch))
        in_condition = _columns_of_condition(connection, selection.where)
        query = _join(connection, store, topics, Path(scratch), selection, in_condition)
        if in_order:
            query += f" ORDER BY {', '.join((TIME_COLUMN, *POSITION_COLUMNS))}"
        else:
            connection.execute("SET preserve_insertion_order = false")  # so that no batch waits for others
        reader = connection.sql(query).to_arrow_reader(BATCH_ROWS)
        yield reader.schema
        yield from reader


@contextmanager
def _name_condition(where: str | None) -> Iterator[None]:
    """Raise :class:`InvalidInput` for an error of the engine that a condition has, with the engine's message."""
    try:
        yield
    except (
        duckdb.BinderException,
        duckdb.CatalogException,
        duckdb.ConversionException,
        duckdb.InvalidInputException,
        duckdb.OutOfRangeException,
        duckdb.ParserException,
    ) as error:
        if where is None:
            raise
        raise InvalidInput(f"where: {where!r} is no condition on the archive's rows: {error}") from error


def _columns_of_condition(connection: Connection, where: str | None) -> set[str] | None:
    """Return the names in a condition that may be columns; ``None`` if it may use any column.

    Raises :class:`InvalidInput` if it is no SQL expression.
    """
    if where is None:
        return set()
    try:
        names = names_in_condition(connection, where)
    except ValueError as error:
        raise InvalidInput(f"where: {where!r} is no SQL condition: {error}") from error
    return None if "*" in names else names


def _join(
    connection: Connection,
    store: ObjectStore,
    topics: TopicsSettings,
    folder: Path,
    selection: RowSelection,
    in_condition: Collection[str] | None,
) -> str:
    """Fetch what is needed and join it; return SQL for the selected rows."""
    named = None if selection.columns is None or in_condition is None else {*selection.columns, *in_condition}
    is_joined = named is None or selection.labelled_only or not {*map(str.casefold, named)}.isdisjoint(OUTCOME_TYPES)
    outcomes = FetchedPart([], [], [])
    if is_joined:
        # First: rows that are archived between the two then are no outcomes without a prediction.
        outcomes = fetch_part(store, topics.outcomes, folder / "outcomes", Part(selection.since))
    scanned = scan_parquet_sql(outcomes.files) if outcomes.files else EMPTY_OUTCOMES
    types = column_types(connection, scanned)
    values = {name: try_cast_sql(name, types, OUTCOME_TYPES[name]) for name in ("outcome", "outcome_label")}
    create_outcomes(connection, scanned, types, {**values, "known_at": f"{TIME_COLUMN}::{TIMESTAMP_TYPE}"})

    columns = None if named is None else [*JOINED_COLUMNS, *map(_archived_name, named)]
    part = Part(selection.since, selection.until, selection.model, columns)
    predictions = fetch_part(store, topics.predictions, folder / "predictions", part)
    connection.execute(f"CREATE VIEW predictions AS {_scan(predictions)}")
    keyed = "predictions"
    if selection.until is not None and _have_keys(connection, selection.model):
        # A key names the row that was predicted last, which may be one after those that are wanted.
        later = part._replace(until=None, columns=JOINED_COLUMNS)
        keyed = "keyed_predictions"
        scanned = _scan(fetch_part(store, topics.predictions, folder / "keyed", later))
        connection.execute(f"CREATE VIEW {keyed} AS {scanned}")
    join_outcomes(connection, selection.model, [*values, "known_at"], keyed)

    fields = _fields(column_types(connection, "predictions"))
    is_empty = not (predictions.files or predictions.other_columns)
    chosen = list(fields) if selection.columns is None else list(selection.columns)
    for name in (*(selection.columns or ()), *(in_condition or ())):
        # A column that is in files of other times only, or that an archive without rows cannot have.
        if name not in fields and (is_empty or _archived_name(name) in predictions.other_columns):
            fields[name] = NULL
    for name in chosen:
        if name not in fields:
            raise InvalidInput(_describe_unknown(name, fields))
    selected = ", ".join(f"{value} AS {quote_identifier(name)}" for name, value in fields.items())
    connection.execute(
        f"CREATE VIEW joined AS SELECT {selected}, {', '.join(f'p.{column}' for column in POSITION_COLUMNS)} "
        f"FROM predictions p ANTI JOIN duplicates USING ({', '.join(POSITION_COLUMNS)}) "
        f"LEFT JOIN latest_outcomes o ON o.id = p.{ID_COLUMN} AND o.row = p.{ROW_COLUMN} WHERE {_conditions(selection)}"
    )
    condition = "" if selection.where is None else f" WHERE (\n{selection.where}\n)"
    return f"SELECT {', '.join(map(quote_identifier, chosen))} FROM joined{condition}"


def _scan(fetched: FetchedPart) -> str:
    return scan_parquet_sql(fetched.files) if fetched.files else EMPTY_PREDICTIONS


def _have_keys(connection: Connection, model: str | None) -> bool:
    """Return whether an outcome names a row by its key."""
    of_model = "true" if model is None else f"model = {quote_literal(model)}"
    (count,) = fetch_row(connection, f"SELECT count(*) FROM outcomes WHERE key IS NOT NULL AND {of_model}")
    return count > 0


def result_types(archived: Mapping[str, str]) -> dict[str, str]:
    """Return the type of each column of predictions in the result: the archive's own, then the features by name.

    Args:
        archived: The types of the archived columns.
    """
    own = OWN_TYPES | {PREDICTION_COLUMN: _prediction_type(archived.get(PREDICTION_COLUMN, NULL))}
    return own | {name: _feature_type(archived[name]) for name in sorted(archived.keys() - own.keys())}


def _fields(types: Mapping[str, str]) -> dict[str, str]:
    """Return SQL for each column that there is, in order: the archive's own, features by name, those of outcomes.

    Args:
        types: The types of the archived columns of predictions.
    """
    fields = {}
    for name, kind in result_types(types).items():
        if name in OWN_TYPES:
            fields[name] = _own_field(name, types, kind)
        else:
            fields[_result_name(name)] = _feature_field(name, types[name], kind)
    label = {"outcome_time": "known_at"}
    return fields | {name: f"o.{label.get(name, name)}" for name in OUTCOME_TYPES}


def _own_field(name: str, types: Mapping[str, str], kind: str) -> str:
    return f"p.{name}" if types.get(name) == kind else try_cast_sql(name, types, kind)


def _prediction_type(archived: str) -> str:
    """Return the type of predictions: numbers, or texts if some are."""
    return "DOUBLE" if archived in NUMBERS | {NULL} else "VARCHAR"


def _feature_type(archived: str) -> str:
    return "BIGINT" if archived in INTEGERS else "DOUBLE" if archived in FLOATS else archived


def _feature_field(name: str, archived: str, wanted: str) -> str:
    value = f"p.{quote_identifier(name)}"
    return value if archived == wanted else f"{value}::{wanted}"


def _result_name(name: str) -> str:
    """Return the name that a feature's column has in the result."""
    return f"{FEATURE_PREFIX}{name}" if name.casefold() in OUTCOME_TYPES else name


def _archived_name(name: str) -> str:
    """Return the name that a column of the result has in the archive."""
    short = name.removeprefix(FEATURE_PREFIX)
    return short if short.casefold() in OUTCOME_TYPES else name


def _conditions(selection: RowSelection) -> str:
    conditions = [of_model_sql(selection.model)]
    if selection.since is not None:
        conditions.append(f"p.{TIME_COLUMN} >= {timestamp_literal(selection.since)}")
    if selection.until is not None:
        conditions.append(f"p.{TIME_COLUMN} < {timestamp_literal(selection.until)}")
    if selection.versions:
        conditions.append(f"p.{VERSION_COLUMN} IN ({', '.join(map(quote_literal, selection.versions))})")
    if selection.labelled_only:
        conditions.append("(o.outcome IS NOT NULL OR o.outcome_label IS NOT NULL)")
    return " AND ".join(conditions)


def _describe_unknown(name: str, fields: Collection[str]) -> str:
    near = near_names(name, fields)
    meant = f" (did you mean {' or '.join(near)}?)" if near else ""
    return f"columns: the archive has no column {name} in the files of these times{meant}; it has {', '.join(fields)}"
