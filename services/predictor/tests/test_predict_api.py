"""What the predictor answers, and what it keeps before."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from driftloop.events import Outcome, Prediction
from predictor.outbox.outbox import Outbox
from predictor.settings import OutboxSettings
from tests.support.predictor_app import StaticModelManager, outbox_events, serving_model

ROW = {"x": 1.5, "n": 2}


def test_an_answer_and_its_event_say_the_same(client: TestClient, outbox: Outbox) -> None:
    answer = client.post("/predict", json={"instances": [ROW, ROW]}).json()
    (event,) = outbox_events(outbox)
    assert isinstance(event, Prediction)
    assert answer == {"id": event.id, "model": "m", "version": "7", "predictions": event.predictions}
    assert event.features == {"x": [1.5, 1.5], "n": [2, 2]}


def test_a_replay_says_when_its_rows_happened(client: TestClient, outbox: Outbox) -> None:
    client.post("/predict", json={"instances": [ROW]}, headers={"Driftloop-Time": "2013-07-01T05:00:00Z"})
    assert outbox_events(outbox)[0].time == datetime(2013, 7, 1, 5, tzinfo=UTC)


def test_a_full_outbox_refuses_requests_and_says_which_setting_decides(
    make_client: Callable[..., Any], tmp_path: Path
) -> None:
    full = Outbox(tmp_path / "full", OutboxSettings(max_events=1))
    with make_client(full) as client:
        assert client.post("/predict", json={"instances": [ROW]}).status_code == 200
        for path, body in (
            ("/predict", {"instances": [ROW]}),
            ("/outcomes", {"outcomes": [{"id": "a", "index": 0, "outcome": 1}]}),
        ):
            refused = client.post(path, json=body)
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
            assert "DRIFTLOOP_OUTBOX__MAX_EVENTS" in refused.json()["detail"]
        full.delete_through(10**6)
        assert client.post("/predict", json={"instances": [ROW]}).status_code == 200


def test_a_full_outbox_may_be_set_to_drop(make_client: Callable[..., Any], tmp_path: Path) -> None:
    full = Outbox(tmp_path / "full", OutboxSettings(max_events=1, on_full="drop"))
    with make_client(full) as client:
        before = client.get("/metrics").text
        for _ in range(3):
            assert client.post("/predict", json={"instances": [ROW]}).status_code == 200
        assert len(outbox_events(full)) == 1
        assert dropped(client.get("/metrics").text) == dropped(before) + 2


def dropped(metrics: str) -> float:
    (line,) = [line for line in metrics.splitlines() if line.startswith("driftloop_outbox_dropped_events_total ")]
    return float(line.split()[1])


def test_an_event_that_the_broker_would_not_take_is_refused_alone(
    make_client: Callable[..., Any], manager: StaticModelManager, tmp_path: Path
) -> None:
    small = Outbox(tmp_path / "small", OutboxSettings(max_event_bytes=1_000))
    with make_client(small, max_rows=1_000) as client:
        assert manager.serving is not None
        manager.serving = serving_model(manager.serving.loaded.estimator, max_rows=1_000)
        refused = client.post("/predict", json={"instances": [ROW] * 200})
        assert refused.status_code == 413
        assert "DRIFTLOOP_OUTBOX__MAX_EVENT_BYTES" in refused.json()["detail"]
        assert client.post("/predict", json={"instances": [ROW]}).status_code == 200


@pytest.mark.parametrize(
    ("body", "place"),
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
def test_what_is_no_request_is_a_422_that_says_where_and_no_event(
    client: TestClient, outbox: Outbox, body: bytes, place: list[str | int]
) -> None:
    refused = client.post("/predict", content=body)
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == place
    assert not outbox_events(outbox)
    assert client.post("/predict", json={"instances": [ROW]}).status_code == 200


def test_a_time_that_is_none_is_a_422(client: TestClient) -> None:
    refused = client.post("/predict", json={"instances": [ROW]}, headers={"Driftloop-Time": "yesterday"})
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == ["header", "Driftloop-Time"]


def test_a_body_over_the_limit_is_a_413_whether_it_says_so_or_not(make_client: Callable[..., Any]) -> None:
    with make_client(max_body_bytes=100) as client:
        said = client.post("/predict", content=b" " * 101)
        unsaid = client.post("/predict", content=iter([b" " * 60, b" " * 60]))
        assert (said.status_code, unsaid.status_code) == (413, 413)
        assert "DRIFTLOOP_PREDICTOR__MAX_BODY_BYTES" in said.json()["detail"]
        assert client.post("/predict", json={"instances": [ROW]}).status_code == 200


def test_a_compressed_body_is_a_415(client: TestClient) -> None:
    assert client.post("/predict", content=b"x", headers={"Content-Encoding": "gzip"}).status_code == 415


def test_another_method_is_no_prediction(client: TestClient) -> None:
    refused = client.put("/predict", json={"instances": [ROW]})
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")
    assert client.get("/predict").status_code in (404, 405)


def test_rows_that_the_model_cannot_score_are_a_422_with_the_reason(
    client: TestClient, manager: StaticModelManager
) -> None:
    class Odd:
        def predict(self, frame: Any) -> Any:
            return np.where(frame["x"] > 1, np.nan, 0.5)

    manager.serving = serving_model(Odd(), method="predict")
    refused = client.post("/predict", json={"instances": [ROW]})
    assert refused.status_code == 422
    assert "not a finite number" in refused.json()["detail"]
    assert client.post("/predict", json={"instances": [{"x": 0.5, "n": 1}]}).status_code == 200


def test_a_fault_of_the_predictor_is_a_500_and_the_next_request_works(
    client: TestClient, manager: StaticModelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert manager.serving is not None
    with monkeypatch.context() as patch:
        patch.setattr(manager.serving.schema, "parse", None)
        assert client.post("/predict", json={"instances": [ROW]}).status_code == 500
    assert client.post("/predict", json={"instances": [ROW]}).status_code == 200


def test_outcomes_are_published_one_a_row(client: TestClient, outbox: Outbox) -> None:
    body = {"outcomes": [{"id": "a", "index": 0, "outcome": 1}, {"id": "a", "index": 1, "outcome": 0}]}
    assert client.post("/outcomes", json=body).status_code == 202
    assert [(e.prediction_id, e.index, e.outcome) for e in outbox_events(outbox) if isinstance(e, Outcome)] == [
        ("a", 0, 1.0),
        ("a", 1, 0.0),
    ]


def test_the_page_follows_the_version_in_service(client: TestClient, manager: StaticModelManager) -> None:
    page = client.get("/openapi.json").json()
    body = page["components"]["schemas"]["Instances"]
    assert page["info"]["version"] == "7"
    assert body["example"] == {"instances": [{"x": 0.0, "n": 1}]}
    assert page["components"]["schemas"]["Instance"]["required"] == ["x", "n"]
    manager.serving = None
    assert client.get("/openapi.json").json()["info"]["version"] == "none"


def test_requests_are_counted_by_status_and_version(client: TestClient) -> None:
    client.post("/predict", json={"instances": [ROW]})
    client.post("/predict", json={})
    metrics = client.get("/metrics").text
    assert 'driftloop_predictor_requests_total{protocol="predict",status="200",version="7"}' in metrics
    assert 'driftloop_predictor_requests_total{protocol="predict",status="422",version=""}' in metrics


def test_models_shows_what_is_in_service(client: TestClient, manager: StaticModelManager) -> None:
    shown = client.get("/models").json()
    assert (shown["model"], shown["version"], shown["version_source"], shown["rejected"]) == ("m", "7", "alias", None)
    manager.serving = None
    assert client.get("/models").json()["version"] is None
