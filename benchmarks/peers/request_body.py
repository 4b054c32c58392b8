"""The body of a request, typed by the model's signature, and the pipeline behind it: for the peers that are ours.

Imports neither driftloop nor MLflow, which the peers' environments need not have.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

TYPES: dict[str, Any] = {
    "double": float,
    "long": Annotated[int, Field(ge=-(2**63), lt=2**63)],
    "string": str,
}


class Predictions(BaseModel):
    """An answer."""

    id: str
    model: str
    version: str
    predictions: list[float]


def row_model(folder: Path) -> type[BaseModel]:
    """A row as the model in the folder takes it: an unknown field is refused, and so is one of another type."""
    fields: dict[str, Any] = {
        name: (TYPES[kind], ...) if required else (TYPES[kind] | None, None)
        for name, (kind, required) in description(folder)["columns"].items()
    }
    return create_model("Row", __config__=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False), **fields)


def body_model(folder: Path) -> type[BaseModel]:
    """``{"instances": [row, …]}``."""
    row = row_model(folder)
    return create_model("Instances", __config__=ConfigDict(extra="forbid"), instances=(list[row], ...))  # type: ignore[valid-type]


def description(folder: Path) -> dict[str, Any]:
    """What the benchmark wrote down about the model."""
    return json.loads((folder / "benchmark.json").read_text())  # type: ignore[no-any-return]


class Pipeline:
    """The fitted pipeline of a folder, called with rows."""

    def __init__(self, folder: Path) -> None:
        """Loads it."""
        import skops.io  # noqa: PLC0415  # what answers a constant need not have it

        known = description(folder)
        self._columns: dict[str, list[Any]] = known["columns"]
        self._estimator = skops.io.load(folder / known["file"], trusted=known["trusted_types"])

    def probabilities(self, rows: Sequence[Any]) -> list[float]:
        """The probability of the second class, for each row."""
        import numpy as np  # noqa: PLC0415
        import pandas as pd  # noqa: PLC0415

        dtypes = {"double": "float64", "long": "int64", "string": "object"}
        arrays = {
            name: np.array([getattr(row, name) for row in rows], dtype=dtypes[kind])
            for name, (kind, _) in self._columns.items()
        }
        return self._estimator.predict_proba(pd.DataFrame(arrays, copy=False))[:, 1].tolist()  # type: ignore[no-any-return]
