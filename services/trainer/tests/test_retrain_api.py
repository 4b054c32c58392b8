"""Only who has the key gets a retrain."""

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from driftloop.events import Event, Retrain
from driftloop.producing import Unavailable
from driftloop.telemetry import Health
from trainer.api import create


class Published(list[Event]):
    """Stands in for the broker."""

    away = False

    def publish(self, event: Event) -> None:
        if self.away:
            raise Unavailable("away")
        self.append(event)


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def client(published: Published) -> TestClient:
    return TestClient(create("flights", SecretStr("open sesame"), published, Health()))  # type: ignore[arg-type]  # a stand-in


def test_a_retrain_with_the_key_is_published(client: TestClient, published: Published) -> None:
    answer = client.post("/retrain", json={"reason": "why not"}, headers={"X-API-Key": "open sesame"})
    assert answer.status_code == 202
    (event,) = published
    assert isinstance(event, Retrain)
    assert (event.id, event.model, event.reason) == (answer.json()["id"], "flights", "why not")


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "wrong"}, {"X-API-Key": ""}])
def test_a_retrain_without_the_key_is_not(client: TestClient, published: Published, headers: dict[str, str]) -> None:
    assert client.post("/retrain", json={"reason": "why not"}, headers=headers).status_code == 401
    assert not published


def test_a_wrong_wish_is_refused_with_its_field(client: TestClient, published: Published) -> None:
    answer = client.post("/retrain", json={"reason": "", "dta": {}}, headers={"X-API-Key": "open sesame"})
    assert answer.status_code == 422
    assert {tuple(problem["loc"]) for problem in answer.json()["detail"]} == {("body", "reason"), ("body", "dta")}
    assert not published


def test_a_broker_that_is_away_is_a_503(client: TestClient, published: Published) -> None:
    published.away = True
    answer = client.post("/retrain", json={"reason": "why not"}, headers={"X-API-Key": "open sesame"})
    assert answer.status_code == 503
