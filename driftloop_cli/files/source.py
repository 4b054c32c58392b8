"""Rows from a CSV or Parquet file, or from an SQL query over files, in a DuckDB table; checks of their columns.

DuckDB reads, checks and converts whole columns within a memory limit. A row is known by its number: 1 is the first one
after a CSV file's header, or the first one of the query's result.
"""

# ruff: noqa: S608  # quoted as described in driftloop.storage.duckdb_sql

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import duckdb

from driftloop.errors import InvalidInput
from driftloop.kafka.bulk_publisher import PreparedEvent
from driftloop.storage.duckdb_sql import (
    FLOATS,
    INTEGERS,
    POSITION_COLUMNS,
    Connection,
    column_types,
    connect,
    fetch_row,
    quote_identifier,
    quote_literal,
    scan_parquet_sql,
)

MEMORY_MB = 512
NUMBER = "__number"
FILE_TABLE = "rows"
"""The name under which an SQL query finds the file."""
MAX_SHOWN_TEXT = 60
# Without BOOLEAN, to which DuckDB would also convert labels such as yes and no.
CSV_TYPES = "['NULL', 'BIGINT', 'DOUBLE', 'DATE', 'TIMESTAMP', 'TIMESTAMPTZ', 'VARCHAR']"
BATCH_ROWS = 10_000
EVENT_COLUMNS = "key, event_id, event_time, text"
"""The columns of a view with prepared events."""
FIRST_TIME, LAST_TIME = "1970-01-01", "2200-01-01"  # of driftloop.events.EventTime


class Check(NamedTuple):
    """What must not be true of any row."""

    column: str
    condition: str
    """SQL on the columns of the source."""
    problem: str
    """What is wrong, as a clause."""


class Source(NamedTuple):
    """Rows in the table ``source``, numbered from 1 in the column ``__number``."""

    connection: Connection
    name: str
    """The file, for messages."""
    types: Mapping[str, str]
    """DuckDB's type of each column."""

    def require_columns(self, *names: str | None) -> None:
        """Raise :class:`InvalidInput` unless the source has each of the columns."""
        if missing := [name for name in names if name is not None and name not in self.types]:
            raise InvalidInput(f"{self.name} has no column {', '.join(missing)}; it has {', '.join(self.types)}")

    def require(self, checks: Sequence[Check]) -> None:
        """Raise :class:`InvalidInput` with the first row of each check that fails."""
        if not checks:
            return
        conditions = [f"FILTER (WHERE {check.condition})" for check in checks]
        counts = ", ".join(f"count(*) {condition}, min({NUMBER}) {condition}" for condition in conditions)
        found = fetch_row(self.connection, f"SELECT {counts} FROM source")
        problems = []
        for check, count, first in zip(checks, found[::2], found[1::2], strict=True):
            if not count:
                continue
            value = f"CAST({quote_identifier(check.column)} AS VARCHAR)"
            ((text,),) = self.connection.execute(f"SELECT {value} FROM source WHERE {NUMBER} = {first}").fetchall()
            shown = "nothing" if text is None else repr(text[:MAX_SHOWN_TEXT])
            others = f", and {count - 1:,} more rows" if count > 1 else ""
            problems.append(f"row {first}{others}, column {check.column}: {check.problem}, and it has {shown}")
        if problems:
            raise InvalidInput("\n".join(f"{self.name}: {problem}" for problem in problems))


@contextmanager
def open_source(file: Path | None, sql: str | None, text_columns: Collection[str], timezone: str) -> Iterator[Source]:
    """Read rows; times without a zone are of ``timezone``.

    Args:
        file: A CSV file (``.csv``, ``.tsv``, ``.txt``, also with ``.gz``) or a Parquet file.
        sql: A query whose result is read in place of the file. The file, if there is one, is its table ``rows``.
        text_columns: Columns that a CSV file has as texts even if they look like numbers.
        timezone: The name of a time zone.

    Raises:
        InvalidInput: File or query cannot be read; the message says why.
    """
    if file is None and sql is None:
        raise InvalidInput("name a file, or a query with --sql")
    if file is not None and not file.is_file():
        raise InvalidInput(f"there is no file {file}")
    name = "the query's result" if sql else str(file)
    with (
        tempfile.TemporaryDirectory(prefix="driftloop-rows-") as folder,
        connect(Path(folder), MEMORY_MB) as connection,
    ):
        try:
            connection.execute(f"SET TimeZone = {quote_literal(timezone)}")
            if file is not None:
                _read_file(connection, file, text_columns)
            query = sql.strip().rstrip(";") if sql else f"SELECT * FROM {FILE_TABLE}"
            connection.execute(
                f"CREATE TEMP TABLE source AS SELECT row_number() OVER () AS {NUMBER}, loaded.* FROM ({query}) loaded"
            )
            types = {column: kind for column, kind in column_types(connection, "source").items() if column != NUMBER}
        except duckdb.Error as error:
            raise InvalidInput(f"{name} cannot be read: {error}") from error
        yield Source(connection, name, types)


