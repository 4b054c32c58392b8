"""The request schema of a model: built from its signature, it converts JSON rows to columns and columns to a frame."""

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any, NamedTuple, NotRequired, Required

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types.schema import DataType
from pydantic import AfterValidator, BeforeValidator, ConfigDict, FailFast, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from driftloop.errors import InvalidInput
from driftloop.events import RESERVED_COLUMNS, FeatureValue, parse_iso_time
from driftloop.registry.loading import ModelRejected
from predictor.serving.annotations import FIELDS, STRICT, Annotations, typed_dict
from predictor.serving.fitted_transformers import MissingValue

Columns = dict[str, list[FeatureValue]]
"""Values by column; all columns have the same length."""

MAX_FLOAT32 = float(np.finfo(np.float32).max)
MAX_EXACT_INTEGER = 2**53
"""Integers above it, or below its negative, are rounded when a missing value makes their column one of floats."""


class ParsedRequest(NamedTuple):
    """The rows of a request in JSON, and what was sent along with them."""

    columns: Columns
    annotations: Annotations


class InvalidCell(InvalidInput):
    """A value does not fit its column; the message names column and row."""


class MissingColumn(InvalidCell):
    """A request lacks a required column."""


class UnrepresentableValue(InvalidInput):
    """A frame cannot hold a request's value exactly; the message names row and column."""


def _to_naive_utc(time: datetime) -> datetime:
    """Convert a datetime with a time zone to UTC and remove the zone, because MLflow's datetimes have none."""
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


class ColumnType(NamedTuple):
    """How values of an MLflow type are represented in JSON, in a frame and in a tensor."""

    json_type: Any
    """The Python type, with bounds, that JSON values are validated against."""
    dtype: str
    """The dtype of a column without missing values."""
    nullable_dtype: str
    """The dtype of a column with missing values."""
    tensor_datatype: str
    """The datatype in the Open Inference Protocol."""


COLUMN_TYPES: dict[DataType, ColumnType] = {
    DataType.double: ColumnType(float, "float64", "float64", "FP64"),
    DataType.float: ColumnType(Annotated[float, Field(ge=-MAX_FLOAT32, le=MAX_FLOAT32)], "float32", "float32", "FP32"),
    DataType.long: ColumnType(Annotated[int, Field(ge=-(2**63), lt=2**63)], "int64", "float64", "INT64"),
    DataType.integer: ColumnType(Annotated[int, Field(ge=-(2**31), lt=2**31)], "int32", "float64", "INT32"),
    DataType.boolean: ColumnType(bool, "bool", "object", "BOOL"),
    DataType.string: ColumnType(str, "object", "object", "BYTES"),
    DataType.datetime: ColumnType(
        # the range of nanoseconds since 1970 in 64 bits
        Annotated[
            datetime,
            BeforeValidator(parse_iso_time),
            AfterValidator(_to_naive_utc),
            Field(ge=datetime(1678, 1, 1), lt=datetime(2262, 1, 1)),
        ],
        "datetime64[ns]",
        "datetime64[ns]",
        "BYTES",
    ),
}
MATRIX_TYPES = {"float64": DataType.double, "float32": DataType.float, "int64": DataType.long}


def list_adapter(item_type: Any, *, allow_inf_nan: bool) -> TypeAdapter[Any]:
    """Return a validator of lists that is strict about the item type and stops at the first invalid item."""
    items = Annotated[list[item_type], FailFast()]
    return TypeAdapter(items, config=ConfigDict(strict=True, allow_inf_nan=allow_inf_nan))


class Column(NamedTuple):
    """A column of a signature."""

    name: str
    """The name in requests, events and metadata."""
    type: ColumnType
    required: bool
    label: Hashable
    """The name in the frame that the estimator was fitted on, which may be a number."""
    nullable: bool
    """Whether a value may be null: in every optional column, and in a matrix of floats, which holds NaN."""

    @property
    def is_text(self) -> bool:
        """Whether the values are texts."""
        return self.type.json_type is str

    @property
    def row_field(self) -> Any:
        """The type of the column's field in a row."""
        value = self.type.json_type | None if self.nullable else self.type.json_type
        return Required[value] if self.required else NotRequired[value]


