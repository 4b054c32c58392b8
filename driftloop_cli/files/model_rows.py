"""Rows of a Parquet file as a model takes them, and as its events hold them.

A value is converted if the result says the same; otherwise it is an error that names row and column. Columns are
converted as a whole. The estimator gets the same values from a file as from the predictor's requests: see the table of
types in docs/predictor.md.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from mlflow.models import ModelSignature

from driftloop.errors import InvalidInput
from driftloop.registry.fitted_transformers import MissingValue
from driftloop.registry.signature_columns import MAX_EXACT_INTEGER, MAX_FLOAT32, Column, signature_columns

EVENT_TYPES = {
    "float64": pa.float64(),
    "float32": pa.float64(),  # as in a request: the estimator gets the nearest float32
    "int64": pa.int64(),
    "int32": pa.int32(),
    "bool": pa.bool_(),
    "object": pa.string(),
    "datetime64[ns]": pa.timestamp("ns"),
}
"""The Arrow type of a column's values, by the dtype of the signature's column."""


class ModelRows(NamedTuple):
    """Rows in the types of a model's columns."""

    columns: Mapping[str, Column]
    values: Mapping[str, pa.Array]
    """Values by the name of the column; null where they are missing."""
    first_row: int
    """The number of the first of the rows in the file, from 0."""
    missing_values: Mapping[str, MissingValue]
    """The object that stands for a missing value, by column of objects; by default NaN."""
    is_matrix: bool

    def to_frame(self) -> pd.DataFrame | npt.NDArray[Any]:
        """Return the frame, or the matrix, that the estimator takes.

        Raises:
            InvalidInput: A missing value makes a column of integers one of floats, which would round another.
        """
        arrays = {column.label: self._to_array(name, column) for name, column in self.columns.items()}
        return np.column_stack(list(arrays.values())) if self.is_matrix else pd.DataFrame(arrays, copy=False)

    def to_lists(self, start: int, end: int) -> dict[str, list[Any]]:
        """Return the values of some rows by column, as :func:`pydantic_core.to_json` takes them; NaN is missing."""
        return {name: _to_list(values.slice(start, end - start)) for name, values in self.values.items()}

    def _to_array(self, name: str, column: Column) -> npt.NDArray[Any]:
        values, dtype = self.values[name], column.type.dtype
        if dtype in ("int64", "int32") and values.null_count:
            self._require_exact(name, values)
        array: npt.NDArray[Any] = values.to_numpy(zero_copy_only=False)
        if array.dtype == object and values.null_count and self.missing_values.get(name) != "none":
            array = np.where(values.is_null().to_numpy(zero_copy_only=False), math.nan, array)
        return array.astype(np.float32) if dtype == "float32" else array

    def _require_exact(self, name: str, values: pa.Array) -> None:
        too_large = pc.or_(pc.greater(values, MAX_EXACT_INTEGER), pc.less(values, -MAX_EXACT_INTEGER))
        if (position := pc.index(too_large, True).as_py()) >= 0:
            raise InvalidInput(
                f"row {self.first_row + position + 1}, column {name}: {values[position]} is rounded in a column with a "
                "missing value: have the rows with missing values scored as a file of their own"
            )


