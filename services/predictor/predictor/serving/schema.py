"""The request schema of a model: built from its signature, it converts JSON rows to columns and columns to a frame."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.models import ModelSignature
from pydantic import ConfigDict, FailFast, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from driftloop.errors import InvalidInput
from driftloop.events import FeatureValue
from driftloop.registry.fitted_transformers import MissingValue
from driftloop.registry.signature_columns import MAX_EXACT_INTEGER, Column, signature_columns
from predictor.serving.annotations import FIELDS, STRICT, Annotations, typed_dict

Columns = dict[str, list[FeatureValue]]
"""Values by column; all columns have the same length."""


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


def list_adapter(item_type: Any, *, allow_inf_nan: bool) -> TypeAdapter[Any]:
    """Return a validator of lists that is strict about the item type and stops at the first invalid item."""
    items = Annotated[list[item_type], FailFast()]
    return TypeAdapter(items, config=ConfigDict(strict=True, allow_inf_nan=allow_inf_nan))


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
                    f"row {row}, column {column.name}: an integer above 2^53 is rounded in a column with a missing "
                    "value: send the rows with missing values in another request"
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

    Raises:
        ModelRejected: See :func:`signature_columns`.
    """
    return Schema(signature_columns(signature), max_rows, is_matrix=signature.inputs.is_tensor_spec())
