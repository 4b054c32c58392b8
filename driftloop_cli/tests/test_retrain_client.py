"""The HTTP client and the trainer's API over a real connection."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import SecretStr

from driftloop.errors import BrokerUnavailable, TrainerUnavailable
from driftloop.events import Event, ModelStateChanged, RetrainRequest, RetrainRequested
from driftloop.retrain_summary import RetrainSummary
from driftloop.telemetry.health import Health
from driftloop_cli import retrain_client
from driftloop_cli.retrain_client import HttpRetrainClient, RetrainRequestRejected
from trainer.api import create_api

API_KEY = "open sesame"
TIME = "2026-01-01T00:00:00Z"
REQUEST = RetrainRequest(reason="two new carriers", requested_by="somebody")


class FakeTopics:
    """Publisher and retrain history of the API. The first stream of states breaks after its first state."""

    def __init__(self) -> None:
        self.published: list[Event] = []
        self.unavailable = False
        self.connections = 0
        self.final_state = "promoted"

    def publish(self, event: Event) -> None:
        if self.unavailable:
            raise BrokerUnavailable("no broker")
        self.published.append(event)

    def states(self, retrain_id: str) -> list[ModelStateChanged] | None:
        return [] if any(event.id == retrain_id for event in self.published) else None

    def request(self, retrain_id: str) -> RetrainRequested | None:
        requests = (event for event in self.published if isinstance(event, RetrainRequested))
        return next((event for event in requests if event.id == retrain_id), None)

    def stream(self, retrain_id: str) -> Iterator[ModelStateChanged | None]:
        self.connections += 1
        yield model_state(retrain_id, "training", "1")
        if self.connections == 1:
            raise ConnectionError("broken")
        yield None
        yield model_state(retrain_id, self.final_state, "2")


def model_state(retrain_id: str, state: str, event_id: str) -> ModelStateChanged:
    fields = {
        "id": event_id,
        "retrain_id": retrain_id,
        "model": "flights",
        "state": state,
        "explanation": f"is {state}",
    }
    return ModelStateChanged.model_validate(fields)


@contextmanager
def serve(app: FastAPI) -> Iterator[str]:
    """Serve an application; yield its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def topics() -> FakeTopics:
    return FakeTopics()


@pytest.fixture
def url(topics: Any) -> Iterator[str]:
    with serve(create_api("flights", SecretStr(API_KEY), topics, Health(), topics, topics)) as address:
        yield address


@pytest.fixture(autouse=True)
def _reconnect_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrain_client, "RECONNECT_DELAY_SECONDS", 0)


def test_http_client_yields_each_state_once_after_a_broken_connection(url: str, topics: FakeTopics) -> None:
    with HttpRetrainClient(url, API_KEY) as client:
        submitted = client.submit(REQUEST)
        states = [state.state for state in submitted.states if state is not None]
    assert states == ["training", "promoted"]
    assert topics.connections == 2
    assert [event.id for event in topics.published] == [submitted.id]


def test_http_client_yields_none_for_heartbeats() -> None:
    app = FastAPI()

    @app.post("/retrain")
    def _retrain() -> dict[str, str]:
        return {"id": "a"}

    @app.get("/retrain/a")
    def _states() -> StreamingResponse:
        lines = ["\n", "\n", model_state("a", "failed", "1").model_dump_json() + "\n"]
        return StreamingResponse(iter(lines), media_type="application/x-ndjson")

    with serve(app) as url, HttpRetrainClient(url, API_KEY) as client:
        states = list(client.submit(REQUEST).states)
    assert [state and state.state for state in states] == [None, None, "failed"]


def test_http_client_yields_the_retrain_before_it_while_it_waits() -> None:
    app = FastAPI()
    retrains = [
        {"retrain_id": "a", "model": "flights", "time": TIME, "state": "waiting", "waits_for": "b"},
        {"retrain_id": "b", "model": "flights", "time": TIME, "state": "training", "requested_by": "policy"},
    ]

    @app.post("/retrain")
    def _retrain() -> dict[str, str]:
        return {"id": "a"}

    @app.get("/retrain")
    def _retrains() -> list[dict[str, str]]:
        return retrains

    @app.get("/retrain/a")
    def _states() -> StreamingResponse:
        lines = ["\n", *(model_state("a", state, state).model_dump_json() + "\n" for state in ("training", "failed"))]
        return StreamingResponse(iter([*lines[:2], "\n", lines[2]]), media_type="application/x-ndjson")

    with serve(app) as url, HttpRetrainClient(url, API_KEY) as client:
        before, *states = client.submit(REQUEST).states
    assert isinstance(before, RetrainSummary)
    assert (before.retrain_id, before.requested_by) == ("b", "policy")
    assert [state and state.state for state in states] == ["training", None, "failed"]


def test_http_client_reconnects_when_no_heartbeat_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrain_client, "READ_TIMEOUT_SECONDS", 0.2)
    app = FastAPI()
    silent = threading.Event()

    def lines() -> Iterator[str]:
        if silent.is_set():
            yield model_state("a", "failed", "1").model_dump_json() + "\n"
        else:
            yield "\n"
            silent.set()
            threading.Event().wait(0.6)

    @app.post("/retrain")
    def _retrain() -> dict[str, str]:
        return {"id": "a"}

    @app.get("/retrain/a")
    def _states() -> StreamingResponse:
        return StreamingResponse(lines(), media_type="application/x-ndjson")

    with serve(app) as url, HttpRetrainClient(url, API_KEY) as client:
        states = [state.state for state in client.submit(REQUEST).states if state is not None]
    assert states == ["failed"]


def test_http_client_dry_run_publishes_nothing(url: str, topics: FakeTopics) -> None:
    with HttpRetrainClient(url, API_KEY) as client:
        event = client.dry_run(REQUEST)
    assert (event.model, event.reason, event.requested_by) == ("flights", "two new carriers", "somebody")
    assert not topics.published


def test_http_client_says_where_a_selection_belongs(url: str) -> None:
    response = httpx.post(f"{url}/retrain", json={"reason": "x", "from": "2013-06-01"}, headers={"X-API-Key": API_KEY})
    assert response.status_code == 422
    assert '"data": {"start": "2013-06-01"}' in response.text.replace("\\", "")


def test_http_client_raises_request_rejected_for_a_wrong_key(url: str, topics: FakeTopics) -> None:
    with HttpRetrainClient(url, "wrong") as client:
        for send in (client.submit, client.dry_run):
            with pytest.raises(RetrainRequestRejected, match=r"X-API-Key.*HTTP 401"):
                send(REQUEST)
    assert not topics.published


def test_http_client_raises_trainer_unavailable_if_the_trainer_has_no_broker(url: str, topics: FakeTopics) -> None:
    topics.unavailable = True
    with HttpRetrainClient(url, API_KEY) as client, pytest.raises(TrainerUnavailable, match=r"no broker.*HTTP 503"):
        client.submit(REQUEST)
    assert not topics.published


def test_http_client_raises_trainer_unavailable_if_nothing_listens() -> None:
    with (
        HttpRetrainClient("http://127.0.0.1:9", API_KEY) as client,
        pytest.raises(TrainerUnavailable, match="--trainer-url"),
    ):
        client.submit(REQUEST)