class RowConverter:
    """Converts batches of rows to the types of a model's signature."""

    def __init__(self, signature: ModelSignature) -> None:
        """Read the signature.

        Raises:
            ModelRejected: It is not a table of named columns of supported types.
        """
        self.columns = {column.name: column for column in signature_columns(signature)}
        self.missing_values: Mapping[str, MissingValue] = {}
        """The object that stands for a missing value in the frame, by column of objects; by default NaN."""
        self._is_matrix = signature.inputs.is_tensor_spec()

    @property
    def optional_object_columns(self) -> list[str]:
        """The columns of objects that may have missing values."""
        return [n for n, column in self.columns.items() if column.type.nullable_dtype == "object" and column.nullable]

    def require_columns(self, schema: pa.Schema) -> None:
        """Raise :class:`InvalidInput` unless a file has all required columns, in types that can be converted."""
        problems = [
            f"there is no column {name}"
            for name, column in self.columns.items()
            if column.required and name not in schema.names
        ]
        for name, column in self.columns.items():
            if name in schema.names and not _is_convertible(kind := schema.field(name).type, column):
                problems.append(f"the column {name} has the type {kind}, and the model takes {column.type.dtype}")
        if problems:
            raise InvalidInput("; ".join(problems))

    def convert(self, batch: pa.RecordBatch, first_row: int) -> ModelRows:
        """Convert rows; optional columns that they do not have are missing.

        Args:
            batch: The rows, which may have other columns besides.
            first_row: The number of the first of them in the file, from 0.

        Raises:
            InvalidInput: A value does not fit its column, or is missing where one is required.
        """
        values = {}
        for name, column in self.columns.items():
            if name not in batch.schema.names:
                values[name] = pa.nulls(len(batch), EVENT_TYPES[column.type.dtype])
                continue
            values[name] = _convert(batch.column(name), column, first_row)
            if values[name].null_count and not column.nullable:
                row = first_row + pc.index(values[name].is_null(), True).as_py() + 1
                raise InvalidInput(f"row {row}, column {name}: a value is required")
        return ModelRows(self.columns, values, first_row, self.missing_values, self._is_matrix)


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_convertible(kind: pa.DataType, column: Column) -> bool:
    types, value = pa.types, _value_type(kind)
    is_number = types.is_integer(value) or types.is_floating(value) or types.is_decimal(value)
    match column.type.dtype:
        case "object":
            return bool(types.is_string(value) or types.is_large_string(value) or types.is_null(value))
        case "bool":
            return bool(types.is_boolean(value) or is_number or types.is_null(value))
        case "datetime64[ns]":
            return bool(types.is_timestamp(value) or types.is_date(value) or types.is_null(value))
    return bool(is_number or types.is_null(value))


def _convert(values: pa.Array, column: Column, first_row: int) -> pa.Array:
    """Return values in the type that events have them in; NaN becomes null."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    dtype, wanted = column.type.dtype, EVENT_TYPES[column.type.dtype]
    if dtype == "bool" and not pa.types.is_boolean(values.type):
        _require(pc.or_kleene(pc.equal(values, 0), pc.equal(values, 1)), values, column, first_row, "is not 0 or 1")
    try:
        converted = pc.cast(values, wanted)
    except pa.ArrowInvalid:
        row = _first_failure(values, lambda part: pc.cast(part, wanted))
        raise _invalid_cell(values, row, column, first_row, f"does not fit the type {dtype}") from None
    if dtype in ("float64", "float32"):
        limit = MAX_FLOAT32 if dtype == "float32" else math.inf
        is_valid = pc.and_kleene(pc.is_finite(converted), pc.less_equal(pc.abs(converted), limit))
        _require(is_valid, values, column, first_row, f"is no finite {dtype}")
    return converted


def _require(is_valid: pa.Array, values: pa.Array, column: Column, first_row: int, problem: str) -> None:
    row = pc.index(is_valid, False).as_py()
    if row >= 0:
        raise _invalid_cell(values, row, column, first_row, problem)


def _invalid_cell(values: pa.Array, row: int, column: Column, first_row: int, problem: str) -> InvalidInput:
    return InvalidInput(f"row {first_row + row + 1}, column {column.name}: {values[row].as_py()!r} {problem}")


def _first_failure(values: pa.Array, convert: Callable[[pa.Array], Any]) -> int:
    """Return the position of the first value that cannot be converted, of values of which one cannot."""
    start, count = 0, len(values)
    while count > 1:
        half = count // 2
        try:
            convert(values.slice(start, half))
        except pa.ArrowInvalid:
            count = half
        else:
            start, count = start + half, count - half
    return start


def _to_list(values: pa.Array) -> list[Any]:
    """Return values as Python's own, much faster than Arrow does."""
    if pa.types.is_timestamp(values.type):
        array = values.to_numpy(zero_copy_only=False).astype("datetime64[us]").astype(object)
    elif pa.types.is_integer(values.type) and values.null_count:
        array = pc.fill_null(values, 0).to_numpy(zero_copy_only=False).astype(object)
        array[values.is_null().to_numpy(zero_copy_only=False)] = None
    else:
        array = values.to_numpy(zero_copy_only=False)
    result: list[Any] = array.tolist()
    return result
