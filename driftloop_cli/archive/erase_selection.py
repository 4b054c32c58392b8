"""Which rows of predictions and outcomes an erasure is about: by id, by key, or by a condition on columns."""

import threading
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from driftloop.archive.joined_rows import result_types
from driftloop.errors import InvalidInput
from driftloop.events import ID_COLUMN, KEY_COLUMN, MODEL_COLUMN, ROW_COLUMN, TIME_COLUMN, fold_case
from driftloop.privacy import NO_PRIVACY, Privacy, hash_value
from driftloop.storage.duckdb_sql import (
    Connection,
    column_types,
    connect,
    forbid_access,
    names_in_condition,
    quote_identifier,
    scan_parquet_sql,
    type_in_words,
)

MEMORY_MB = 512
HASH_FUNCTION = "hashed"
"""A function in conditions: the hash of a value, as private columns have it."""
NUMBER_COLUMN = "__number"

Mask = npt.NDArray[np.bool_]


class Condition:
    """A condition on columns in DuckDB's SQL, such as ``customer = 'x' AND amount > 100``."""

    def __init__(self, text: str, schemas: Iterable[pa.Schema], scratch: Path, privacy: Privacy = NO_PRIVACY) -> None:
        """Parse the condition and check it against the columns that there are.

        Args:
            text: The condition.
            schemas: The schemas of all files of the archive.
            scratch: A folder for schemas, and for what does not fit into memory.
            privacy: Its hash key is that of the function ``hashed``.

        Raises:
            InvalidInput: It is no condition on these columns; if DuckDB says so, in its words.
        """
        self._text = text
        self._lock = threading.Lock()
        self._context = connect(scratch, MEMORY_MB)
        self._connection: Connection = self._context.__enter__()
        self._types = _types_in_conditions(self._connection, schemas, scratch)
        if privacy.hash_key:
            _create_hash_function(self._connection, privacy.hash_key)
        forbid_access(self._connection)
        self.columns = self._used_columns()
        self.mask(pa.table({}))
        self._require_yes_or_no()

    def close(self) -> None:
        """Free the memory."""
        self._context.__exit__(None, None, None)

    def mask(self, rows: pa.Table) -> Mask:
        """Return which rows fulfil the condition; a column that they do not have is NULL in all of them."""
        found = np.zeros(len(rows), bool)
        try:
            with self._lock:  # files are searched in several threads
                query = f"SELECT {NUMBER_COLUMN} FROM {self._register(rows)} WHERE (\n{self._text}\n)"  # noqa: S608  # the operator's own
                found[self._connection.execute(query).fetchnumpy()[NUMBER_COLUMN]] = True
        except duckdb.Error as error:
            raise InvalidInput(f"--where: {error}") from error
        return found

    def _register(self, rows: pa.Table) -> str:
        """Return SQL for rows with the condition's columns, each with its type, and the rows' numbers.

        Of columns of different models whose names differ in case only, each row has a value in at most one.
        """
        given = {f"c{position}": rows.column(position) for position in range(rows.num_columns)}
        self._connection.register("given", pa.table({**given, NUMBER_COLUMN: pa.array(range(len(rows)), pa.int64())}))
        fields = [NUMBER_COLUMN]
        for name in self.columns:
            same = [f"c{at}" for at, each in enumerate(rows.column_names) if fold_case(each) == fold_case(name)]
            values = ", ".join(f"{each}::{self._types[name]}" for each in [*same, "NULL"])
            fields.append(f"coalesce({values}) AS {quote_identifier(name)}")
        return f"(SELECT {', '.join(fields)} FROM given)"  # noqa: S608  # quoted

    def _require_yes_or_no(self) -> None:
        """Refuse a number or a text: DuckDB would take each that is not 0 for yes, and so erase nearly all rows."""
        query = f"SELECT (\n{self._text}\n) FROM {self._register(pa.table({}))}"  # noqa: S608  # the operator's own
        kinds = {str(column[1]) for column in self._connection.execute(query).description} - {"BOOLEAN"}
        if kinds:
            raise InvalidInput(
                f"--where: it is no condition but a value ({', '.join(sorted(kinds))}); compare it with something"
            )

    def _used_columns(self) -> list[str]:
        try:
            names = names_in_condition(self._connection, self._text)
        except ValueError as error:
            raise InvalidInput(f"--where: {error}") from error
        named = {fold_case(name) for name in names}
        return [name for name in self._types if fold_case(name) in named or "*" in named]


