"""What the predictor answers, and what it keeps before."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from driftloop.events import Outcome, Prediction
from driftloop.registry.library_versions import LibraryVersion
from predictor.outbox.outbox import Outbox
from predictor.settings import OutboxSettings
from tests.support.predictor_app import StaticModelManager, outbox_events, serving_model

ROW = {"x": 1.5, "n": 2}


def test_predict_response_equals_its_event(client: TestClient, outbox: Outbox) -> None:
    answer = client.post("/predict", json={"instances": [ROW, ROW]}).json()
    (event,) = outbox_events(outbox)
    assert isinstance(event, Prediction)
    assert event.classes == [0, 1]
    assert answer == {
        "id": event.id,
        "model": "m",
        "version": "7",
        "predictions": event.predictions,
        "classes": event.classes,
        "labels": event.labels,
    }
    assert event.features == {"x": [1.5, 1.5], "n": [2, 2]}


def test_predict_takes_event_time_from_header(client: TestClient, outbox: Outbox) -> None:
    client.post("/predict", json={"instances": [ROW]}, headers={"Driftloop-Time": "2013-07-01T05:00:00Z"})
    assert outbox_events(outbox)[0].time == datetime(2013, 7, 1, 5, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2013", "1372654800", "now", "2013-07-01T05:00:00"])
def test_predict_rejects_header_that_is_no_time_with_a_zone(client: TestClient, text: str) -> None:
    for path, body in (
        ("/predict", {"instances": [ROW]}),
        ("/outcomes", {"outcomes": [{"id": "p", "index": 0, "outcome": 1}]}),
    ):
        answer = client.post(path, json=body, headers={"Driftloop-Time": text})
        assert answer.status_code == 422, (path, answer.text)
        assert answer.json()["detail"][0]["loc"] == ["header", "Driftloop-Time"]


def test_full_outbox_rejects_requests_and_names_the_setting(make_client: Callable[..., Any], tmp_path: Path) -> None:
    full = Outbox(tmp_path / "full", OutboxSettings(max_events=1))
    with make_client(full) as client:
        assert client.post("/predict", json={"instances": [ROW]}).status_code == 200
        for path, body in (
            ("/predict", {"instances": [ROW]}),
            ("/outcomes", {"outcomes": [{"id": "a", "index": 0, "outcome": 1}]}),
        ):
            response = client.post(path, json=body)
            assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
            assert "DRIFTLOOP_OUTBOX__MAX_EVENTS" in response.json()["detail"]
        full.delete_through(10**6)
        assert client.post("/predict", json={"instances": [ROW]}).status_code == 200


def test_full_outbox_drops_events_if_set_to(make_client: Callable[..., Any], tmp_path: Path) -> None:
    full = Outbox(tmp_path / "full", OutboxSettings(max_events=1, on_full="drop"))
    with make_client(full) as client:
        before = client.get("/metrics").text
        for _ in range(3):
            assert client.post("/predict", json={"instances": [ROW]}).status_code == 200
        assert len(outbox_events(full)) == 1
        assert dropped_events(client.get("/metrics").text) == dropped_events(before) + 2


def dropped_events(metrics: str) -> float:
    (line,) = [line for line in metrics.splitlines() if line.startswith("driftloop_outbox_dropped_events_total ")]
    return float(line.split()[1])


def test_predict_rejects_request_whose_event_is_too_large(
    make_client: Callable[..., Any], manager: StaticModelManager, tmp_path: Path
) -> None:
    small = Outbox(tmp_path / "small", OutboxSettings(max_event_bytes=1_000))
    with make_client(small, max_rows=1_000) as client:
        assert manager.serving is not None
        manager.serving = serving_model(manager.serving.loaded.estimator, max_rows=1_000)
        response = client.post("/predict", json={"instances": [ROW] * 200})
        assert response.status_code == 413
        assert "DRIFTLOOP_OUTBOX__MAX_EVENT_BYTES" in response.json()["detail"]
        assert client.post("/predict", json={"instances": [ROW]}).status_code == 200


@pytest.mark.parametrize(
    ("body", "location"),
    [
        (b"", ["body"]),
        (b"\xff\xfe", ["body"]),
        (b'{"instances": [{"x": 1.0, "n"', ["body"]),
        (b"[" * 10_000, ["body"]),
        (b'{"instances": []}', ["body", "instances"]),
        (b'{"instances": [{"x": NaN, "n": 1}]}', ["body", "instances", 0, "x"]),
        (b'{"instances": [{"x": 1e999, "n": 1}]}', ["body", "instances", 0, "x"]),
        (b'{"instances": [{"x": 1.0, "n": 9223372036854775808}]}', ["body", "instances", 0, "n"]),
        (b'{"instances": [{"x": 1.0, "n": ' + b"9" * 1000 + b"}]}", ["body", "instances", 0, "n"]),
        (b'{"instances": [{"x": 1.0, "n": 1, "z": 1}]}', ["body", "instances", 0, "z"]),
    ],
)
def test_predict_invalid_body_is_422_with_location_and_stores_no_event(
    client: TestClient, outbox: Outbox, body: bytes, location: list[str | int]
) -> None:
    response = client.post("/predict", content=body)
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == location
    assert not outbox_events(outbox)
    assert client.post("/predict", json={"instances": [ROW]}).status_code == 200


def test_predict_invalid_time_header_is_422(client: TestClient) -> None:
    response = client.post("/predict", json={"instances": [ROW]}, headers={"Driftloop-Time": "yesterday"})
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["header", "Driftloop-Time"]


def test_predict_body_over_the_limit_is_413_with_and_without_content_length(make_client: Callable[..., Any]) -> None:
    with make_client(max_body_bytes=100) as client:
        with_content_length = client.post("/predict", content=b" " * 101)
        without_content_length = client.post("/predict", content=iter([b" " * 60, b" " * 60]))
        assert (with_content_length.status_code, without_content_length.status_code) == (413, 413)
        assert "DRIFTLOOP_PREDICTOR__MAX_BODY_BYTES" in with_content_length.json()["detail"]
        assert client.post("/predict", json={"instances": [ROW]}).status_code == 200


def test_predict_compressed_body_is_415(client: TestClient) -> None:
    assert client.post("/predict", content=b"x", headers={"Content-Encoding": "gzip"}).status_code == 415


def test_predict_other_methods_are_405(client: TestClient) -> None:
    response = client.put("/predict", json={"instances": [ROW]})
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    assert client.get("/predict").status_code in (404, 405)


def test_predict_rows_that_the_model_cannot_score_are_422_with_the_reason(
    client: TestClient, manager: StaticModelManager
) -> None:
    class SometimesNan:
        def predict(self, frame: Any) -> Any:
            return np.where(frame["x"] > 1, np.nan, 0.5)

    manager.serving = serving_model(SometimesNan(), method="predict")
    response = client.post("/predict", json={"instances": [ROW]})
    assert response.status_code == 422
    assert "not a finite number" in response.json()["detail"]
    assert client.post("/predict", json={"instances": [{"x": 0.5, "n": 1}]}).status_code == 200


def test_predict_internal_error_is_500_and_the_next_request_succeeds(
    client: TestClient, manager: StaticModelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert manager.serving is not None
    with monkeypatch.context() as patch:
        patch.setattr(manager.serving.schema, "parse", None)
        assert client.post("/predict", json={"instances": [ROW]}).status_code == 500
    assert client.post("/predict", json={"instances": [ROW]}).status_code == 200


def test_outcomes_are_stored_one_event_per_row(client: TestClient, outbox: Outbox) -> None:
    body = {"outcomes": [{"id": "a", "index": 0, "outcome": 1}, {"id": "a", "index": 1, "outcome": 0}]}
    assert client.post("/outcomes", json=body).status_code == 202
    assert [(e.prediction_id, e.index, e.outcome) for e in outbox_events(outbox) if isinstance(e, Outcome)] == [
        ("a", 0, 1.0),
        ("a", 1, 0.0),
    ]


def test_openapi_describes_the_version_in_service(client: TestClient, manager: StaticModelManager) -> None:
    page = client.get("/openapi.json").json()
    body = page["components"]["schemas"]["Instances"]
    assert page["info"]["version"] == "7"
    assert body["example"] == {"instances": [{"x": 0.0, "n": 1}]}
    assert page["components"]["schemas"]["Instance"]["required"] == ["x", "n"]
    manager.serving = None
    assert client.get("/openapi.json").json()["info"]["version"] == "none"


def test_metrics_count_requests_by_status_and_version(client: TestClient) -> None:
    client.post("/predict", json={"instances": [ROW]})
    client.post("/predict", json={})
    metrics = client.get("/metrics").text
    assert 'driftloop_predictor_requests_total{protocol="predict",status="200",version="7"}' in metrics
    assert 'driftloop_predictor_requests_total{protocol="predict",status="422",version=""}' in metrics


def test_models_returns_the_versions_of_libraries(client: TestClient, manager: StaticModelManager) -> None:
    assert manager.serving is not None
    loaded = manager.serving.loaded._replace(library_versions={"skops": LibraryVersion("0.9", "0.16")})
    manager.serving = replace(manager.serving, loaded=loaded)
    assert client.get("/models").json()["library_versions"] == {"skops": {"saved": "0.9", "running": "0.16"}}
    manager.serving = None
    assert client.get("/models").json()["library_versions"] == {}


def test_models_returns_the_version_in_service(client: TestClient, manager: StaticModelManager) -> None:
    status = client.get("/models").json()
    assert (status["model"], status["version"], status["version_source"], status["rejected"]) == (
        "m",
        "7",
        "alias",
        None,
    )
    assert status["alias_version"] == "7"
    assert status["output"] == {"kind": "probability", "classes": [0, 1], "size": 1}
    manager.serving = None
    assert client.get("/models").json()["version"] is None
