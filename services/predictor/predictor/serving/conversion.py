"""Conversion of values to the types of a model's columns, for protocols whose values have other types.

A value is converted if the result says the same; otherwise it is an error that names row and column. The table in
docs/predictor.md has all types. ``POST /predict`` and V1, whose JSON is typed by the signature, do not need this.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from driftloop.events import FeatureValue
from driftloop.registry.signature_columns import Column
from predictor.serving.schema import Columns, InvalidCell, MissingColumn, Schema

Spelling = Literal["json", "csv"]
"""How cells are written. All cells of CSV are texts, so that an empty one is a missing value."""

DTYPE_KINDS = {"float64": "f", "float32": "f", "int64": "i", "int32": "i", "bool": "b"}
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
INTEGER = re.compile(r"[-+]?\d+")
MAX_DIGITS = 400  # of a number in a text; Python refuses to read thousands
BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def convert_columns(
    schema: Schema, cells: Mapping[str, Sequence[Any] | npt.NDArray[Any]], row_count: int, spelling: Spelling = "json"
) -> Columns:
    """Convert values by column to the types of the schema; columns that the model does not have are left out.

    Raises:
        MissingColumn: A required column is missing.
        InvalidCell: A value does not fit its column, or a required value is missing.
    """
    if missing := [name for name, column in schema.columns.items() if column.required and name not in cells]:
        raise MissingColumn(f"required columns are missing: {', '.join(missing)}")
    columns: Columns = {}
    for name, column in schema.columns.items():
        if name in cells:
            columns[name] = schema.validate_cells(name, _normalize_cells(cells[name], column, spelling))
        else:
            columns[name] = [None] * row_count
        if not column.nullable and None in columns[name]:
            raise InvalidCell(f"the column {name}, row {columns[name].index(None)}: a value is required")
    return columns


def _normalize_cells(
    cells: Sequence[Any] | npt.NDArray[Any], column: Column, spelling: Spelling
) -> Sequence[FeatureValue]:
    """Convert cells to the JSON type of their column where that says the same."""
    dtype = column.type.dtype
    if not isinstance(cells, np.ndarray):
        return [_normalize(cell, dtype, spelling) for cell in cells]
    values: list[Any] = cells.tolist()
    if cells.dtype.kind != DTYPE_KINDS.get(dtype):
        return [_normalize(cell, dtype, spelling) for cell in values]
    if cells.dtype.kind == "f" and np.isnan(cells).any():
        return [None if math.isnan(value) else value for value in values]
    return values


def _normalize(cell: Any, dtype: str, spelling: Spelling) -> Any:
    """Convert a cell to the JSON type of its column if that says the same; otherwise return it as it is."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)) or (spelling == "csv" and cell == ""):
        return None
    text = cell if isinstance(cell, str) and len(cell) <= MAX_DIGITS else ""
    converted = cell
    match DTYPE_KINDS.get(dtype):
        case "f" if NUMBER.fullmatch(text):
            converted = float(text)
        case "i" if INTEGER.fullmatch(text):
            converted = int(text)
        case "i" if isinstance(cell, float) and cell.is_integer():
            converted = int(cell)
        case "b" if spelling == "csv":
            converted = BOOLEANS.get(text.lower(), cell)
        case "b" if isinstance(cell, int | float) and cell in (0, 1):
            converted = bool(cell)
    return converted
