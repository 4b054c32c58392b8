"""Helpers for reading archive and datasets with DuckDB: within a memory limit and without network access.

Functions that end in ``_sql`` build SQL text. Every identifier and literal that comes from outside goes through
:func:`quote_identifier` or :func:`quote_literal`: views, where most of them end up, cannot have bound parameters.
"""

# ruff: noqa: S608  # see the module's docstring

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.events import fold_case

TIMESTAMP_TYPE = "TIMESTAMPTZ_NS"  # the resolution of pandas
INTEGERS = frozenset(f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")) | {
    "INTEGER",
    "UINTEGER",
}
FLOATS = frozenset({"FLOAT", "DOUBLE"})
MAX_EXAMPLE_LENGTH = 40  # characters of a value that a message quotes
NUMBERS = INTEGERS | FLOATS | {"BOOLEAN"}

# A file with a column of such a name could not be read: so these are no names that a feature has.
FILE_NAME_COLUMN, FILE_NUMBER_COLUMN, ROW_NUMBER_COLUMN = "__driftloop_name", "__driftloop_file", "__driftloop_row"
SCAN_COLUMNS = (FILE_NAME_COLUMN, ROW_NUMBER_COLUMN)
"""Of :func:`union_parquet_sql`: the file of a row, and its number there."""
POSITION_COLUMNS = (FILE_NUMBER_COLUMN, ROW_NUMBER_COLUMN)
"""Columns that say where a row was read: the number of its file, and the number of the row in it."""

Connection = duckdb.DuckDBPyConnection


