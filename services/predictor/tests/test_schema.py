"""From a signature to rows and columns."""

import json

import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import DataType
from pydantic import ValidationError

from driftloop.registry import Refused
from predictor.schema import schema

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


def test_rows_become_columns_of_the_signatures_types() -> None:
    request = SCHEMA.request.model_validate_json(json.dumps({"instances": [ROW, ROW]}))
    frame = SCHEMA.frame(SCHEMA.columns(request))
    assert list(frame.columns) == list(ROW)
    assert [str(dtype) for dtype in frame.dtypes] == ["float64", "int64", "bool", "object", "datetime64[ns]", "int64"]
    assert frame["at"].tolist() == [pd.Timestamp("2013-07-01 05:00")] * 2


def test_missing_values_of_optional_columns_are_missing_in_the_frame() -> None:
    row = {name: value for name, value in ROW.items() if name != "class"} | {"temp": None}
    request = SCHEMA.request.model_validate_json(json.dumps({"instances": [row, ROW]}))
    frame = SCHEMA.frame(SCHEMA.columns(request))
    assert frame["temp"].isna().tolist() == [True, False]
    assert frame["class"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"distance": "far"}, ("instances", 1, "distance")),
        ({"distance": None}, ("instances", 1, "distance")),
        ({"distance": 1.5}, ("instances", 1, "distance")),
        ({"night": 1}, ("instances", 1, "night")),
        ({"carrier": 7}, ("instances", 1, "carrier")),
        ({"tmp": 20.5}, ("instances", 1, "tmp")),
    ],
)
def test_a_wrong_field_is_named_with_its_instance(change: dict[str, object], place: tuple[object, ...]) -> None:
    with pytest.raises(ValidationError) as wrong:
        SCHEMA.request.model_validate_json(json.dumps({"instances": [ROW, ROW | change]}))
    assert [error["loc"] for error in wrong.value.errors()] == [place]


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"instances": []}', '{"instances": [NaN]}', "\\ud800"])
def test_a_body_that_is_no_request_is_refused(body: str) -> None:
    with pytest.raises(ValidationError):
        SCHEMA.request.model_validate_json(body)


def test_a_request_has_at_most_the_rows_of_the_setting() -> None:
    with pytest.raises(ValidationError, match="at most 3 items"):
        SCHEMA.request.model_validate_json(json.dumps({"instances": [ROW] * 4}))


def test_a_signature_of_tensors_is_refused() -> None:
    with pytest.raises(Refused, match="signature"):
        schema(ModelSignature(Schema([TensorSpec(np.dtype("float64"), (-1, 2))])), None, max_rows=3)