class Schema:
    """The columns of one model version, and conversions between requests, columns and frames."""

    def __init__(self, columns: Sequence[Column], max_rows: int, *, is_matrix: bool) -> None:
        """Create the schema.

        Args:
            columns: The signature's columns, in order.
            max_rows: The most rows that a request may have.
            is_matrix: Whether the estimator takes an array instead of a frame.
        """
        self.columns = {column.name: column for column in columns}
        self.is_matrix = is_matrix
        self.missing_values: Mapping[str, MissingValue] = {}
        """The object that stands for a missing value in the frame, by column of objects; by default NaN."""
        self._widened_by_nulls = [
            column.name for column in columns if column.type.nullable_dtype != column.type.dtype and not column.required
        ]
        self._column_adapters: dict[str, TypeAdapter[Any]] = {
            column.name: list_adapter(column.type.json_type | None, allow_inf_nan=False) for column in columns
        }
        row_type = typed_dict(
            "Instance",
            {column.name: column.row_field for column in columns},
            STRICT,
        )
        request_type = typed_dict(
            "Instances",
            {"instances": Annotated[list[row_type], Field(min_length=1, max_length=max_rows)], **FIELDS},  # type: ignore[valid-type]
            STRICT,
        )
        self.request_adapter: TypeAdapter[Any] = TypeAdapter(request_type)
        """Validates ``{"instances": [row, …]}`` with rows typed by the signature, and keys and context beside them.
        Unknown fields are errors, because they are probably misspelt."""

    def parse(self, body: bytes | str) -> ParsedRequest:
        """Parse a request in JSON.

        Raises:
            pydantic.ValidationError: The request is invalid; the error names instance and field.
            InvalidAnnotations: The context has too many columns.
        """
        request = self.request_adapter.validate_json(body)
        rows = request["instances"]
        columns = {name: [row.get(name) for row in rows] for name in self.columns}
        return ParsedRequest(columns, Annotations.from_fields(request))

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """The JSON schema of a request, with its parts under ``$defs``."""
        return self.request_adapter.json_schema(ref_template="#/components/schemas/{model}")

    def frame_to_columns(self, frame: pd.DataFrame | npt.NDArray[Any]) -> Columns:
        """Convert a frame or an array to columns; missing values become ``None``, as do all values of absent columns.

        Raises:
            InvalidCell: An event cannot represent a value, because it is infinite or is not of the column's type.
        """
        if isinstance(frame, np.ndarray):
            frame = pd.DataFrame(frame, columns=list(self.columns))
        columns: Columns = {}
        for name in self.columns:
            label = self.columns[name].label if self.columns[name].label in frame else name
            if label not in frame:
                columns[name] = [None] * len(frame)
                continue
            column = frame[label]
            if column.dtype.kind == "f" and np.isinf(column).any():
                raise InvalidCell(f"the column {name} has an infinite value")
            cells = [None if is_na else cell for cell, is_na in zip(column.tolist(), column.isna(), strict=True)]
            columns[name] = self.validate_cells(name, cells) if column.dtype == object else cells
        return columns

    def validate_cells(self, name: str, cells: Sequence[Any]) -> list[FeatureValue]:
        """Return the values of a column in its type.

        Raises:
            InvalidCell: A value is of another type or out of range, or is a text that UTF-8 cannot encode.
        """
        try:
            validated: list[FeatureValue] = self._column_adapters[name].validate_python(cells)
            to_json(validated)
        except ValidationError as error:
            (detail,) = error.errors()
            raise InvalidCell(f"the column {name}, row {detail['loc'][0]}: {detail['msg']}") from error
        except PydanticSerializationError as error:  # an unpaired surrogate
            raise InvalidCell(f"the column {name} has a string that is not valid Unicode") from error
        return validated

    def columns_to_frame(self, columns: Columns) -> pd.DataFrame | npt.NDArray[Any]:
        """Convert columns to the frame, or the matrix, that the estimator takes.

        Raises:
            UnrepresentableValue: A missing value makes a column of integers one of floats, which would round another.
        """
        arrays = {column.label: self._to_array(columns[name], column) for name, column in self.columns.items()}
        if self.is_matrix:
            return np.column_stack(list(arrays.values()))
        return pd.DataFrame(arrays, copy=False)

    def widened_columns(self, columns: Columns) -> tuple[str, ...]:
        """Return the columns whose dtype in the frame is another one because they have a missing value.

        Rows of requests that differ in this do not belong into one frame: one request's missing value would change the
        numbers of another.
        """
        return tuple(name for name in self._widened_by_nulls if None in columns[name])

    def _to_array(self, cells: list[FeatureValue], column: Column) -> npt.NDArray[Any]:
        column_type = column.type
        if column_type.dtype.startswith(("float", "datetime")) or None not in cells:  # the former read None as missing
            return np.array(cells, dtype=column_type.dtype)
        if column_type.nullable_dtype == "object":
            missing_value = None if self.missing_values.get(column.name) == "none" else math.nan
            return np.array([missing_value if cell is None else cell for cell in cells], dtype=object)
        for row, cell in enumerate(cells):
            if cell is not None and abs(cell) > MAX_EXACT_INTEGER:  # type: ignore[arg-type]  # integers
                raise UnrepresentableValue(
                    f"row {row}, column {column.name}: {cell} is rounded in a column with a missing value: send the "
                    "rows with missing values in another request"
                )
        return np.array(cells, dtype=column_type.nullable_dtype)

    def incompatibilities_with(self, new: "Schema") -> list[str]:
        """Return why requests that are valid under this schema would fail under ``new``; empty if none would."""
        reasons = [f"the column {name} is missing" for name in self.columns if name not in new.columns]
        for name, column in new.columns.items():
            old = self.columns.get(name)
            if old is None:
                if column.required:
                    reasons.append(f"the new column {name} is required")
            elif column.required and not old.required:
                reasons.append(f"the column {name} has become required")
            elif column.type != old.type:
                reasons.append(f"the column {name} has changed its type from {old.type.dtype} to {column.type.dtype}")
        return reasons


