"""From a signature to rows and columns."""

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

from driftloop.registry.model_registry import Refused
from predictor.serving.schema import schema

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
SCHEMA = schema(SIGNATURE, None, max_rows=3)


def body(*rows: dict[str, object]) -> str:
    return json.dumps({"instances": rows})


def test_rows_become_columns_of_the_signatures_types() -> None:
    frame = SCHEMA.frame(SCHEMA.parse(body(ROW, ROW)))
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == list(ROW)
    assert [str(dtype) for dtype in frame.dtypes] == ["float64", "int64", "bool", "object", "datetime64[ns]", "int64"]
    assert frame["at"].tolist() == [pd.Timestamp("2013-07-01 05:00")] * 2


def test_missing_values_of_optional_columns_are_missing_in_the_frame() -> None:
    row = {name: value for name, value in ROW.items() if name != "class"} | {"temp": None}
    frame = SCHEMA.frame(SCHEMA.parse(body(row, ROW)))
    assert isinstance(frame, pd.DataFrame)
    assert frame["temp"].isna().tolist() == [True, False]
    assert frame["class"].isna().tolist() == [True, False]


def test_a_datetime_with_a_zone_is_told_in_utc() -> None:
    columns = SCHEMA.parse(body(ROW | {"at": "2013-07-01T05:00:00-04:00"}))
    assert columns["at"] == [datetime(2013, 7, 1, 9)]


def test_a_frames_cells_come_back_as_they_went_in() -> None:
    columns = SCHEMA.parse(body(ROW | {"temp": None}, ROW))
    assert SCHEMA.given(pd.DataFrame(SCHEMA.frame(columns))) == columns


def test_an_infinite_value_is_refused_with_its_column() -> None:
    frame = pd.DataFrame(SCHEMA.frame(SCHEMA.parse(body(ROW))))
    with pytest.raises(ValueError, match="temp has an infinite value"):
        SCHEMA.given(frame.assign(temp=[np.inf]))


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
def test_a_wrong_field_is_named_with_its_instance(change: dict[str, object], place: tuple[object, ...]) -> None:
    with pytest.raises(ValidationError) as wrong:
        SCHEMA.parse(body(ROW, ROW | change))
    assert [error["loc"] for error in wrong.value.errors()] == [place]


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"instances": []}', '{"instances": [NaN]}', "\\ud800"])
def test_a_body_that_is_no_request_is_refused(body: str) -> None:
    with pytest.raises(ValidationError):
        SCHEMA.parse(body)


def test_a_request_has_at_most_the_rows_of_the_setting() -> None:
    with pytest.raises(ValidationError, match="at most 3 items"):
        SCHEMA.parse(body(*[ROW] * 4))


def test_a_matrix_has_columns_that_are_numbered() -> None:
    matrix = schema(ModelSignature(Schema([TensorSpec(np.dtype("float64"), (-1, 2))])), None, max_rows=3)
    array = matrix.frame(matrix.parse(body({"x0": 1, "x1": 2.5})))
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
        [ColSpec(DataType.double, "prediction")],
    ],
    ids=["three dimensions", "bytes", "binary", "array", "no name", "a reserved name"],
)
def test_a_signature_that_rows_cannot_carry_is_refused(inputs: list[Any]) -> None:
    with pytest.raises(Refused, match="signature"):
        schema(ModelSignature(Schema(inputs)), None, max_rows=3)


def changed(**columns: tuple[DataType, bool]) -> ModelSignature:
    kept = {spec.name: (spec.type, spec.required) for spec in SIGNATURE.inputs} | columns
    return ModelSignature(Schema([ColSpec(kind, name, required=must) for name, (kind, must) in kept.items()]))


@pytest.mark.parametrize(
    ("columns", "reasons"),
    [
        ({}, []),
        ({"wind": (DataType.double, False)}, []),
        ({"distance": (DataType.long, False)}, []),
        ({"wind": (DataType.double, True)}, ["the new column wind is required"]),
        ({"temp": (DataType.double, True)}, ["the column temp may not be missing any more"]),
        ({"distance": (DataType.string, True)}, ["the column distance is object, and was int64"]),
    ],
)
def test_a_signature_breaks_requests_that_would_fail_under_it(
    columns: dict[str, tuple[DataType, bool]], reasons: list[str]
) -> None:
    assert SCHEMA.breaks(schema(changed(**columns), None, max_rows=3)) == reasons


def test_a_column_that_is_gone_breaks_requests_that_have_it() -> None:
    fewer = schema(ModelSignature(Schema(SIGNATURE.inputs.inputs[1:])), None, max_rows=3)
    assert SCHEMA.breaks(fewer) == ["the column temp is gone"]
