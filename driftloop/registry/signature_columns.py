"""The columns of a model's signature, and how the values of their types are represented."""

from collections import Counter
from collections.abc import Hashable
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple, NotRequired, Required

import numpy as np
from mlflow.models import ModelSignature
from mlflow.types.schema import DataType
from pydantic import AfterValidator, BeforeValidator, Field

from driftloop.events import describe_conflict, parse_iso_time
from driftloop.registry.loading import ModelRejected

MAX_FLOAT32 = float(np.finfo(np.float32).max)
MAX_EXACT_INTEGER = 2**53
"""Integers above it, or below its negative, are rounded when a missing value makes their column one of floats."""


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


def signature_columns(signature: ModelSignature) -> list[Column]:
    """Return the columns of a version's signature, in their order.

    The columns of a matrix, which have no names, are called ``x0``, ``x1`` and so on, as scikit-learn does. Names
    that are numbers, as those of ``pd.DataFrame(array)``, are served as text.

    Raises:
        ModelRejected: The signature is not a table of named columns of supported types, or has names that the archive
            cannot have.
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
    if conflict := describe_conflict(list(counts)):
        raise ModelRejected(f"the signature has {conflict}: rename the columns, and log the model again")
    return columns