@contextmanager
def connect(folder: Path, memory_mb: int) -> Iterator[Connection]:
    """Open an empty database that uses at most ``memory_mb`` of memory and spills the rest to ``folder``."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_mb}MB",
        "temp_directory": str(folder / "spilled"),
        "autoinstall_known_extensions": "false",
    }
    with duckdb.connect(config=config) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def forbid_access(connection: Connection, folder: Path | None = None) -> None:
    """Forbid statements to read and write files outside of a folder, the network, and the program's own variables.

    Args:
        connection: The database, for whose lifetime it is.
        folder: Where files can be read and written; nowhere if it is ``None``.
    """
    if folder is not None:
        connection.execute(f"SET allowed_directories = [{quote_literal(folder)}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET python_enable_replacements = false")


def names_in_condition(connection: Connection, condition: str) -> set[str]:
    """Return the names in an SQL condition that may be columns, as they are written; ``*`` stands for all columns.

    Raises:
        ValueError: It is no condition; the message is DuckDB's.
    """
    parsed: Any = None
    # In brackets it cannot go on with other clauses and statements, and without them it cannot end a bracket early. The
    # line breaks are there because it may end with a comment.
    for text in (f"SELECT 1 WHERE\n{condition}\n", f"SELECT 1 WHERE (\n{condition}\n)"):
        try:
            ((found,),) = connection.execute("SELECT json_serialize_sql(?)", [text]).fetchall()
        except duckdb.Error as error:
            raise ValueError(str(error)) from error
        parsed = json.loads(found)
        if parsed["error"]:
            raise ValueError(parsed["error_message"])
    names: set[str] = set()
    nodes = [parsed]
    while nodes:
        node = nodes.pop()
        if isinstance(node, Mapping):
            if node.get("class") == "SUBQUERY":
                raise ValueError("it has a query in it, but can only be about the columns of single rows")
            if node.get("class") == "STAR":
                names.add("*")
            if node.get("class") == "COLUMN_REF":
                names.update(node["column_names"])
            nodes.extend(node.values())
        elif isinstance(node, list):
            nodes.extend(node)
    return names


def quote_identifier(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(value: object) -> str:
    """Return the text of a value as an SQL literal."""
    return "'" + str(value).replace("'", "''") + "'"


class ColumnTypes(Mapping[str, str]):
    """The DuckDB type of each column by its name, which is found in upper and lower case alike, as in SQL."""

    def __init__(self, types: Mapping[str, str]) -> None:
        """Keep the types by names as they are written, of which no two differ in case only."""
        self._types = dict(types)
        self._folded = {fold_case(name): kind for name, kind in types.items()}

    def __getitem__(self, name: str) -> str:
        return self._folded[fold_case(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __len__(self) -> int:
        return len(self._types)


def column_types(connection: Connection, rows: str) -> ColumnTypes:
    """Return the DuckDB type of each column of a table or query, without the position columns."""
    types = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE {rows}").fetchall()}
    return ColumnTypes({name: kind for name, kind in types.items() if name not in POSITION_COLUMNS})


def scan_parquet_sql(files: Sequence[Path]) -> str:
    """Return SQL for the rows of Parquet files, with their position columns; the files' columns may differ.

    A column that the files have with different types is a number if all are numbers or booleans, otherwise text.
    """
    listed = _list_sql(files)
    # A file is identified by its number, because names are long and every sort would carry them.
    return (
        f"SELECT read.* EXCLUDE ({', '.join(SCAN_COLUMNS)}), files.number AS {FILE_NUMBER_COLUMN}, "
        f"read.{ROW_NUMBER_COLUMN} "
        f"FROM ({union_parquet_sql(files)}) read "
        f"JOIN (SELECT unnest([{listed}]) AS name, generate_subscripts([{listed}], 1) AS number) files "
        f"ON read.{FILE_NAME_COLUMN} = files.name"
    )


def union_parquet_sql(files: Sequence[Path]) -> str:
    """Return SQL for the rows of Parquet files, with each row's file and number there in :data:`SCAN_COLUMNS`.

    DuckDB casts whatever differs between files, except for times, which it does not make of numbers: files with times
    and those with numbers in their place are read apart, each as text. Columns of a file whose names differ in case
    only, which are of different models, become one: of a row at most one has a value.
    """
    schemas = {file: _read_schema(file) for file in files}
    kinds = {file: _kinds(schema) for file, schema in schemas.items()}
    kinds_of_name: dict[str, set[str]] = {}
    for kinds_of_file in kinds.values():
        for name, kind in kinds_of_file.items():
            kinds_of_name.setdefault(name, set()).add(kind)
    mixed = sorted(name for name, found in kinds_of_name.items() if {"time", "number"} <= found)
    groups: dict[tuple[str | None, ...], list[Path]] = {}
    for file in files:
        groups.setdefault(tuple(kinds[file].get(name) for name in mixed), []).append(file)
    selects = []
    for found, group in groups.items():
        values = {
            name: f"{quote_identifier(name)}::VARCHAR"
            for name in (name for name, kind in zip(mixed, found, strict=True) if kind is not None)
        }
        same = list(_same_columns(schemas[file] for file in group))
        values |= {each.name: each.value_sql for each in same}
        left_out = ", ".join(quote_identifier(other) for each in same for other in each.others)
        excluded = f" EXCLUDE ({left_out})" if left_out else ""
        replaced = ", ".join(f"{value} AS {quote_identifier(name)}" for name, value in values.items())
        selects.append(
            f"SELECT *{excluded}{f' REPLACE ({replaced})' if replaced else ''}, file_row_number AS {ROW_NUMBER_COLUMN} "
            f"FROM read_parquet([{_list_sql(group)}], union_by_name = true, filename = '{FILE_NAME_COLUMN}')"
        )
    return " UNION ALL BY NAME ".join(selects)


def _read_schema(file: Path) -> pa.Schema:
    """Return the schema of a Parquet file; an empty one if it is damaged."""
    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError):  # DuckDB is going to say it, and callers expect its errors
        return pa.schema([])


def _kinds(schema: pa.Schema) -> dict[str, str]:
    """Return for each column with times or numbers which of them it has."""
    return {
        field.name: "time" if pa.types.is_temporal(field.type) else "number"
        for field in schema
        if pa.types.is_primitive(field.type)
    }


class _SameColumns(NamedTuple):
    """Columns of a file whose names differ in case only."""

    name: str
    """The first one."""
    others: Sequence[str]
    """How DuckDB calls the others: it puts numbers behind their names."""
    types: frozenset[pa.DataType]

    @property
    def value_sql(self) -> str:
        """SQL for the value of the column that has one."""
        is_alike = len(self.types) == 1 or all(map(_is_number, self.types))
        cast = "" if is_alike else "::VARCHAR"
        return f"coalesce({', '.join(f'{quote_identifier(each)}{cast}' for each in (self.name, *self.others))})"


def _is_number(kind: pa.DataType) -> bool:
    is_number: bool = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)
    return is_number


def _same_columns(schemas: Iterable[pa.Schema]) -> Iterable[_SameColumns]:
    """Return the columns of files, read together, that a file has several times but for the case of their names."""
    found: dict[str, _SameColumns] = {}
    for schema in schemas:
        by_folded: dict[str, list[pa.Field]] = {}
        for field in schema:
            by_folded.setdefault(fold_case(field.name), []).append(field)
        for folded, (first, *others) in by_folded.items():
            known = found.get(folded, _SameColumns(first.name, (), frozenset()))
            names = [f"{field.name}_{number}" for number, field in enumerate(others, 1)]
            types = known.types | {field.type for field in (first, *others)}
            found[folded] = _SameColumns(known.name, max(known.others, names, key=len), types)
    return (each for each in found.values() if each.others)


def _list_sql(files: Iterable[Path]) -> str:
    return ", ".join(quote_literal(file) for file in files)


def try_cast_sql(name: str, types: Mapping[str, str], wanted: str) -> str:
    """Return SQL for a column cast to a type.

    The result is NULL if the column does not exist, if a value cannot be cast, and for NaN.
    """
    if name not in types:
        return f"NULL::{wanted}"
    value = quote_identifier(name)
    if types[name] != wanted:
        value = f"TRY_CAST({value} AS {wanted})"
    return f"nullif({value}, 'nan'::{wanted})" if wanted in FLOATS else value


def with_json_fields_sql(rows: str, types: Mapping[str, str], json_column: str, names: Sequence[str]) -> str:
    """Return SQL for rows with fields of a column of JSON objects as further columns of text.

    A row without the field has NULL. A name that is a column of the rows already is left as it is.
    """
    fields = [
        f"json_extract_string({quote_identifier(json_column)}, {quote_literal(_json_path(name))}) "
        f"AS {quote_identifier(name)}"
        for name in names
        if name not in types and json_column in types
    ]
    return f"SELECT {', '.join(['*', *fields])} FROM ({rows})"


def _json_path(name: str) -> str:
    """Return the path of a field in a JSON object, quoted, since a name may have any characters."""
    return f"$.{json.dumps(name, ensure_ascii=False)}"


def struct_sql(types: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """Return SQL for a struct of columns, each cast to its type.

    In a struct, users' column names cannot collide with the names of our own columns.
    """
    fields = (f"{quote_literal(name)}: {try_cast_sql(name, types, kind)}" for name, kind in wanted.items())
    return "{" + ", ".join(fields) + "}"


class CastFailures(NamedTuple):
    """The values of a column that cannot be cast to the wanted type."""

    values: int
    """How many they are."""
    example: str
    """The first of them in alphabetical order, as text."""
    wanted: str

    def describe(self, name: str, where: str, *, quote: bool = True) -> str:
        """Return a sentence for people: the column's name, the rows that it is about, and if wanted an example."""
        example = self.example if len(self.example) <= MAX_EXAMPLE_LENGTH else f"{self.example[:MAX_EXAMPLE_LENGTH]}…"
        values, verb = ("1 value", "is") if self.values == 1 else (f"{self.values:,} values", "are")
        such_as = f", such as {example!r}" if quote else ""
        return f"{values} of {name} in {where} {verb} no {type_in_words(self.wanted)}{such_as}"


