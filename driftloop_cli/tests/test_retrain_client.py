"""Asking the trainer's API from outside: the client in driftloop and the API, over a real connection."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from pydantic import SecretStr
from typer.testing import CliRunner

from driftloop.events import Event, ModelChange, Wish
from driftloop.kafka.publisher import Unavailable
from driftloop.telemetry.health import Health
from driftloop_cli import retrain_client
from driftloop_cli.main import app
from driftloop_cli.retrain_client import Away, OverHttp, Refused
from trainer.api import create

KEY = "open sesame"
WISH = Wish(reason="two new carriers", asked_by="somebody")


class Topics:
    """Stands in for the broker: what is asked for ends as it is told to, after a connection that breaks."""

    def __init__(self) -> None:
        self.published: list[Event] = []
        self.away = False
        self.connections = 0
        self.state = "promoted"

    def publish(self, event: Event) -> None:
        if self.away:
            raise Unavailable("away")
        self.published.append(event)

    def of(self, retrain_id: str) -> list[ModelChange] | None:
        return [] if any(event.id == retrain_id for event in self.published) else None

    def follow(self, retrain_id: str) -> Iterator[ModelChange | None]:
        self.connections += 1
        yield self._change(retrain_id, "training", "1")
        if self.connections == 1:
            raise ConnectionError("broken")
        yield self._change(retrain_id, self.state, "2")

    def _change(self, retrain_id: str, state: str, name: str) -> ModelChange:
        fields = {"id": name, "retrain_id": retrain_id, "model": "flights", "state": state, "why": f"it is {state}"}
        return ModelChange.model_validate(fields)


@pytest.fixture
def topics() -> Topics:
    return Topics()


@contextmanager
def served(topics: Any) -> Iterator[str]:
    """The API at an address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        api = create("flights", SecretStr(KEY), topics, Health(), topics, topics)
        server = uvicorn.Server(uvicorn.Config(api, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def url(topics: Topics) -> Iterator[str]:
    with served(topics) as address:
        yield address


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrain_client, "PAUSE_SECONDS", 0)
    monkeypatch.setenv("DRIFTLOOP_TRAINER__API_KEY", KEY)
    monkeypatch.setenv("DRIFTLOOP_TRAINER__PORT", "8002")  # of the same section, and no matter here


def test_a_broken_connection_loses_no_state_and_repeats_none(url: str, topics: Topics) -> None:
    with OverHttp(url, KEY) as trainer:
        asked = trainer.ask(WISH)
        states = [change.state for change in asked.changes if change is not None]
    assert states == ["training", "promoted"]
    assert topics.connections == 2
    assert [event.id for event in topics.published] == [asked.id]


def test_a_dry_run_publishes_nothing(url: str, topics: Topics) -> None:
    with OverHttp(url, KEY) as trainer:
        event = trainer.rehearse(WISH)
    assert (event.model, event.reason, event.asked_by) == ("flights", "two new carriers", "somebody")
    assert not topics.published


def test_a_wrong_key_is_refused_and_a_trainer_without_broker_is_away(url: str, topics: Topics) -> None:
    with OverHttp(url, "wrong") as trainer:
        for ask in (trainer.ask, trainer.rehearse):
            with pytest.raises(Refused, match=r"X-API-Key is missing or wrong \(HTTP 401\)"):
                ask(WISH)
    topics.away = True
    with OverHttp(url, KEY) as trainer, pytest.raises(Away, match=r"could not be published: away \(HTTP 503\)"):
        trainer.ask(WISH)
    assert not topics.published


@pytest.mark.parametrize(
    ("state", "code"), [("promoted", 0), ("rejected", 3), ("failed", 4)], ids=["promoted", "rejected", "failed"]
)
def test_the_command_ends_as_the_retrain_does(url: str, topics: Topics, state: str, code: int, tmp_path: Path) -> None:
    topics.state, page = state, tmp_path / "page.md"
    words = ["retrain", "--reason", "so", "--wait", "--through", url, "--summary", str(page), "--archive"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == code, done.output
    assert f"{state}: it is {state}" in done.output
    assert page.read_text().splitlines()[0].endswith(f"flights: {state}")


def test_the_command_says_what_would_be_asked_for(url: str, topics: Topics) -> None:
    done = CliRunner().invoke(app, ["retrain", "--reason", "so", "--dry-run", "--through", url, "--last-rows", "500"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["data"]["last_rows"] == 500
    assert not topics.published


@pytest.mark.parametrize(
    ("words", "key", "code", "said"),
    [
        (["--reason", "so"], "another key", 7, "refuses: X-API-Key is missing or wrong (HTTP 401)"),
        (["--reason", "so", "--through", "http://127.0.0.1:9"], KEY, 6, "no answer from the trainer at"),
        (["--reason", "so", "--from", "2013-04-01", "--to", "2013-01-01", "--no-archive"], KEY, 2, "no day lies"),
        (["--reason", ""], KEY, 2, "at least 1 character"),
    ],
)
def test_the_command_says_why_nothing_was_asked_for(
    url: str, topics: Topics, words: list[str], key: str, code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLOOP_TRAINER__API_KEY", key)
    done = CliRunner().invoke(app, ["retrain", "--through", url, *words])
    assert done.exit_code == code, done.output
    assert said in " ".join(done.output.replace("│", "").split())
    assert not topics.published
