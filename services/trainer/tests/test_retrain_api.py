"""The trainer's API: retrains, their states and rollbacks, all of them with the key only."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from driftloop.errors import BrokerUnavailable, RegistryUnavailable
from driftloop.events import Event, ModelStateChanged, RetrainRequested
from driftloop.registry.model_registry import AliasChanging
from driftloop.retrain_summary import RetrainSummary, summarize_retrains
from driftloop.telemetry.health import Health
from trainer import api
from trainer.api import create_api

KEY = {"X-API-Key": "open sesame"}
STATES = [
    ModelStateChanged(retrain_id="a/b", model="flights", state="training", explanation=""),
    ModelStateChanged(retrain_id="a/b", model="flights", version="2", state="promoted", explanation=""),
]

WAITING = {"reason": "it is summer", "requested_by": "root"}


class FakePublisher:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.unavailable = False

    def publish(self, event: Event) -> None:
        if self.unavailable:
            raise BrokerUnavailable("no broker")
        self.events.append(event)


class FakeHistory:
    def __init__(self, publisher: FakePublisher) -> None:
        self.publisher = publisher
        self.retrains = {"a/b": STATES, "waiting": list[ModelStateChanged]()}
        self.unavailable = False

    def states(self, retrain_id: str) -> list[ModelStateChanged] | None:
        if self.unavailable:
            raise BrokerUnavailable("no broker")
        return self.retrains.get(retrain_id)

    def request(self, retrain_id: str) -> RetrainRequested | None:
        if self.unavailable:
            raise BrokerUnavailable("no broker")
        published = (event for event in self.publisher.events if isinstance(event, RetrainRequested))
        return next((event for event in published if event.id == retrain_id), None)

    def summaries(self, model: str, count: int) -> list[RetrainSummary]:
        if self.unavailable:
            raise BrokerUnavailable("no broker")
        events: list[Event] = [*STATES, RetrainRequested(id="waiting", model=model, trigger="manual", **WAITING)]
        return summarize_retrains(events, model, count)

    def stream(self, retrain_id: str) -> Iterator[ModelStateChanged | None]:
        yield None
        yield from self.retrains[retrain_id]


class FakeRegistry:
    """A registry with three versions, the last of which is in service."""

    model, alias = "flights", "champion"

    def __init__(self) -> None:
        self.aliases: dict[str, str | None] = {"champion": "3", "previous": "2"}
        self.unavailable = False
        self.lock = threading.Lock()

    @contextmanager
    def changing_alias(self, *, wait: bool) -> Iterator[None]:
        if not self.lock.acquire(blocking=wait):
            raise AliasChanging("another change of the alias is under way")
        try:
            yield
        finally:
            self.lock.release()

    def last_champion(self) -> str | None:
        return "3"

    def champion(self) -> str | None:
        if self.unavailable:
            raise RegistryUnavailable("no registry")
        return self.aliases["champion"]

    def previous(self) -> str | None:
        return self.aliases["previous"]

    def versions(self) -> list[str]:
        return ["1", "2", "3"]

    def trained_through(self, _: str) -> pd.Timestamp:
        return pd.Timestamp(0, tz="UTC")

    def retrain_id_of(self, version: str) -> str:
        return f"retrain-{version}"

    def apply_rollback(self, version: str, change: ModelStateChanged) -> None:
        assert version in change.explanation
        self.aliases = {"champion": change.version, "previous": None}


@pytest.fixture
def publisher() -> FakePublisher:
    return FakePublisher()


@pytest.fixture
def history(publisher: FakePublisher) -> FakeHistory:
    return FakeHistory(publisher)


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def client(publisher: FakePublisher, registry: FakeRegistry, history: FakeHistory) -> TestClient:
    key = SecretStr(KEY["X-API-Key"])
    return TestClient(create_api("flights", key, publisher, Health(), registry, history))  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/retrain", "/retrain/dry-run", "/rollback"])
def test_web_page_cannot_write_because_browsers_do_not_send_the_key_by_themselves(
    client: TestClient, publisher: FakePublisher, registry: FakeRegistry, path: str
) -> None:
    page = {"Origin": "https://evil.example"}
    assert (
        client.post(path, content='{"reason": "x"}', headers={**page, "Content-Type": "text/plain"}).status_code == 401
    )
    # To send the key, a page would have to ask first whether it may, and no header of the answer says so.
    ask = {**page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    answer = client.options(path, headers=ask)
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert not publisher.events
    assert registry.aliases["champion"] == "3"


def test_retrain_api_publishes_request_with_key(client: TestClient, publisher: FakePublisher) -> None:
    response = client.post("/retrain", json={"reason": "why not"}, headers=KEY)
    assert response.status_code == 202
    (event,) = publisher.events
    assert isinstance(event, RetrainRequested)
    assert (event.id, event.model, event.reason) == (response.json()["id"], "flights", "why not")


def test_retrain_api_request_without_a_name_is_by_the_key(client: TestClient, publisher: FakePublisher) -> None:
    client.post("/retrain", json={"reason": "why not"}, headers=KEY)
    client.post("/retrain", json={"reason": "why not", "requested_by": "root"}, headers=KEY)
    assert [event.requested_by for event in publisher.events if isinstance(event, RetrainRequested)] == [
        "API key",
        "root",
    ]


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        ({"start": "2013-06-01", "last_rows": 5}, '"data": {"start": "2013-06-01", "last_rows": 5}'),
        ({"from": "2013-06-01", "to": "2013-07-01"}, '"data": {"start": "2013-06-01", "base_end": "2013-07-01"}'),
    ],
    ids=["fields", "options of the command"],
)
def test_retrain_api_says_where_a_selection_belongs(
    client: TestClient, publisher: FakePublisher, fields: dict[str, object], data: str
) -> None:
    response = client.post("/retrain", json={"reason": "why not", **fields}, headers=KEY)
    assert response.status_code == 422
    (problem,) = response.json()["detail"]
    assert problem["msg"].endswith(data)
    assert not publisher.events


def test_retrain_api_lists_the_last_retrains_with_the_latest_first(client: TestClient, history: FakeHistory) -> None:
    assert client.get("/retrain").status_code == 401
    listed = client.get("/retrain", headers=KEY).json()
    assert [(retrain["retrain_id"], retrain["state"]) for retrain in listed] == [
        ("waiting", "waiting"),
        ("a/b", "promoted"),
    ]
    assert (listed[0]["requested_by"], listed[0]["reason"]) == ("root", "it is summer")
    assert [retrain["retrain_id"] for retrain in client.get("/retrain?limit=1", headers=KEY).json()] == ["waiting"]
    assert client.get("/retrain?limit=0", headers=KEY).status_code == 422
    history.unavailable = True
    assert client.get("/retrain", headers=KEY).status_code == 503


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "wrong"}, {"X-API-Key": ""}])
def test_retrain_api_rejects_request_without_key(
    client: TestClient, publisher: FakePublisher, headers: dict[str, str]
) -> None:
    assert client.post("/retrain", json={"reason": "why not"}, headers=headers).status_code == 401
    assert not publisher.events


def test_retrain_api_names_invalid_fields(client: TestClient, publisher: FakePublisher) -> None:
    response = client.post("/retrain", json={"reason": "", "dta": {}}, headers=KEY)
    assert response.status_code == 422
    assert {tuple(problem["loc"]) for problem in response.json()["detail"]} == {("body", "reason"), ("body", "dta")}
    assert not publisher.events


def test_retrain_api_responds_503_without_broker(client: TestClient, publisher: FakePublisher) -> None:
    publisher.unavailable = True
    assert client.post("/retrain", json={"reason": "why not"}, headers=KEY).status_code == 503


def test_retrain_api_dry_run_publishes_nothing(client: TestClient, publisher: FakePublisher) -> None:
    assert client.post("/retrain/dry-run", json={"reason": "why not"}).status_code == 401
    response = client.post("/retrain/dry-run", json={"reason": "why not"}, headers=KEY)
    assert (response.status_code, response.json()["model"]) == (200, "flights")
    assert not publisher.events


def test_retrain_api_streams_states_until_final_one(client: TestClient) -> None:
    assert client.get("/retrain/a/b").status_code == 401
    states = client.get("/retrain/a/b", headers=KEY)
    assert states.status_code == 200
    assert [state["state"] for state in states.json()] == ["training", "promoted"]
    stream = client.get("/retrain/a/b", params={"wait": True}, headers=KEY)
    assert stream.headers["content-type"].startswith("application/x-ndjson")
    assert [json.loads(line) for line in stream.text.splitlines()] == states.json()


def test_retrain_api_sends_empty_line_as_heartbeat(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "HEARTBEAT_SECONDS", 0)
    lines = client.get("/retrain/a/b?wait=true", headers=KEY).text.split("\n")
    assert lines[0] == ""
    assert [json.loads(line)["state"] for line in lines if line] == ["training", "promoted"]


def test_retrain_api_heartbeat_follows_at_most_ten_seconds_of_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The history yields None for each second without an event."""
    clock = iter(range(100))
    monkeypatch.setattr("trainer.api.time.monotonic", lambda: next(clock) / 2)
    lines = list(api._ndjson(iter([None] * 40)))
    assert set(lines) == {"", "\n"}
    silences = "".join("." if line == "" else "|" for line in lines).split("|")
    assert max(map(len, silences)) < 2 * 10