def type_in_words(kind: str) -> str:
    """Return a DuckDB type in words for people."""
    if kind in INTEGERS:
        return "whole number"
    if kind in FLOATS or kind.startswith("DECIMAL"):
        return "number"
    if kind.startswith(("TIMESTAMP", "DATE")):
        return "time"
    return {"VARCHAR": "text", "BOOLEAN": "boolean"}.get(kind, kind.lower())


def find_cast_failures(
    connection: Connection, rows: str, types: Mapping[str, str], wanted: Mapping[str, str]
) -> dict[str, CastFailures]:
    """Find the values that cannot be cast to the wanted type, by column; columns without any are left out.

    A fraction cannot be cast to an integer type.

    Args:
        connection: the database.
        rows: SQL that follows FROM, such as a table with a WHERE clause.
        types: the columns' types in ``rows``.
        wanted: the types to cast to.
    """
    conditions = {}
    for name, kind in wanted.items():
        if types.get(name, kind) == kind:
            continue
        value = quote_identifier(name)
        cast = f"TRY_CAST({value} AS {kind})"
        rounded = f" OR TRY_CAST({value} AS DOUBLE) <> {cast}" if kind in INTEGERS else ""
        conditions[name] = f"{value} IS NOT NULL AND ({cast} IS NULL{rounded})"
    if not conditions:
        return {}
    columns = ", ".join(
        f"count(*) FILTER (WHERE {condition}), min({quote_identifier(name)}::VARCHAR) FILTER (WHERE {condition})"
        for name, condition in conditions.items()
    )
    (found,) = connection.execute(f"SELECT {columns} FROM {rows}").fetchall()
    return {
        name: CastFailures(count, example, wanted[name])
        for name, count, example in zip(conditions, found[::2], found[1::2], strict=True)
        if count
    }


def tail_by_label_sql(rows: str, order: Sequence[str], labelled: int) -> str:
    """Return SQL for the rows from the N-th last labelled row onwards; all rows if there are fewer.

    A row is labelled if its ``outcome`` is not NULL. ``order`` are the columns that define the order.
    """
    key, descending = ", ".join(order), ", ".join(f"{column} DESC" for column in order)
    first = (
        f"SELECT ({key}) FROM ({rows}) WHERE outcome IS NOT NULL ORDER BY {descending} LIMIT 1 OFFSET {labelled - 1}"
    )
    # Where there are fewer labelled rows, ``first`` is NULL, and so is the comparison.
    return f"SELECT * FROM ({rows}) WHERE (({key}) >= ({first})) IS NOT false"


def fetch_row(connection: Connection, query: str) -> tuple[int, ...]:
    """Return the only row of a query's result."""
    (row,) = connection.execute(query).fetchall()
    return tuple(row)


def copy_to_parquet(connection: Connection, query: str, path: Path) -> None:
    """Write a query's result to a Parquet file.

    The same result gives the same bytes, independent of memory and number of processors.
    """
    connection.execute(f"COPY ({query}) TO {quote_literal(path)} (FORMAT parquet, COMPRESSION zstd)")


def fetch_frame(connection: Connection, query: str) -> pd.DataFrame:
    """Return a query's result as a frame, in which a missing text is ``None``."""
    table: pa.Table = connection.sql(query).to_arrow_table()
    frame: pd.DataFrame = table.to_pandas()
    return frame
