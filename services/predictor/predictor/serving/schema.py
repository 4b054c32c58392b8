"""The request schema of a model: built from its signature, it converts JSON rows to columns and columns to a frame."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any, NamedTuple, NotRequired, Required

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types.schema import DataType
from pydantic import AfterValidator, ConfigDict, FailFast, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json
from typing_extensions import TypedDict  # pydantic requires this one before Python 3.12

from driftloop.events import RESERVED_COLUMNS, FeatureValue
from driftloop.registry.loading import ModelRejected

Columns = dict[str, list[FeatureValue]]
"""Values by column; all columns have the same length."""

MAX_FLOAT32 = float(np.finfo(np.float32).max)


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
        Annotated[datetime, AfterValidator(_to_naive_utc), Field(ge=datetime(1678, 1, 1), lt=datetime(2262, 1, 1))],
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
    type: ColumnType
    required: bool

    @property
    def row_field(self) -> Any:
        """The type of the column's field in a row: an optional field may be absent or null."""
        return Required[self.type.json_type] if self.required else NotRequired[self.type.json_type | None]


class Schema:
    """The columns of one model version, and conversions between requests, columns and frames."""

    def __init__(
        self, columns: Sequence[Column], example: pd.DataFrame | None, max_rows: int, *, is_matrix: bool
    ) -> None:
        """Create the schema.

        Args:
            columns: The signature's columns, in order.
            example: Rows of which the first is shown on the API page.
            max_rows: The most rows that a request may have.
            is_matrix: Whether the estimator takes an array instead of a frame.
        """
        self.columns = {column.name: column for column in columns}
        self.is_matrix = is_matrix
        self._column_adapters: dict[str, TypeAdapter[Any]] = {
            column.name: list_adapter(column.type.json_type | None, allow_inf_nan=False) for column in columns
        }
        row_type = _typed_dict(
            "Instance",
            {
                column.name: Required[column.type.json_type]
                if column.required
                else NotRequired[column.type.json_type | None]
                for column in columns
            },
            ConfigDict(extra="forbid", strict=True, allow_inf_nan=False),
        )
        example_json = "[]" if example is None else example.head(1).to_json(orient="records", date_format="iso")
        request_type = _typed_dict(
            "Instances",
            {"instances": Annotated[list[row_type], Field(min_length=1, max_length=max_rows)]},  # type: ignore[valid-type]
            ConfigDict(extra="forbid", json_schema_extra={"example": {"instances": json.loads(example_json)}}),
        )
        self.request_adapter: TypeAdapter[Any] = TypeAdapter(request_type)
        """Validates ``{"instances": [row, …]}`` with rows typed by the signature. Unknown fields are errors, because
        they are probably misspelt."""

    def parse(self, body: bytes | str) -> Columns:
        """Parse a request in JSON to columns.

        Raises:
            pydantic.ValidationError: The request is invalid; the error names instance and field.
        """
        rows = self.request_adapter.validate_json(body)["instances"]
        return {name: [row.get(name) for row in rows] for name in self.columns}

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """The JSON schema of a request, with its parts under ``$defs``."""
        return self.request_adapter.json_schema(ref_template="#/components/schemas/{model}")

    def frame_to_columns(self, frame: pd.DataFrame | npt.NDArray[Any]) -> Columns:
        """Convert a frame or an array to columns; missing values become ``None``, as do all values of absent columns.

        Raises:
            ValueError: An event cannot represent a value, because it is infinite or is not of the column's type.
        """
        if isinstance(frame, np.ndarray):
            frame = pd.DataFrame(frame, columns=list(self.columns))
        columns: Columns = {}
        for name in self.columns:
            if name not in frame:
                columns[name] = [None] * len(frame)
                continue
            column = frame[name]
            if column.dtype.kind == "f" and np.isinf(column).any():
                raise ValueError(f"the column {name} has an infinite value")
            cells = [None if is_na else cell for cell, is_na in zip(column.tolist(), column.isna(), strict=True)]
            columns[name] = self._validate_cells(name, cells) if column.dtype == object else cells
        return columns

    def _validate_cells(self, name: str, cells: list[FeatureValue]) -> list[FeatureValue]:
        try:
            validated: list[FeatureValue] = self._column_adapters[name].validate_python(cells)
            to_json(validated)
        except ValidationError as error:
            (detail,) = error.errors()
            raise ValueError(f"the column {name}, row {detail['loc'][0]}: {detail['msg']}") from error
        except PydanticSerializationError as error:  # an unpaired surrogate
            raise ValueError(f"the column {name} has a string that is not valid Unicode") from error
        return validated

    def columns_to_frame(self, columns: Columns) -> pd.DataFrame | npt.NDArray[Any]:
        """Convert columns to the frame, or the matrix, that the estimator takes."""
        arrays = {name: _to_array(columns[name], column.type) for name, column in self.columns.items()}
        if self.is_matrix:
            return np.column_stack(list(arrays.values()))
        return pd.DataFrame(arrays, copy=False)

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


def build_schema(signature: ModelSignature, example: pd.DataFrame | None, max_rows: int) -> Schema:
    """Build the schema of a version from its signature.

    The columns of a matrix, which have no names, are called ``x0``, ``x1`` and so on, as scikit-learn does.

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
            columns = [Column(f"x{i}", column_type, required=True) for i in range(width)]
        elif not inputs.has_input_names():
            raise ModelRejected("the signature's columns have no names")
        else:
            columns = [Column(column.name, COLUMN_TYPES[column.type], column.required) for column in inputs]
    except (KeyError, ValueError, TypeError) as error:
        raise ModelRejected(f"the signature has a column of an unsupported type: {error}") from error
    if any(not column.name for column in columns):
        raise ModelRejected("the signature has a column whose name is empty: name it, and log the model again")
    if conflicts := RESERVED_COLUMNS & {column.name for column in columns}:
        raise ModelRejected(
            f"the signature has columns named {', '.join(sorted(conflicts))}, and the archive has columns of its own "
            f"with the names {', '.join(sorted(RESERVED_COLUMNS))}: rename the columns, and log the model again"
        )
    return Schema(columns, example, max_rows, is_matrix=inputs.is_tensor_spec())


def _typed_dict(name: str, fields: dict[str, Any], config: ConfigDict) -> Any:
    """Create a typed dictionary: its keys may be any strings, and validating one costs half as much as a model does."""
    create: Any = TypedDict
    created = create(name, fields)
    created.__pydantic_config__ = config
    return created


def _to_array(cells: Sequence[FeatureValue], column_type: ColumnType) -> npt.NDArray[Any]:
    if column_type.nullable_dtype == column_type.dtype:
        return np.array(cells, dtype=column_type.dtype)
    return np.array(cells, dtype=column_type.nullable_dtype if None in cells else column_type.dtype)
