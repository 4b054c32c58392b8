"""A null in a request is to the model what a missing value was in its training data, through every protocol."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types.schema import ColSpec, DataType
from mlflow.types.schema import Schema as Columns
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from driftloop.registry.fitted_transformers import find_categories, find_missing_values
from tests.support.predictor_app import StaticModelManager, load_through_manager, save_model

Y = [0.0, 5.0, 9.0, 2.0] * 15


def encoded(*before: Any) -> Any:
    return make_pipeline(*before, OneHotEncoder(handle_unknown="ignore"))


def fit(frame: pd.DataFrame, transformer: Any, y: Any = Y) -> Any:
    return make_pipeline(make_column_transformer((transformer, ["c"])), LinearRegression()).fit(frame, y)


TEXTS, BOOLEANS = ["a", "b", "c"], [True, False, True]
# A column of four values of which the last is missing, and the transformer that is fitted on it.
CASES: dict[str, tuple[DataType, list[Any], Any]] = {
    "text with NaN": (DataType.string, [*TEXTS, np.nan], encoded()),
    "text with None": (DataType.string, [*TEXTS, None], encoded()),
    "text with NaN, ordinal": (
        DataType.string,
        [*TEXTS, np.nan],
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=9),
    ),
    "text with NaN, imputed": (DataType.string, [*TEXTS, np.nan], encoded(SimpleImputer(strategy="most_frequent"))),
    "text with None, imputed": (
        DataType.string,
        [*TEXTS, None],
        encoded(SimpleImputer(missing_values=None, strategy="constant", fill_value="?")),
    ),
    "text with None, not imputed": (DataType.string, [*TEXTS, None], encoded(SimpleImputer(strategy="most_frequent"))),
    "boolean with NaN": (DataType.boolean, [*BOOLEANS, np.nan], encoded()),
    "boolean with None": (DataType.boolean, [*BOOLEANS, None], encoded()),
    "integer": (DataType.long, [1, 2, 3, np.nan], encoded()),
    "float": (DataType.double, [0.5, 1.5, 2.5, np.nan], encoded()),
    "datetime": (DataType.datetime, [*pd.date_range("2013-07-01", periods=3), pd.NaT], encoded()),
}


@pytest.mark.parametrize("name", CASES)
def test_protocols_predict_for_null_what_the_estimator_does_for_its_own_missing_value(
    name: str, server: str, manager: StaticModelManager, tmp_path: Path
) -> None:
    kind, cells, transformer = CASES[name]
    frame = pd.DataFrame({"c": cells * 15})
    estimator = fit(frame, transformer)
    expected = estimator.predict(frame[3:4])
    signature = ModelSignature(Columns([ColSpec(kind, "c", required=False)]))
    manager.serving = load_through_manager(save_model(tmp_path / "model", estimator, frame, signature=signature))
    datatype = manager.serving.schema.columns["c"].type.tensor_datatype
    bodies: list[tuple[str, Any, str]] = [
        ("/predict", {"instances": [{"c": None}]}, "predictions"),
        ("/v1/models/m:predict", {"instances": [[None]]}, "predictions"),
        ("/v2/models/m/infer", {"inputs": [{"name": "c", "shape": [1], "datatype": datatype, "data": [None]}]}, ""),
    ]
    if kind != DataType.long:  # MLflow cannot cast it
        bodies.append(("/invocations", {"dataframe_records": [{"c": None}]}, "predictions"))
    for path, body, key in bodies:
        answer = httpx.post(server + path, json=body)
        assert answer.status_code == 200, (path, answer.text)
        predictions = answer.json()[key] if key else answer.json()["outputs"][0]["data"]
        assert predictions == pytest.approx(expected), path
    csv = httpx.post(f"{server}/invocations", content="c,x\n,1\n", headers={"Content-Type": "text/csv"})
    assert csv.json()["predictions"] == pytest.approx(expected)


def test_setting_overrides_what_transformers_show(tmp_path: Path) -> None:
    frame = pd.DataFrame({"c": ["a", "b", "c", np.nan] * 15})
    signature = ModelSignature(Columns([ColSpec(DataType.string, "c", required=False)]))
    folder = save_model(tmp_path / "model", fit(frame, encoded()), frame, signature=signature)
    assert load_through_manager(folder).schema.missing_values == {"c": "nan"}
    assert load_through_manager(folder, missing_values="none").schema.missing_values == {"c": "none"}


def test_missing_value_that_no_transformer_shows_is_the_one_that_can_be_predicted_for(tmp_path: Path) -> None:
    frame = pd.DataFrame({"c": ["a", "b", "c", "d"] * 15})
    strict = make_pipeline(
        make_column_transformer((OneHotEncoder(handle_unknown="error"), ["c"])), LinearRegression()
    ).fit(frame, Y)
    signature = ModelSignature(Columns([ColSpec(DataType.string, "c", required=False)]))
    folder = save_model(tmp_path / "model", strict, frame, signature=signature)
    assert load_through_manager(folder).schema.missing_values == {"c": "nan"}  # neither can


def test_transformers_show_categories_and_missing_values_by_column() -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0] * 2, "a": ["p", None] * 2, "b": ["q", np.nan] * 2, "c": ["r", "s"] * 2})
    transformer = make_column_transformer(
        (OneHotEncoder(), [1]),
        (OrdinalEncoder(encoded_missing_value=-1), ["b"]),
        (OneHotEncoder(), ["c"]),
        remainder="passthrough",
    )
    estimator = make_pipeline(transformer, LinearRegression()).fit(frame, [0, 1, 2, 3])
    columns = list(frame.columns)
    assert find_missing_values(estimator, columns) == {"a": "none", "b": "nan"}
    assert find_categories(estimator, columns) == {"a": "p", "b": "q", "c": "s"}
