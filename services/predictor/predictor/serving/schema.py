"""From a model's signature to the rows that a request may have, from rows to columns, and from columns to a frame."""

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
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from driftloop.events import RESERVED, Cell
from driftloop.registry.model_registry import Refused

Columns = dict[str, list[Cell]]
"""Values by column, all of the same length."""

FLOAT32 = float(np.finfo(np.float32).max)


def _naive(time: datetime) -> datetime:
    """MLflow's datetimes have no zone: those of a request that have one are told in UTC."""
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


class Type(NamedTuple):
    """How a type of MLflow's is carried."""

    json: Any
    """What JSON may hold."""
    dtype: str
    """The column's where no value is missing."""
    missing: str
    """The column's where one is."""
    tensor: str
    """The datatype in the Open Inference Protocol."""


TYPES: dict[DataType, Type] = {
    DataType.double: Type(float, "float64", "float64", "FP64"),
    DataType.float: Type(Annotated[float, Field(ge=-FLOAT32, le=FLOAT32)], "float32", "float32", "FP32"),
    DataType.long: Type(Annotated[int, Field(ge=-(2**63), lt=2**63)], "int64", "float64", "INT64"),
    DataType.integer: Type(Annotated[int, Field(ge=-(2**31), lt=2**31)], "int32", "float64", "INT32"),
    DataType.boolean: Type(bool, "bool", "object", "BOOL"),
    DataType.string: Type(str, "object", "object", "BYTES"),
    DataType.datetime: Type(
        # what nanoseconds since 1970 can hold
        Annotated[datetime, AfterValidator(_naive), Field(ge=datetime(1678, 1, 1), lt=datetime(2262, 1, 1))],
        "datetime64[ns]",
        "datetime64[ns]",
        "BYTES",
    ),
}


def list_of(kind: Any, *, allow_inf_nan: bool) -> TypeAdapter[Any]:
    """Permits values of a type and no others; the first other one is named, and the rest is not looked at."""
    values = Annotated[list[kind], FailFast()]
    return TypeAdapter(values, config=ConfigDict(strict=True, allow_inf_nan=allow_inf_nan))


class Column(NamedTuple):
    """A column of the signature."""

    name: str
    type: Type
    required: bool


class Schema:
    """What a request to one version looks like."""

    def __init__(self, columns: Sequence[Column], example: pd.DataFrame | None, max_rows: int, *, tensor: bool) -> None:
        """``example`` is shown on the API page; with ``tensor`` the estimator is given an array, not a frame."""
        self.columns = {column.name: column for column in columns}
        self.tensor = tensor
        self._cells: dict[str, TypeAdapter[Any]] = {
            column.name: list_of(column.type.json | None, allow_inf_nan=False) for column in columns
        }
        row = _record(
            "Instance",
            {
                column.name: Required[column.type.json] if column.required else NotRequired[column.type.json | None]
                for column in columns
            },
            ConfigDict(extra="forbid", strict=True, allow_inf_nan=False),
        )
        first = [] if example is None else json.loads(example.head(1).to_json(orient="records", date_format="iso"))
        request = _record(
            "Instances",
            {"instances": Annotated[list[row], Field(min_length=1, max_length=max_rows)]},  # type: ignore[valid-type]
            ConfigDict(extra="forbid", json_schema_extra={"example": {"instances": first}}),
        )
        self.request: TypeAdapter[Any] = TypeAdapter(request)
        """``{"instances": [row, …]}``, a row typed by the signature; an unknown field is refused, since it is probably
        a misspelt one."""

    def parse(self, body: bytes | str) -> Columns:
        """The columns of a request in JSON. Raises pydantic's ``ValidationError``, which names instance and field."""
        rows = self.request.validate_json(body)["instances"]
        return {name: [row.get(name) for row in rows] for name in self.columns}

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """The request's JSON schema, with its parts under ``$defs``."""
        return self.request.json_schema(ref_template="#/components/schemas/{model}")

    def given(self, frame: pd.DataFrame | npt.NDArray[Any]) -> Columns:
        """A frame's or array's cells, missing ones as null; columns that are not in it are missing as a whole.

        Raises :class:`ValueError` for what an event cannot say: an infinite number, or an object of another type than
        the column's.
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
            cells = [None if none else cell for cell, none in zip(column.tolist(), column.isna(), strict=True)]
            columns[name] = self._checked(name, cells) if column.dtype == object else cells
        return columns

    def _checked(self, name: str, cells: list[Cell]) -> list[Cell]:
        try:
            checked: list[Cell] = self._cells[name].validate_python(cells)
            to_json(checked)
        except ValidationError as error:
            (first,) = error.errors()
            raise ValueError(f"the column {name}, row {first['loc'][0]}: {first['msg']}") from error
        except PydanticSerializationError as error:  # half of a surrogate pair
            raise ValueError(f"the column {name} has a text that is no Unicode") from error
        return checked

    def frame(self, columns: Columns) -> pd.DataFrame | npt.NDArray[Any]:
        """Columns as the estimator takes them."""
        arrays = {name: _array(columns[name], column.type) for name, column in self.columns.items()}
        if self.tensor:
            return np.column_stack(list(arrays.values()))
        return pd.DataFrame(arrays, copy=False)

    def breaks(self, new: "Schema") -> list[str]:
        """Why requests that this schema takes would fail under a new one; empty where none would."""
        reasons = [f"the column {name} is gone" for name in self.columns if name not in new.columns]
        for name, column in new.columns.items():
            old = self.columns.get(name)
            if old is None:
                if column.required:
                    reasons.append(f"the new column {name} is required")
            elif column.required and not old.required:
                reasons.append(f"the column {name} may not be missing any more")
            elif column.type != old.type:
                reasons.append(f"the column {name} is {column.type.dtype}, and was {old.type.dtype}")
        return reasons


def schema(signature: ModelSignature, example: pd.DataFrame | None, max_rows: int) -> Schema:
    """The schema of a version. Raises :class:`Refused` for a signature that is no table of plain columns.

    The columns of a matrix, which have no names, are ``x0``, ``x1`` and so on, as scikit-learn calls them.
    """
    inputs = signature.inputs
    try:
        if inputs.is_tensor_spec():
            (only,) = inputs.inputs
            _, width = only.shape
            kind = TYPES[DataType[{"float64": "double", "float32": "float", "int64": "long"}[str(only.type)]]]
            columns = [Column(f"x{i}", kind, required=True) for i in range(width)]
        elif not inputs.has_input_names():
            raise Refused("the signature's columns have no names")
        else:
            columns = [Column(column.name, TYPES[column.type], column.required) for column in inputs]
    except (KeyError, ValueError, TypeError) as error:
        raise Refused(f"the signature has a column of a type that rows cannot carry: {error}") from error
    if taken := RESERVED & {column.name for column in columns}:
        raise Refused(f"the signature has columns with names that the archive needs: {', '.join(sorted(taken))}")
    return Schema(columns, example, max_rows, tensor=inputs.is_tensor_spec())


def _record(name: str, fields: dict[str, Any], config: ConfigDict) -> Any:
    """A typed dictionary: its keys may be any words, and one costs half of what an object of a class does."""
    make: Any = TypedDict
    record = make(name, fields)
    record.__pydantic_config__ = config
    return record


def _array(cells: Sequence[Cell], kind: Type) -> npt.NDArray[Any]:
    if kind.missing == kind.dtype:
        return np.array(cells, dtype=kind.dtype)
    return np.array(cells, dtype=kind.missing if None in cells else kind.dtype)