def _types_in_conditions(connection: Connection, schemas: Iterable[pa.Schema], scratch: Path) -> dict[str, str]:
    """Return the DuckDB type of each column, as conditions of :func:`driftloop.archive.read` have it."""
    folder = scratch / "schemas"
    folder.mkdir()
    files = []
    for number, schema in enumerate({str(each): each for each in map(pa.Schema.remove_metadata, schemas)}.values()):
        files.append(folder / f"{number}.parquet")
        pq.write_table(schema.empty_table(), files[-1])
    return result_types(column_types(connection, scan_parquet_sql(files)) if files else {})


def _create_hash_function(connection: Connection, hash_key: bytes) -> None:
    def hash_text(kind: str, text: str) -> str | None:
        return hash_value(hash_key, _value_of(kind, text))

    connection.create_function("__hash_text", hash_text, ["VARCHAR", "VARCHAR"], "VARCHAR")  # it takes no other types
    connection.execute(f"CREATE MACRO {HASH_FUNCTION}(value) AS __hash_text(typeof(value), value::VARCHAR)")


def _value_of(kind: str, text: str) -> object:
    """Return the value of a DuckDB type whose text this is."""
    match type_in_words(kind):
        case "text":
            return text
        case "boolean":
            return text == "true"
        case "whole number":
            return int(text)
        case "number":
            return float(text)
        case "time":
            return datetime.fromisoformat(text)
    raise ValueError(f"a value of the type {kind} cannot be hashed")


def column_values(rows: pa.Table, name: str, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """Return the values of a column, in a type; nulls if there is none. The name's case does not matter, as in SQL.

    Of columns of different models whose names differ in case only, each row has a value in at most one.
    """
    same = [each for each in rows.column_names if fold_case(each) == fold_case(name)]
    values = [rows[each] if rows[each].type == kind else rows[each].cast(kind, safe=False) for each in same]
    return pc.coalesce(*values) if values else pa.nulls(len(rows), kind)


def common_types(schemas: Iterable[pa.Schema]) -> dict[str, pa.DataType]:
    """Return a type for each column of files that may differ: integers with floats are floats, other mixtures text.

    Names that differ in case only are one column, called as in the first file that has it.
    """
    found: dict[str, tuple[str, set[pa.DataType]]] = {}
    for schema in schemas:
        for column in schema:
            found.setdefault(fold_case(column.name), (column.name, set()))[1].add(column.type)
    types = {}
    for name, kinds in found.values():
        known = {kind for kind in kinds if not pa.types.is_null(kind)}
        if len(known) <= 1:
            types[name] = next(iter(known), pa.string())
        elif all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in known):
            types[name] = pa.float64()
        else:
            types[name] = pa.string()
    return types


@dataclass(frozen=True)
class PredictionSelection:
    """The rows of predictions that are looked for."""

    ids: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    condition: Condition | None = None
    model: str | None = None
    """The only model; ``None`` for all."""

    @property
    def columns(self) -> list[str]:
        """The columns that :meth:`mask` needs, of those that there are."""
        return [ID_COLUMN, KEY_COLUMN, MODEL_COLUMN, *(self.condition.columns if self.condition else ())]

    @cached_property
    def sorted_values(self) -> dict[str, Sequence[str]]:
        """By column, sorted values of which a row has one; none if it is not known."""
        return {name: sorted(values) for name, values in ((ID_COLUMN, self.ids), (KEY_COLUMN, self.keys)) if values}

    def mask(self, rows: pa.Table) -> Mask:
        """Return which rows are meant."""
        found = np.zeros(len(rows), bool)
        if self.ids:
            found |= is_in(rows, ID_COLUMN, self.ids)
        if self.keys:
            found |= is_in(rows, KEY_COLUMN, self.keys)
        if self.condition is not None:
            found |= self.condition.mask(rows)
        return found if self.model is None else found & is_in(rows, MODEL_COLUMN, {self.model})