def test_retrain_api_has_no_states_of_waiting_retrain(client: TestClient) -> None:
    assert client.get("/retrain/waiting", headers=KEY).json() == []
    assert client.get("/retrain/waiting?wait=true", headers=KEY).text == ""


@pytest.mark.parametrize("wait", [False, True])
def test_retrain_api_responds_404_for_unknown_retrain(client: TestClient, history: FakeHistory, *, wait: bool) -> None:
    response = client.get("/retrain/unknown", params={"wait": wait}, headers=KEY)
    assert (response.status_code, response.json()["detail"]) == (404, "there is no retrain unknown")
    history.unavailable = True
    assert client.get("/retrain/a/b", params={"wait": wait}, headers=KEY).status_code == 503


def test_retrain_api_rollback_moves_alias_and_publishes_event(
    client: TestClient, publisher: FakePublisher, registry: FakeRegistry
) -> None:
    assert client.post("/rollback", json={"reason": "units"}).status_code == 401
    response = client.post("/rollback", json={"reason": "units"}, headers=KEY)
    assert response.status_code == 200
    (event,) = publisher.events
    assert isinstance(event, ModelStateChanged)
    assert (event.state, event.version, event.retrain_id) == ("rolled_back", "2", "retrain-3")
    assert event.explanation == "version 2 serves again instead of version 3: units"
    assert response.json() == json.loads(event.model_dump_json())
    assert registry.aliases == {"champion": "2", "previous": None}


