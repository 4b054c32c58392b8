"""From a model's signature to the rows that a request may have, and from rows to columns."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, NamedTuple

import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types.schema import DataType
from pydantic import BaseModel, ConfigDict, Field, create_model

from driftloop.events import RESERVED, Cell
from driftloop.registry import Refused

TYPES: dict[DataType, tuple[Any, str]] = {
    # MLflow's type: what JSON may hold, and the column's dtype where no value is missing
    DataType.double: (float, "float64"),
    DataType.float: (float, "float32"),
    DataType.long: (Annotated[int, Field(ge=-(2**63), lt=2**63)], "int64"),
    DataType.integer: (Annotated[int, Field(ge=-(2**31), lt=2**31)], "int32"),
    DataType.boolean: (bool, "bool"),
    DataType.string: (str, "object"),
    DataType.datetime: (datetime, "datetime64[ns]"),
}


class Schema(NamedTuple):
    """What a request to one version looks like."""

    request: type[BaseModel]
    """``{"instances": [row, …]}``, a row typed by the signature; an unknown field is refused, since it is probably a
    misspelt one."""
    dtypes: dict[str, str]

    def columns(self, request: BaseModel) -> dict[str, list[Cell]]:
        """The rows of a validated request, turned into columns."""
        rows: Sequence[Any] = request.instances  # type: ignore[attr-defined]  # the model is made at run time
        return {column: [getattr(row, field) for row in rows] for column, field in self.fields.items()}

    @property
    def fields(self) -> dict[str, str]:
        """The attribute of a row that holds each column."""
        return {column: f"column_{i}" for i, column in enumerate(self.dtypes)}

    def frame(self, columns: dict[str, list[Cell]]) -> pd.DataFrame:
        """Columns as the estimator takes them; nulls are missing values."""
        return pd.DataFrame(
            {column: pd.Series(columns[column], dtype=self._dtype(column, columns)) for column in self.dtypes}
        )

    def _dtype(self, column: str, columns: dict[str, list[Cell]]) -> str:
        dtype = self.dtypes[column]
        missing = None in columns[column]
        return "float64" if missing and dtype.startswith("int") else "object" if missing and dtype == "bool" else dtype


def schema(signature: ModelSignature, example: pd.DataFrame | None, max_rows: int) -> Schema:
    """The schema of a version. Raises :class:`Refused` for a signature that is no table of plain columns."""
    try:
        types = {str(column.name): (*TYPES[column.type], column.required) for column in signature.inputs}
    except (KeyError, AttributeError) as error:
        raise Refused(f"the signature has a column of a type that JSON rows cannot carry: {error}") from error
    if taken := RESERVED & types.keys():
        raise Refused(f"the signature has columns with names that the archive needs: {', '.join(sorted(taken))}")
    fields: dict[str, Any] = {
        # Attributes have names of our own: a column may be named like a method, or not be a Python name at all.
        f"column_{i}": (kind, Field(alias=name)) if required else (kind | None, Field(default=None, alias=name))
        for i, (name, (kind, _, required)) in enumerate(types.items())
    }
    row = create_model("Instance", __config__=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False), **fields)
    first = [] if example is None else json.loads(example.head(1).to_json(orient="records"))
    request = create_model(
        "Instances",
        __config__=ConfigDict(extra="forbid", json_schema_extra={"example": {"instances": first}}),
        instances=(list[row], Field(min_length=1, max_length=max_rows)),
    )
    return Schema(request, {name: dtype for name, (_, dtype, _) in types.items()})