KeyedRow = tuple[int, str, int]
"""Time in nanoseconds since 1970, id and row number of a row with a key."""


@dataclass(frozen=True)
class OutcomeSelection:
    """The outcomes that are erased: of erased rows, and those that name what was asked for."""

    ids: frozenset[str] = frozenset()
    """Ids that were asked for: all outcomes with one, also if its prediction is gone."""
    keys: frozenset[str] = frozenset()
    """The same of keys."""
    model: str | None = None
    """The only model of keys; ``None`` for all."""
    rows: frozenset[tuple[str, int]] = frozenset()
    """Ids and row numbers of erased rows."""
    rows_of_keys: Mapping[tuple[str, str], list[KeyedRow]] = field(default_factory=dict)
    """By model and key of erased rows, all rows of that key, in the order of time."""

    @property
    def columns(self) -> list[str]:
        """The columns that :meth:`mask` needs."""
        return [ID_COLUMN, ROW_COLUMN, TIME_COLUMN, MODEL_COLUMN, KEY_COLUMN]

    @cached_property
    def _values(self) -> dict[str, frozenset[str]]:
        ids = self.ids.union(event_id for event_id, _ in self.rows)
        keys = self.keys.union(key for _, key in self.rows_of_keys)
        return {name: values for name, values in ((ID_COLUMN, ids), (KEY_COLUMN, keys)) if values}

    @cached_property
    def sorted_values(self) -> dict[str, Sequence[str]]:
        """By column, sorted values of which an outcome has one."""
        return {name: sorted(values) for name, values in self._values.items()}

    def mask(self, rows: pa.Table) -> Mask:
        """Return which outcomes are meant."""
        found = np.zeros(len(rows), bool)
        if self.ids:
            found |= is_in(rows, ID_COLUMN, self.ids)
        if self.keys:
            named = is_in(rows, KEY_COLUMN, self.keys)
            found |= named if self.model is None else named & is_in(rows, MODEL_COLUMN, {self.model})
        candidates = np.zeros(len(rows), bool)
        for name, values in self._values.items():
            candidates |= is_in(rows, name, values)
        for index in np.flatnonzero(candidates & ~found):
            outcome = {name: rows[name][int(index)] for name in self.columns}
            found[index] = self._is_of_erased_row(outcome)
        return found

    def _is_of_erased_row(self, outcome: Mapping[str, pa.Scalar]) -> bool:
        """Return whether an outcome belongs to an erased row: by its id, or as the last row of its key before it."""
        event_id, row = outcome[ID_COLUMN].as_py(), outcome[ROW_COLUMN].as_py()
        if event_id is not None:
            return (event_id, row) in self.rows
        of_key = self.rows_of_keys.get((outcome[MODEL_COLUMN].as_py(), outcome[KEY_COLUMN].as_py()), [])
        before = [each for each in of_key if each[0] <= outcome[TIME_COLUMN].value]
        return bool(before) and before[-1][1:] in self.rows


def is_in(rows: pa.Table, column: str, values: Set[str]) -> Mask:
    """Return which rows have one of some values in a column, which may be missing."""
    if column not in rows.column_names or pa.types.is_null(rows[column].type):
        return np.zeros(len(rows), bool)
    if len(values) > len(rows):  # Arrow would hash all of them again for each part of each file
        return np.fromiter((value in values for value in rows[column].to_pylist()), bool, len(rows))
    mask: Mask = pc.is_in(rows[column], pa.array(values, pa.string())).to_numpy()
    return mask
