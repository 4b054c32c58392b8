"""Rows have keys of the client's own, and columns that are recorded and never scored."""

import json
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from driftloop.events import Prediction
from predictor.outbox.outbox import Outbox
from predictor.serving.annotations import MAX_CONTEXT_COLUMNS
from tests.support.predictor_app import outbox_events

V1, V2 = "/v1/models/m:predict", "/v2/models/m/infer"
ROW = {"x": 1.5, "n": 2}
TWO_ROWS: dict[str, dict[str, Any]] = {
    "/predict": {"instances": [ROW, ROW]},
    V1: {"instances": [[1.5, 2], [1.5, 2]]},
    "/invocations": {"dataframe_records": [ROW, ROW]},
}


def tensors(rows: int = 1, **fields: Any) -> dict[str, Any]:
    inputs = [
        {"name": "x", "datatype": "FP64", "shape": [rows], "data": [1.5] * rows},
        {"name": "n", "datatype": "INT64", "shape": [rows], "data": [2] * rows},
    ]
    return {"inputs": [*inputs, *fields.pop("more", [])], **fields}


def context_tensor(name: str, datatype: str, *data: Any) -> dict[str, Any]:
    parameters = {"context": True}
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data, "parameters": parameters}


def only_event(outbox: Outbox) -> Prediction:
    (event,) = outbox_events(outbox)
    assert isinstance(event, Prediction)
    return event


@pytest.mark.parametrize("path", TWO_ROWS)
def test_keys_and_context_beside_the_rows_are_on_the_event(client: TestClient, outbox: Outbox, path: str) -> None:
    beside = {"keys": ["order-17", None], "context": [{"campaign": "spring", "n": 1}, {"n": None, "new": True}]}
    response = client.post(path, json=TWO_ROWS[path] | beside)
    assert response.status_code == 200, response.text
    event = only_event(outbox)
    assert event.keys == ["order-17", None]
    assert event.context == {"campaign": ["spring", None], "n": [1, None], "new": [None, True]}
    assert event.features == {"x": [1.5, 1.5], "n": [2, 2]}


@pytest.mark.parametrize("path", TWO_ROWS)
def test_predictions_are_the_same_with_context(client: TestClient, path: str) -> None:
    bare = client.post(path, json=TWO_ROWS[path]).json()["predictions"]
    assert client.post(path, json=TWO_ROWS[path] | {"context": [{"x": 9}, {"x": 9}]}).json()["predictions"] == bare


def test_events_without_keys_and_context_have_none(client: TestClient, outbox: Outbox) -> None:
    client.post("/predict", json={"instances": [ROW]})
    event = only_event(outbox)
    assert (event.keys, event.context) == (None, None)


def test_v2_has_keys_as_a_parameter_and_context_as_tensors(client: TestClient, outbox: Outbox) -> None:
    more = [
        context_tensor("campaign", "BYTES", "spring", None),
        context_tensor("visits", "INT64", 3, 4),
        context_tensor("x2", "FP64", float("1.5"), 2.5),
    ]
    body = tensors(2, more=more, parameters={"keys": ["order-17", None]}, id="a request")
    response = client.post(V2, json=body)
    assert response.status_code == 200, response.text
    assert response.json()["id"] == "a request"
    event = only_event(outbox)
    assert event.keys == ["order-17", None]
    assert event.context == {"campaign": ["spring", None], "visits": [3, 4], "x2": [1.5, 2.5]}
    assert event.features == {"x": [1.5, 1.5], "n": [2, 2]}


def test_v2_reads_binary_context(client: TestClient, outbox: Outbox) -> None:
    binary = np.array([np.nan]).tobytes()
    tensor = {**context_tensor("visits", "FP64", None), "parameters": {"context": True, "binary_data_size": 8}}
    text = json.dumps(tensors(more=[{name: tensor[name] for name in tensor if name != "data"}])).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    response = client.post(V2, content=text + binary, headers=headers)
    assert response.status_code == 200, response.text
    assert only_event(outbox).context == {"visits": [None]}


def test_v2_id_is_the_key_of_a_single_row_whose_outcome_may_name_it(client: TestClient, outbox: Outbox) -> None:
    assert client.post(V2, json=tensors(id="order-17")).json()["id"] == "order-17"
    assert only_event(outbox).keys == ["order-17"]
    response = client.post("/outcomes", json={"outcomes": [{"key": "order-17", "outcome": 1}]})
    assert response.json() == {"accepted": 1, "unmatchable": 0}


