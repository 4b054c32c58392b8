"""DuckDB, as the archive and datasets are read with it: within a limit of memory, and without a network.

Words of SQL are made here. A name or a text from elsewhere goes through :func:`quoted` or :func:`text`.
"""

# ruff: noqa: S608  # see above

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa

TIME = "TIMESTAMPTZ_NS"  # what pandas has
INTEGERS = frozenset(f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")) | {
    "INTEGER",
    "UINTEGER",
}
FLOATS = frozenset({"FLOAT", "DOUBLE"})
NUMBERS = INTEGERS | FLOATS | {"BOOLEAN"}

PLACE = ("__file", "__row")
"""Which of several files a row is of, and where in it."""

Connection = duckdb.DuckDBPyConnection


@contextmanager
def connected(folder: Path, memory_mb: int) -> Iterator[Connection]:
    """An empty database that may take so much memory; what does not fit goes below ``folder``."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_mb}MB",
        "temp_directory": str(folder / "spilled"),
        "autoinstall_known_extensions": "false",
    }
    with duckdb.connect(config=config) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def quoted(name: str) -> str:
    """A column's name."""
    return '"' + name.replace('"', '""') + '"'


def text(value: object) -> str:
    """A text."""
    return "'" + str(value).replace("'", "''") + "'"


def columns(connection: Connection, rows: str) -> dict[str, str]:
    """The types of a table's or an answer's columns, by name."""
    found = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE {rows}").fetchall()}
    return {name: kind for name, kind in found.items() if name not in PLACE}


def scan(files: Iterable[Path]) -> str:
    """The rows of Parquet files, whose columns may differ, with their place."""
    listed = ", ".join(text(file) for file in files)
    # The file as a number: names are long, and go through every sort.
    return (
        f"SELECT read.*, number AS __file, read.file_row_number AS __row "
        f"FROM read_parquet([{listed}], union_by_name = true) read "
        f"JOIN (SELECT unnest([{listed}]) AS name, generate_subscripts([{listed}], 1) AS number) "
        "ON read.filename = name"
    )


def cast(name: str, found: Mapping[str, str], kind: str) -> str:
    """A column as a type: missing where there is none, where a value does not fit it, and where it is not a number."""
    if name not in found:
        return f"NULL::{kind}"
    cell = quoted(name) if found[name] == kind else f"TRY_CAST({quoted(name)} AS {kind})"
    return f"nullif({cell}, 'nan'::{kind})" if kind in FLOATS else cell


def struct(found: Mapping[str, str], kinds: Mapping[str, str]) -> str:
    """Columns as one, each as its type, so that no name of theirs meets one of ours."""
    return "{" + ", ".join(f"{text(name)}: {cast(name, found, kind)}" for name, kind in kinds.items()) + "}"


def unfit(connection: Connection, rows: str, found: Mapping[str, str], kinds: Mapping[str, str]) -> dict[str, int]:
    """How many values of ``rows``, which follow a FROM, do not fit their column's type, by column.

    A fraction does not fit an integer.
    """
    conditions = {}
    for name, kind in kinds.items():
        if found.get(name, kind) == kind:
            continue
        cell, fits = quoted(name), f"TRY_CAST({quoted(name)} AS {kind})"
        rounded = f" OR TRY_CAST({cell} AS DOUBLE) <> {fits}" if kind in INTEGERS else ""
        conditions[name] = f"{cell} IS NOT NULL AND ({fits} IS NULL{rounded})"
    if not conditions:
        return {}
    counts = ", ".join(f"count(*) FILTER (WHERE {condition})" for condition in conditions.values())
    return {
        name: count
        for name, count in zip(conditions, one(connection, f"SELECT {counts} FROM {rows}"), strict=True)
        if count
    }


def last(rows: str, order: Sequence[str], labelled: int) -> str:
    """What of rows follows from the so-manieth last one with an ``outcome`` on; all of them where there are fewer."""
    place, back = ", ".join(order), ", ".join(f"{column} DESC" for column in order)
    first = f"SELECT ({place}) FROM ({rows}) WHERE outcome IS NOT NULL ORDER BY {back} LIMIT 1 OFFSET {labelled - 1}"
    return f"SELECT * FROM ({rows}) WHERE (({place}) >= ({first})) IS NOT false"


def one(connection: Connection, query: str) -> tuple[int, ...]:
    """The only row of an answer."""
    (row,) = connection.execute(query).fetchall()
    return tuple(row)


def copy(connection: Connection, query: str, path: Path) -> None:
    """Writes an answer as a Parquet file: the same answer, the same bytes, whatever the memory and processors."""
    connection.execute(f"COPY ({query}) TO {text(path)} (FORMAT parquet, COMPRESSION zstd)")


def frame(connection: Connection, query: str) -> pd.DataFrame:
    """An answer as a frame; a missing text is ``None``."""
    table: pa.Table = connection.sql(query).to_arrow_table()
    found: pd.DataFrame = table.to_pandas()
    return found
