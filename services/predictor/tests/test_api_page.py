"""The API page: predictions first, named by sentences, with examples that are answered as they stand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from mlflow.models import Model, infer_signature
from mlflow.types import ColSpec, DataType, Schema
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from driftloop.events import Prediction
from driftloop.registry.loading import LoadedModel
from predictor.outbox.outbox import Outbox
from predictor.serving.schema import build_schema
from predictor.serving.serving_model import ServingModel
from tests.support.predictor_app import FRAME, StaticModelManager, outbox_events, serving_model, wine_model

FIRST_PATHS = ["/predict", "/v1/models/m:predict", "/v2/models/m/infer", "/invocations", "/outcomes"]
FORMS = {"dataframe_split", "dataframe_records", "instances", "inputs"}
ALL_TYPES = pd.DataFrame(
    {
        "double": [0.5, 1.5],
        "float": np.array([0.1, 0.2], np.float32),
        "long": [2**60, 2],
        "integer": np.array([1, 2], np.int32),
        "boolean": [True, False],
        "datetime": pd.to_datetime(["2013-01-01T05:00:00", "2013-01-02T05:00:00"]),
        'string, "quoted"': ["a, b", "größe"],
    }
)
SPARSE = pd.DataFrame({"x": [np.nan, 1.0], "long": [1.0, np.nan], "word": [None, "a"]})
SPARSE_SIGNATURE = Schema(
    [
        ColSpec(DataType.double, "x"),
        ColSpec(DataType.long, "long", required=False),
        ColSpec(DataType.string, "word", required=False),
    ]
)


def serving(estimator: Any, rows: Any, example: Any, schema: Schema | None = None) -> ServingModel:
    """Return a version in service whose signature is inferred from rows, or has the given schema."""
    signature = infer_signature(rows)
    if schema is not None:
        signature.inputs = schema
    loaded = LoadedModel(estimator, Model(signature=signature, flavors={}), example)
    return ServingModel("7", build_schema(signature, 3), loaded)


def any_rows(rows: Any) -> Any:
    return DummyClassifier().fit(rows, [0, 1])


def encoded() -> Any:
    """Return a classifier that knows only some texts."""
    encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["word"]), remainder="passthrough")
    frame = pd.DataFrame({"x": [0.0, 1.0], "word": ["a", "b"]})
    return make_pipeline(encoder, LogisticRegression()).fit(frame, [0, 1])


def wine(*, with_example: bool) -> ServingModel:
    estimator, frame = wine_model()
    return serving(estimator, frame, frame.head(2) if with_example else None)


VERSIONS = {
    "an example": lambda: serving(LogisticRegression().fit(FRAME, [0, 0, 1, 1]), FRAME, FRAME.head(2)),
    "no example": lambda: serving(LogisticRegression().fit(FRAME, [0, 0, 1, 1]), FRAME, None),
    "missing values": lambda: wine(with_example=True),
    "missing values, no example": lambda: wine(with_example=False),
    "all types": lambda: serving(any_rows(ALL_TYPES), ALL_TYPES, ALL_TYPES),
    "all types, no example": lambda: serving(any_rows(ALL_TYPES), ALL_TYPES, None),
    "a sparse example": lambda: serving(any_rows(SPARSE), SPARSE, SPARSE, SPARSE_SIGNATURE),
    "no columns of numbers": lambda: serving(any_rows(SPARSE[["word"]]), SPARSE[["word"]].tail(1), None),
    "an encoder, no example": lambda: serving(encoded(), pd.DataFrame({"x": [0.5], "word": ["a"]}), None),
    "a matrix": lambda: serving(any_rows(np.eye(2)), np.eye(2), np.eye(2)),
    "a matrix, no example": lambda: serving(any_rows(np.eye(2)), np.eye(2), None),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_example_is_answered_as_it_stands(
    client: TestClient, manager: StaticModelManager, outbox: Outbox, version: str
) -> None:
    manager.serving = VERSIONS[version]()
    paths = client.get("/openapi.json").json()["paths"]
    sent = 0
    for path in ("/predict", "/v1/models/m:predict", "/v2/models/m/infer", "/invocations"):
        for content_type, content in paths[path]["post"]["requestBody"]["content"].items():
            examples = [example["value"] for example in content.get("examples", {}).values()]
            examples += [content["example"]] if "example" in content else []
            for example in examples:
                body = {"content": example} if isinstance(example, str) else {"json": example}
                response = client.post(path, headers={"Content-Type": content_type}, **body)
                assert response.status_code == 200, (path, example, response.text)
                sent += 1
    assert sent == 4 + (2 if "matrix" in version else len(FORMS))
    events = [event for event in outbox_events(outbox) if isinstance(event, Prediction)]
    assert len(events) == sent
    assert all(event.features == events[0].features for event in events)  # the same row in each form


def test_example_of_outcomes_is_accepted_as_it_stands(client: TestClient) -> None:
    page = client.get("/openapi.json").json()
    content = page["paths"]["/outcomes"]["post"]["requestBody"]["content"]["application/json"]
    schema = page["components"]["schemas"][content["schema"]["$ref"].rsplit("/")[-1]]
    response = client.post("/outcomes", json=schema["example"])
    assert (response.status_code, response.json()) == (202, {"accepted": 2, "unmatchable": 0})


def test_page_has_predictions_first_and_names_that_are_sentences(client: TestClient) -> None:
    page = client.get("/openapi.json").json()
    assert list(page["paths"])[: len(FIRST_PATHS)] == FIRST_PATHS
    assert page["tags"][0] == {"name": "predictions"}
    operations = [operation for path in page["paths"].values() for operation in path.values()]
    assert {tag for operation in operations for tag in operation["tags"]} == {tag["name"] for tag in page["tags"]}
    summaries = [operation["summary"] for operation in operations]
    assert summaries[0] == "Predict rows"
    assert "Report outcomes of earlier predictions" in summaries
    assert all(summary[0].isupper() and " " in summary and summary != summary.title() for summary in summaries)


def test_page_without_a_version_has_no_examples(client: TestClient, manager: StaticModelManager) -> None:
    manager.serving = None
    paths = client.get("/openapi.json").json()["paths"]
    assert "example" not in paths["/predict"]["post"]["requestBody"]["content"]["application/json"]


@pytest.mark.parametrize(
    ("targets", "method", "expected"),
    [
        ([0, 0, 1, 1], "predict_proba", "Each prediction is the probability of the class 1"),
        (
            ["a", "b", "c", "c"],
            "predict_proba",
            "Each prediction has the probability of each class, in this order: 'a', 'b', 'c'",
        ),
        (["a", "b", "c", "c"], "predict", "Each prediction is a class"),
    ],
)
def test_page_says_of_what_class_a_probability_is(
    client: TestClient, manager: StaticModelManager, targets: list[Any], method: str, expected: str
) -> None:
    manager.serving = serving_model(LogisticRegression().fit(FRAME, targets), method=method)
    operation = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    assert operation["responses"]["200"]["description"] == expected