def build_schema(signature: ModelSignature, max_rows: int) -> Schema:
    """Build the schema of a version from its signature.

    The columns of a matrix, which have no names, are called ``x0``, ``x1`` and so on, as scikit-learn does. Names
    that are numbers, as those of ``pd.DataFrame(array)``, are served as text.

    Raises:
        ModelRejected: The signature is not a table of named columns of supported types, or uses a reserved name.
    """
    inputs = signature.inputs
    try:
        if inputs.is_tensor_spec():
            (matrix,) = inputs.inputs
            _, width = matrix.shape
            column_type = COLUMN_TYPES[
                DataType[{"float64": "double", "float32": "float", "int64": "long"}[str(matrix.type)]]
            ]
            nullable = column_type.dtype.startswith("float")
            columns = [Column(f"x{i}", column_type, True, i, nullable) for i in range(width)]
        elif not inputs.has_input_names():
            raise ModelRejected("the signature's columns have no names")
        else:
            columns = [
                Column(str(column.name), COLUMN_TYPES[column.type], column.required, column.name, not column.required)
                for column in inputs
            ]
    except (KeyError, ValueError, TypeError) as error:
        raise ModelRejected(f"the signature has a column of an unsupported type: {error}") from error
    if any(not column.name for column in columns):
        raise ModelRejected("the signature has a column whose name is empty: name it, and log the model again")
    counts = Counter(column.name for column in columns)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise ModelRejected(f"the signature has several columns whose names read {', '.join(repeated)}")
    if conflicts := RESERVED_COLUMNS & {column.name for column in columns}:
        raise ModelRejected(
            f"the signature has columns named {', '.join(sorted(conflicts))}, and the archive has columns of its own "
            f"with the names {', '.join(sorted(RESERVED_COLUMNS))}: rename the columns, and log the model again"
        )
    return Schema(columns, max_rows, is_matrix=inputs.is_tensor_spec())