def _read_file(connection: Connection, file: Path, text_columns: Collection[str]) -> None:
    """Create the table, or view, ``rows`` of a file."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if ".parquet" in suffixes or ".pq" in suffixes:
        connection.execute(f"CREATE VIEW {FILE_TABLE} AS SELECT * FROM read_parquet({quote_literal(file)})")
        return
    reader = f"SELECT * FROM read_csv({quote_literal(file)}, header = true, auto_type_candidates = {CSV_TYPES}"
    texts = sorted(column_types(connection, f"{reader})").keys() & set(text_columns))
    types = ", ".join(f"{quote_literal(column)}: 'VARCHAR'" for column in texts)
    # The whole file decides on the types, so that a late text in a column of numbers is no error but a text.
    options = "sample_size = -1" + (f", types = {{{types}}}" if texts else "")
    connection.execute(f"CREATE TEMP TABLE {FILE_TABLE} AS {reader}, {options})")
    for column, kind in column_types(connection, FILE_TABLE).items():
        if kind == "VARCHAR" and column not in texts:
            _convert_booleans(connection, quote_identifier(column))


def _convert_booleans(connection: Connection, column: str) -> None:
    """Make a column of texts one of booleans if it has no others than ``true`` and ``false``."""
    others = f"count(*) FILTER (WHERE lower({column}) NOT IN ('true', 'false'))"
    known, other = fetch_row(connection, f"SELECT count({column}), {others} FROM {FILE_TABLE}")
    if known and not other:
        connection.execute(f"ALTER TABLE {FILE_TABLE} ALTER {column} TYPE BOOLEAN")


def key_sql(source: Source, column: str) -> str:
    """Return SQL for a column with ids as texts.

    Raises:
        InvalidInput: The column has another type than texts, integers or UUIDs.
    """
    if source.types[column] not in {"VARCHAR", "UUID"} | INTEGERS:
        raise InvalidInput(
            f"{source.name}: the column {column} has the type {source.types[column]}: an id is a text or an integer"
        )
    return f"CAST({quote_identifier(column)} AS VARCHAR)"


def key_check(source: Source, column: str) -> Check:
    """Return the check of a column with ids: each row has one, of at most 256 characters."""
    text = key_sql(source, column)
    return Check(
        column, f"coalesce(length({text}), 0) NOT BETWEEN 1 AND 256", "an id of at most 256 characters is needed"
    )


def time_sql(column: str) -> str:
    """Return SQL for a column with times, as ``TIMESTAMPTZ``."""
    return f"TRY_CAST({quote_identifier(column)} AS TIMESTAMPTZ)"


def time_check(column: str) -> Check:
    """Return the check of a column with times: each row has one of the years that an event can have."""
    time = time_sql(column)
    return Check(
        column,
        f"coalesce({time} NOT BETWEEN '{FIRST_TIME}' AND '{LAST_TIME}', true)",
        f"a time between {FIRST_TIME} and {LAST_TIME} is needed, such as 2013-07-01 05:00 or 2013-07-01T05:00:00Z",
    )


def value_sql(source: Source, column: str) -> str:
    """Return SQL for a column with numbers, booleans or labels in the type that JSON has for them; NaN is missing.

    Raises:
        InvalidInput: The column has another type.
    """
    kind, value = source.types[column], quote_identifier(column)
    if kind in FLOATS or kind.startswith("DECIMAL"):
        return f"nullif(CAST({value} AS DOUBLE), 'nan'::DOUBLE)"
    if kind in INTEGERS - {"HUGEINT", "UHUGEINT"} | {"BOOLEAN"}:
        return value
    if is_text(kind):
        return f"CAST({value} AS VARCHAR)"
    raise InvalidInput(f"{source.name}: the column {column} has the type {kind}: a number, boolean or text is needed")


def is_text(kind: str) -> bool:
    """Return whether values of a DuckDB type are texts to :func:`value_sql`."""
    return kind == "VARCHAR" or kind.startswith("ENUM")


def value_checks(source: Source, column: str, *, required: bool) -> list[Check]:
    """Return the checks of a column with values: finite numbers, and none missing if it is ``required``."""
    value = value_sql(source, column)
    checks = [Check(column, f"{value} IS NULL", "a value is needed")] if required else []
    if source.types[column] in FLOATS:
        checks.append(Check(column, f"isinf({quote_identifier(column)})", "a finite number is needed"))
    return checks


def utc_text_sql(time: str) -> str:
    """Return SQL for the text of a time in ISO 8601 and UTC."""
    return f"strftime(timezone('UTC', {time}), '%Y-%m-%dT%H:%M:%S.%fZ')"


def archive_sql(connection: Connection, files: Sequence[Path], columns: Sequence[str]) -> str:
    """Return SQL for columns of the archive's files and their position; a column that no file has is missing."""
    if not files:
        missing = ", ".join(f"NULL::VARCHAR AS {name}" for name in (*columns, *POSITION_COLUMNS))
        return f"SELECT {missing} LIMIT 0"
    rows = scan_parquet_sql(files)
    present = column_types(connection, rows)
    selected = ", ".join(name if name in present else f"NULL::VARCHAR AS {name}" for name in columns)
    return f"SELECT {selected}, {', '.join(POSITION_COLUMNS)} FROM ({rows})"


def prepared_events(source: Source, view: str) -> Iterator[PreparedEvent]:
    """Yield the rows of a view with :data:`EVENT_COLUMNS`, in its order."""
    result = source.connection.sql(f"SELECT {EVENT_COLUMNS} FROM {view}")
    for batch in result.to_arrow_reader(BATCH_ROWS):
        yield from map(PreparedEvent, *(column.to_pylist() for column in batch.columns))