@pytest.mark.parametrize("body", [tensors(2, id="order-17"), tensors(id=""), tensors()], ids=["rows", "empty", "none"])
def test_v2_without_an_id_of_a_single_row_has_no_key(client: TestClient, outbox: Outbox, body: Any) -> None:
    assert client.post(V2, json=body).status_code == 200
    assert only_event(outbox).keys is None


def test_v2_key_in_a_parameter_or_header_goes_before_the_id(client: TestClient, outbox: Outbox) -> None:
    client.post(V2, json=tensors(id="a", parameters={"keys": ["b"]}))
    client.post(V2, json=tensors(id="a"), headers={"Driftloop-Key": "c"})
    assert [event.keys for event in outbox_events(outbox) if isinstance(event, Prediction)] == [["b"], ["c"]]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"instances": [ROW]}),
        (V1, {"instances": [ROW]}),
        ("/invocations", {"dataframe_split": {"columns": ["x", "n"], "data": [[1.5, 2]]}}),
        (V2, tensors()),
    ],
)
def test_header_is_the_key_of_a_single_row(client: TestClient, outbox: Outbox, path: str, body: Any) -> None:
    assert client.post(path, json=body, headers={b"Driftloop-Key": "größe 17".encode()}).status_code == 200
    assert only_event(outbox).keys == ["größe 17"]


def test_header_is_the_key_of_a_row_in_csv(client: TestClient, outbox: Outbox) -> None:
    headers = {"Content-Type": "text/csv", "Driftloop-Key": "order-17"}
    assert client.post("/invocations", content="x,n\n1.5,2\n", headers=headers).status_code == 200
    assert only_event(outbox).keys == ["order-17"]


TOO_MANY = {f"c{number}": 1 for number in range(MAX_CONTEXT_COLUMNS)}
INVALID: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "a key too few": ({"keys": ["a"]}, {}),
    "a key too many": ({"keys": ["a", "b", "c"]}, {}),
    "a number as key": ({"keys": [17, None]}, {}),
    "an empty key": ({"keys": ["", None]}, {}),
    "a long key": ({"keys": ["a" * 257, None]}, {}),
    "keys that are no list": ({"keys": "ab"}, {}),
    "a context too few": ({"context": [{"a": 1}]}, {}),
    "a context that is no list": ({"context": {"a": [1, 2]}}, {}),
    "a context of lists": ({"context": [{"a": [1]}, {}]}, {}),
    "a context without a name": ({"context": [{"": 1}, {}]}, {}),
    "too many columns": ({"context": [TOO_MANY, {"one more": 1}]}, {}),
    "a header for two rows": ({}, {"Driftloop-Key": "a"}),
    "a header and keys": ({"keys": ["a", "b"]}, {"Driftloop-Key": "a"}),
    "a long header": ({}, {"Driftloop-Key": "a" * 257}),
    "an empty header": ({}, {"Driftloop-Key": ""}),
}


@pytest.mark.parametrize("path", TWO_ROWS)
@pytest.mark.parametrize("name", INVALID)
def test_invalid_keys_and_context_are_an_error_and_not_scored(
    client: TestClient, outbox: Outbox, name: str, path: str
) -> None:
    body, headers = INVALID[name]
    response = client.post(path, json=TWO_ROWS[path] | body, headers=headers)
    assert response.status_code == (422 if path == "/predict" else 400), response.text
    assert not outbox_events(outbox)
    if path == "/predict":
        assert response.json()["detail"][0]["loc"][:2] in (
            ["body", "keys"], ["body", "context"], ["header", "Driftloop-Key"]
        )  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        tensors(id="a" * 257),
        tensors(parameters={"keys": ["a", "b"]}),
        tensors(parameters={"keys": [1]}),
        tensors(parameters={"keys": "a"}),
        tensors(more=[context_tensor("a", "FP64", 1.0, 2.0)]),
        tensors(more=[{**context_tensor("a", "FP64", 1.0, 2.0), "shape": [1, 2]}]),
        tensors(more=[context_tensor("x", "FP64", 1.0)]),
        {"inputs": [context_tensor("x", "FP64", 1.5), context_tensor("n", "INT64", 2)]},
    ],
    ids=[
        *("a long id", "two keys", "a number", "no list", "two values", "two values in a row", "a column twice"),
        "context only",
    ],
)
def test_v2_rejects_invalid_keys_and_context(client: TestClient, outbox: Outbox, body: Any) -> None:
    response = client.post(V2, json=body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]
    assert not outbox_events(outbox)
