"""The request schema: JSON rows to columns to a frame, and its compatibility with another version."""

import json
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import Array, DataType
from pydantic import ValidationError

from driftloop.registry.loading import ModelRejected
from predictor.serving.schema import build_schema

SIGNATURE = ModelSignature(
    Schema(
        [
            ColSpec(DataType.double, "temp", required=False),
            ColSpec(DataType.long, "distance"),
            ColSpec(DataType.boolean, "night"),
            ColSpec(DataType.string, "carrier"),
            ColSpec(DataType.datetime, "at"),
            ColSpec(DataType.long, "class", required=False),  # no Python name
        ]
    )
)
ROW = {"temp": 20.5, "distance": 733, "night": True, "carrier": "UA", "at": "2013-07-01T05:00:00", "class": 3}
SCHEMA = build_schema(SIGNATURE, max_rows=3)


def body(*rows: dict[str, object]) -> str:
    return json.dumps({"instances": rows})


def test_schema_converts_rows_to_a_frame_of_the_signatures_types() -> None:
    frame = SCHEMA.columns_to_frame(SCHEMA.parse(body(ROW, ROW)).columns)
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == list(ROW)
    assert [str(dtype) for dtype in frame.dtypes] == ["float64", "int64", "bool", "object", "datetime64[ns]", "int64"]
    assert frame["at"].tolist() == [pd.Timestamp("2013-07-01 05:00")] * 2


def test_schema_converts_missing_optional_values_to_na() -> None:
    row = {name: value for name, value in ROW.items() if name != "class"} | {"temp": None}
    frame = SCHEMA.columns_to_frame(SCHEMA.parse(body(row, ROW)).columns)
    assert isinstance(frame, pd.DataFrame)
    assert frame["temp"].isna().tolist() == [True, False]
    assert frame["class"].isna().tolist() == [True, False]


def test_schema_converts_datetime_with_zone_to_utc() -> None:
    columns = SCHEMA.parse(body(ROW | {"at": "2013-07-01T05:00:00-04:00"})).columns
    assert columns["at"] == [datetime(2013, 7, 1, 9)]


def test_schema_round_trips_columns_through_a_frame() -> None:
    columns = SCHEMA.parse(body(ROW | {"temp": None}, ROW)).columns
    assert SCHEMA.frame_to_columns(pd.DataFrame(SCHEMA.columns_to_frame(columns))) == columns


def test_schema_rejects_infinite_value() -> None:
    frame = pd.DataFrame(SCHEMA.columns_to_frame(SCHEMA.parse(body(ROW)).columns))
    with pytest.raises(ValueError, match="temp has an infinite value"):
        SCHEMA.frame_to_columns(frame.assign(temp=[np.inf]))


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"distance": "far"}, ("instances", 1, "distance")),
        ({"distance": None}, ("instances", 1, "distance")),
        ({"distance": 1.5}, ("instances", 1, "distance")),
        ({"night": 1}, ("instances", 1, "night")),
        ({"carrier": 7}, ("instances", 1, "carrier")),
        ({"at": "1066-10-14T09:00:00"}, ("instances", 1, "at")),
        ({"tmp": 20.5}, ("instances", 1, "tmp")),
    ],
)
def test_schema_names_instance_and_field_of_an_error(change: dict[str, object], place: tuple[object, ...]) -> None:
    with pytest.raises(ValidationError) as wrong:
        SCHEMA.parse(body(ROW, ROW | change))
    assert [error["loc"] for error in wrong.value.errors()] == [place]


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"instances": []}', '{"instances": [NaN]}', "\\ud800"])
def test_schema_rejects_invalid_body(body: str) -> None:
    with pytest.raises(ValidationError):
        SCHEMA.parse(body)


def test_schema_limits_rows_of_a_request() -> None:
    with pytest.raises(ValidationError, match="at most 3 items"):
        SCHEMA.parse(body(*[ROW] * 4))


def test_schema_numbers_columns_of_a_matrix() -> None:
    matrix = build_schema(ModelSignature(Schema([TensorSpec(np.dtype("float64"), (-1, 2))])), max_rows=3)
    array = matrix.columns_to_frame(matrix.parse(body({"x0": 1, "x1": 2.5})).columns)
    assert isinstance(array, np.ndarray)
    assert array.tolist() == [[1.0, 2.5]]


@pytest.mark.parametrize(
    "inputs",
    [
        [TensorSpec(np.dtype("float64"), (-1, 2, 2))],
        [TensorSpec(np.dtype("uint8"), (-1, 2))],
        [ColSpec(DataType.binary, "image")],
        [ColSpec(Array(DataType.double), "many")],
        [ColSpec(DataType.double)],
        [ColSpec(DataType.double, "x"), ColSpec(DataType.double, "")],
        [ColSpec(DataType.double, "_prediction")],
        [ColSpec(DataType.double, "age"), ColSpec(DataType.double, "Age")],
    ],
    ids=["three dimensions", "bytes", "binary", "array", "no name", "an empty name", "a reserved name", "case only"],
)
def test_schema_rejects_unsupported_signature(inputs: list[Any]) -> None:
    with pytest.raises(ModelRejected, match="signature"):
        build_schema(ModelSignature(Schema(inputs)), max_rows=3)


def test_schema_rejects_reserved_names_and_lists_them() -> None:
    signature = ModelSignature(
        Schema([ColSpec(DataType.double, "_time"), ColSpec(DataType.double, "_id"), ColSpec(DataType.double, "time")])
    )
    with pytest.raises(ModelRejected, match=r"named _id, _time, .* the names _classes, _context, _id, _key, "):
        build_schema(signature, max_rows=3)


def changed(**columns: tuple[DataType, bool]) -> ModelSignature:
    specs = {spec.name: (spec.type, spec.required) for spec in SIGNATURE.inputs} | columns
    return ModelSignature(
        Schema([ColSpec(data_type, name, required=required) for name, (data_type, required) in specs.items()])
    )


@pytest.mark.parametrize(
    ("columns", "reasons"),
    [
        ({}, []),
        ({"wind": (DataType.double, False)}, []),
        ({"distance": (DataType.long, False)}, []),
        ({"wind": (DataType.double, True)}, ["the new column wind is required"]),
        ({"temp": (DataType.double, True)}, ["the column temp has become required"]),
        ({"distance": (DataType.string, True)}, ["the column distance has changed its type from int64 to object"]),
    ],
)
def test_schema_lists_incompatibilities_with_another_signature(
    columns: dict[str, tuple[DataType, bool]], reasons: list[str]
) -> None:
    assert SCHEMA.incompatibilities_with(build_schema(changed(**columns), max_rows=3)) == reasons


def test_schema_is_incompatible_with_one_that_lacks_a_column() -> None:
    fewer = build_schema(ModelSignature(Schema(SIGNATURE.inputs.inputs[1:])), max_rows=3)
    assert SCHEMA.incompatibilities_with(fewer) == ["the column temp is missing"]
