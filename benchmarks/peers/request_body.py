"""Request body typed by the model's signature, and the pipeline, for the FastAPI and BentoML peers.

Imports neither driftloop nor MLflow, which are not in the peers' environments.
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
    """A response with one prediction per row."""

    id: str
    model: str
    version: str
    predictions: list[float]


def row_model(folder: Path) -> type[BaseModel]:
    """Return the type of a row of the model in a folder; unknown fields and other types are rejected."""
    fields: dict[str, Any] = {
        name: (TYPES[kind], ...) if required else (TYPES[kind] | None, None)
        for name, (kind, required) in read_description(folder)["columns"].items()
    }
    return create_model("Row", __config__=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False), **fields)


def body_model(folder: Path) -> type[BaseModel]:
    """Return the type of a request: ``{"instances": [row, …]}``."""
    row = row_model(folder)
    return create_model("Instances", __config__=ConfigDict(extra="forbid"), instances=(list[row], ...))  # type: ignore[valid-type]


def read_description(folder: Path) -> dict[str, Any]:
    """Return the description of the model that the benchmark has written."""
    return json.loads((folder / "benchmark.json").read_text())  # type: ignore[no-any-return]


class Pipeline:
    """The fitted pipeline of a folder."""

    def __init__(self, folder: Path) -> None:
        """Load the pipeline."""
        import skops.io  # noqa: PLC0415  # the constant app does not need it

        description = read_description(folder)
        self._columns: dict[str, list[Any]] = description["columns"]
        self._estimator = skops.io.load(folder / description["file"], trusted=description["trusted_types"])

    def probabilities(self, rows: Sequence[Any]) -> list[float]:
        """Return the probability of the second class for each row."""
        import numpy as np  # noqa: PLC0415
        import pandas as pd  # noqa: PLC0415

        dtypes = {"double": "float64", "long": "int64", "string": "object"}
        arrays = {
            name: np.array([getattr(row, name) for row in rows], dtype=dtypes[kind])
            for name, (kind, _) in self._columns.items()
        }
        return self._estimator.predict_proba(pd.DataFrame(arrays, copy=False))[:, 1].tolist()  # type: ignore[no-any-return]
