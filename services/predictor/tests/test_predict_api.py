"""What the predictor answers, and what it publishes before."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pandas as pd
import pytest
from fastapi.testclient import TestClient
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

from driftloop.events import Event, Outcome, Prediction
from driftloop.producing import Unavailable
from driftloop.telemetry import Health
from predictor.api import create
from predictor.schema import schema
from predictor.serving import Serving

FRAME = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "n": [1, 2, 3, 4]})
SIGNATURE = infer_signature(FRAME)
ROW = {"x": 1.5, "n": 2}


class Always:
    """Stands in for the champion: one version that is never swapped."""

    def __init__(self) -> None:
        estimator = LogisticRegression().fit(FRAME, [0, 0, 1, 1])
        self.serving: Serving | None = Serving("7", schema(SIGNATURE, FRAME.head(1), max_rows=3), estimator)

    def refresh(self) -> None:
        pass


class Published(list[Event]):
    """Stands in for the broker."""

    away = False

    async def publish_async(self, *events: Event) -> None:
        if self.away:
            raise Unavailable("no answer for 10 s")
        self.extend(events)

    def close(self) -> None:
        pass


@pytest.fixture
def champion() -> Always:
    return Always()


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def client(champion: Always, published: Published) -> Iterator[TestClient]:
    app = create("m", champion, published, Health(), poll_seconds=60)  # type: ignore[arg-type]  # a stand-in
    with TestClient(app) as client:
        yield client


def test_an_answer_and_its_event_say_the_same(client: TestClient, published: Published) -> None:
    answer = client.post("/predict", json={"instances": [ROW, ROW]}).json()
    (event,) = published
    assert isinstance(event, Prediction)
    assert answer == {"id": event.id, "model": "m", "version": "7", "predictions": event.predictions}
    assert event.features == {"x": [1.5, 1.5], "n": [2, 2]}


def test_a_replay_says_when_its_rows_happened(client: TestClient, published: Published) -> None:
    client.post("/predict", json={"instances": [ROW]}, headers={"Driftloop-Time": "2013-07-01T05:00:00Z"})
    assert published[0].time == datetime(2013, 7, 1, 5, tzinfo=UTC)


def test_without_its_event_a_request_is_not_answered(client: TestClient, published: Published) -> None:
    published.away = True
    refused = client.post("/predict", json={"instances": [ROW]})
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
    assert "could not be published" in refused.json()["detail"]


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
    client: TestClient, published: Published, body: bytes, place: list[str | int]
) -> None:
    refused = client.post("/predict", content=body)
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == place
    assert not published


def test_outcomes_are_published_one_a_row(client: TestClient, published: Published) -> None:
    body = {"outcomes": [{"id": "a", "index": 0, "outcome": 1}, {"id": "a", "index": 1, "outcome": 0}]}
    assert client.post("/outcomes", json=body).status_code == 202
    assert [(e.prediction_id, e.index, e.outcome) for e in published if isinstance(e, Outcome)] == [
        ("a", 0, 1.0),
        ("a", 1, 0.0),
    ]


def test_the_page_follows_the_version_in_service(client: TestClient, champion: Always) -> None:
    page = client.get("/openapi.json").json()
    body = page["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert page["info"]["version"] == "7"
    assert body["example"] == {"instances": [{"x": 0.0, "n": 1}]}
    assert page["components"]["schemas"]["Instance"]["required"] == ["x", "n"]
    champion.serving = None
    assert client.get("/openapi.json").json()["info"]["version"] == "none"


def test_requests_are_counted_by_status_and_version(client: TestClient) -> None:
    client.post("/predict", json={"instances": [ROW]})
    client.post("/predict", json={})
    metrics = client.get("/metrics").text
    assert 'driftloop_predictor_requests_total{status="200",version="7"}' in metrics
    assert 'driftloop_predictor_requests_total{status="422",version=""}' in metrics