@pytest.mark.parametrize(
    ("aliases", "to", "message"),
    [
        ({"champion": None, "previous": None}, None, "name the one to serve with --to; version 3 had it last"),
        ({"champion": "3", "previous": None}, None, "no version to roll back to"),
        ({"champion": "3", "previous": "3"}, None, "version 3 is already in service"),
        ({"champion": "3", "previous": "2"}, "3", "version 3 is already in service"),
        ({"champion": "3", "previous": "2"}, "7", "flights has no version 7; its versions are 1, 2, 3"),
    ],
)
def test_retrain_api_impossible_rollback_changes_nothing(
    client: TestClient,
    publisher: FakePublisher,
    registry: FakeRegistry,
    aliases: dict[str, str | None],
    to: str,
    message: str,
) -> None:
    registry.aliases = aliases
    response = client.post("/rollback", json={"reason": "units", "to": to}, headers=KEY)
    assert response.status_code == 409
    assert message in response.json()["detail"]
    assert registry.aliases == aliases
    assert not publisher.events


def test_retrain_api_rolls_back_to_named_version(client: TestClient, registry: FakeRegistry) -> None:
    response: httpx.Response = client.post("/rollback", json={"reason": "units", "to": "1"}, headers=KEY)
    assert response.json()["version"] == "1"
    assert registry.aliases["champion"] == "1"


def test_retrain_api_rollback_during_another_change_of_the_alias_is_409(
    client: TestClient, publisher: FakePublisher, registry: FakeRegistry
) -> None:
    with registry.lock:
        response = client.post("/rollback", json={"reason": "units"}, headers=KEY)
    assert (response.status_code, registry.aliases["champion"]) == (409, "3")
    assert not publisher.events
    assert client.post("/rollback", json={"reason": "units"}, headers=KEY).status_code == 200


def test_retrain_api_request_that_is_repeated_with_its_key_is_one_retrain(
    client: TestClient, publisher: FakePublisher, history: FakeHistory
) -> None:
    def post(key: str, reason: str = "why not") -> httpx.Response:
        headers = {**KEY, "Idempotency-Key": key}
        response: httpx.Response = client.post("/retrain", json={"reason": reason}, headers=headers)
        return response

    answers = [post("a"), post("a"), post("b"), post("a")]
    assert [answer.status_code for answer in answers] == [202] * 4
    ids = [answer.json()["id"] for answer in answers]
    assert ids == [ids[0], ids[0], ids[2], ids[0]]
    assert [event.id for event in publisher.events] == [ids[0], ids[2]]
    assert post("a", "another reason").status_code == 422
    assert post("").status_code == 422
    assert len(publisher.events) == 2
    history.unavailable = True
    assert post("c").status_code == 503
    assert len(publisher.events) == 2


def test_retrain_api_dry_run_responds_503_without_broker(client: TestClient, history: FakeHistory) -> None:
    history.unavailable = True
    assert client.post("/retrain/dry-run", json={"reason": "why not"}, headers=KEY).status_code == 503


def test_retrain_api_rollback_names_unavailable_dependency(
    client: TestClient, publisher: FakePublisher, registry: FakeRegistry
) -> None:
    publisher.unavailable = True
    response = client.post("/rollback", json={"reason": "units"}, headers=KEY)
    assert response.status_code == 503
    assert "version 2 serves again instead of version 3" in response.json()["detail"]
    registry.unavailable = True
    response = client.post("/rollback", json={"reason": "units"}, headers=KEY)
    assert (response.status_code, response.json()["detail"]) == (503, "the registry is unavailable: no registry")
