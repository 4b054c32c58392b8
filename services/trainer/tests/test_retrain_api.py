"""Only who has the key gets a retrain, hears of it, or goes back."""

import json
from collections.abc import Iterator

import httpx
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from kafka.errors import KafkaConnectionError
from mlflow.exceptions import MlflowException
from pydantic import SecretStr

from driftloop.events import Event, ModelChange, Retrain
from driftloop.kafka.publisher import Unavailable
from driftloop.telemetry.health import Health
from trainer.api import create


class Published(list[Event]):
    """Stands in for the broker."""

    away = False

    def publish(self, event: Event) -> None:
        if self.away:
            raise Unavailable("away")
        self.append(event)


KEY = {"X-API-Key": "open sesame"}
STATES = [
    ModelChange(retrain_id="a/b", model="flights", state="training", why="asked for"),
    ModelChange(retrain_id="a/b", model="flights", version="2", state="promoted", why="better"),
]


class Told:
    """Stands in for the topics."""

    away = False

    def __init__(self) -> None:
        self.told = {"a/b": STATES, "waiting": list[ModelChange]()}

    def of(self, retrain_id: str) -> list[ModelChange] | None:
        if self.away:
            raise KafkaConnectionError("away")
        return self.told.get(retrain_id)

    def follow(self, retrain_id: str) -> Iterator[ModelChange | None]:
        yield None
        yield from self.told[retrain_id]


class Versions:
    """A registry with three versions, the last of which is in service."""

    model = "flights"

    def __init__(self) -> None:
        self.aliases: dict[str, str | None] = {"champion": "3", "previous": "2"}
        self.away = False

    def champion(self) -> str | None:
        if self.away:
            raise MlflowException("away")
        return self.aliases["champion"]

    def previous(self) -> str | None:
        return self.aliases["previous"]

    def versions(self) -> list[str]:
        return ["1", "2", "3"]

    def learned_until(self, _: str) -> pd.Timestamp:
        return pd.Timestamp(0, tz="UTC")

    def retrain_of(self, version: str) -> str:
        return f"retrain-{version}"

    def withdraw(self, version: str, change: ModelChange) -> None:
        assert version in change.why
        self.aliases = {"champion": change.version, "previous": None}


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def versions() -> Versions:
    return Versions()


@pytest.fixture
def client(published: Published, versions: Versions, told: Told) -> TestClient:
    key = SecretStr(KEY["X-API-Key"])
    return TestClient(create("flights", key, published, Health(), versions, told))  # type: ignore[arg-type]  # stand-ins


def test_a_retrain_with_the_key_is_published(client: TestClient, published: Published) -> None:
    answer = client.post("/retrain", json={"reason": "why not"}, headers=KEY)
    assert answer.status_code == 202
    (event,) = published
    assert isinstance(event, Retrain)
    assert (event.id, event.model, event.reason) == (answer.json()["id"], "flights", "why not")


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "wrong"}, {"X-API-Key": ""}])
def test_a_retrain_without_the_key_is_not(client: TestClient, published: Published, headers: dict[str, str]) -> None:
    assert client.post("/retrain", json={"reason": "why not"}, headers=headers).status_code == 401
    assert not published


def test_a_wrong_wish_is_refused_with_its_field(client: TestClient, published: Published) -> None:
    answer = client.post("/retrain", json={"reason": "", "dta": {}}, headers=KEY)
    assert answer.status_code == 422
    assert {tuple(problem["loc"]) for problem in answer.json()["detail"]} == {("body", "reason"), ("body", "dta")}
    assert not published


def test_a_broker_that_is_away_is_a_503(client: TestClient, published: Published) -> None:
    published.away = True
    answer = client.post("/retrain", json={"reason": "why not"}, headers=KEY)
    assert answer.status_code == 503


def test_a_retrain_is_followed(client: TestClient) -> None:
    assert client.get("/retrain/a/b").status_code == 401
    so_far = client.get("/retrain/a/b", headers=KEY)
    assert so_far.status_code == 200
    assert [state["state"] for state in so_far.json()] == ["training", "promoted"]
    waited = client.get("/retrain/a/b", params={"wait": True}, headers=KEY)
    assert waited.headers["content-type"].startswith("application/x-ndjson")
    assert [json.loads(line) for line in waited.text.splitlines()] == so_far.json()


def test_a_retrain_that_waits_has_no_state_yet(client: TestClient) -> None:
    assert client.get("/retrain/waiting", headers=KEY).json() == []
    assert client.get("/retrain/waiting?wait=true", headers=KEY).text == ""


@pytest.mark.parametrize("wait", [False, True])
def test_a_retrain_that_nobody_asked_for_is_a_404(client: TestClient, told: Told, *, wait: bool) -> None:
    answer = client.get("/retrain/nobody", params={"wait": wait}, headers=KEY)
    assert (answer.status_code, answer.json()["detail"]) == (404, "nobody has asked for a retrain nobody")
    told.away = True
    assert client.get("/retrain/a/b", params={"wait": wait}, headers=KEY).status_code == 503


def test_going_back_moves_the_alias_and_is_an_event(
    client: TestClient, published: Published, versions: Versions
) -> None:
    assert client.post("/rollback", json={"reason": "units"}).status_code == 401
    answer = client.post("/rollback", json={"reason": "units"}, headers=KEY)
    assert answer.status_code == 200
    (event,) = published
    assert isinstance(event, ModelChange)
    assert (event.state, event.version, event.retrain_id) == ("rolled_back", "2", "retrain-3")
    assert event.why == "version 2 serves again instead of version 3: units"
    assert answer.json() == json.loads(event.model_dump_json())
    assert versions.aliases == {"champion": "2", "previous": None}


@pytest.mark.parametrize(
    ("aliases", "to", "why"),
    [
        ({"champion": None, "previous": None}, None, "no version of flights is in service"),
        ({"champion": "3", "previous": None}, None, "there is nothing to go back to"),
        ({"champion": "3", "previous": "3"}, None, "version 3 is in service already"),
        ({"champion": "3", "previous": "2"}, "3", "version 3 is in service already"),
        ({"champion": "3", "previous": "2"}, "7", "there is no version 7 of flights; there are 1, 2, 3"),
    ],
)
def test_where_there_is_no_way_back_nothing_changes(
    client: TestClient, published: Published, versions: Versions, aliases: dict[str, str | None], to: str, why: str
) -> None:
    versions.aliases = aliases
    answer = client.post("/rollback", json={"reason": "units", "to": to}, headers=KEY)
    assert answer.status_code == 409
    assert why in answer.json()["detail"]
    assert versions.aliases == aliases
    assert not published


def test_a_version_can_be_named(client: TestClient, versions: Versions) -> None:
    answer: httpx.Response = client.post("/rollback", json={"reason": "units", "to": "1"}, headers=KEY)
    assert answer.json()["version"] == "1"
    assert versions.aliases["champion"] == "1"


def test_going_back_says_what_is_away(client: TestClient, published: Published, versions: Versions) -> None:
    published.away = True
    answer = client.post("/rollback", json={"reason": "units"}, headers=KEY)
    assert answer.status_code == 503
    assert "version 2 serves again instead of version 3" in answer.json()["detail"]
    versions.away = True
    answer = client.post("/rollback", json={"reason": "units"}, headers=KEY)
    assert (answer.status_code, answer.json()["detail"]) == (503, "the registry is out of reach: away")
