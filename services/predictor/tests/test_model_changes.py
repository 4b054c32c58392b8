"""The listener refreshes the model for final states of its own model's retrains, and survives a broker's failure."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from driftloop.errors import BrokerUnavailable
from driftloop.events import Event, ModelStateChanged, Outcome
from driftloop.kafka import reader
from driftloop.settings import Settings
from driftloop.telemetry.background import run_until_stopped
from driftloop.telemetry.health import Health
from predictor.serving import model_changes


def change(model: str = "m", state: Any = "promoted") -> ModelStateChanged:
    return ModelStateChanged(retrain_id="r", model=model, state=state, explanation="a test")


def listen(monkeypatch: pytest.MonkeyPatch, *connections: list[Event | None] | BrokerUnavailable) -> int:
    """Run the listener until all connections are used up; return the number of refreshes."""
    stop = threading.Event()
    remaining = list(connections)
    refreshes: list[None] = []

    @contextmanager
    def tail(*_: Any, **__: Any) -> Iterator[Iterator[Event | None]]:
        if isinstance(connection := remaining.pop(0), BrokerUnavailable):
            raise connection

        def events() -> Iterator[Event | None]:
            yield from connection
            if not remaining:
                stop.set()
                yield None
            raise BrokerUnavailable("the connection is lost")

        yield events()

    monkeypatch.setattr(reader, "tail", tail)
    follow = partial(model_changes.follow_changes, Settings(), "m", lambda: refreshes.append(None), stop)
    run_until_stopped(model_changes.TASK, follow, Health(), 0, stop)
    return len(refreshes)


def test_listener_refreshes_once_per_connection_without_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert listen(monkeypatch, [None, None]) == 1


def test_listener_refreshes_for_each_final_state(monkeypatch: pytest.MonkeyPatch) -> None:
    assert listen(monkeypatch, [change(state="promoted"), None, change(state="rolled_back")]) == 3


@pytest.mark.parametrize(
    "event",
    [change(model="another"), change(state="training"), Outcome(prediction_id="p", index=0, outcome=1)],
    ids=["another model", "not final", "another event"],
)
def test_listener_ignores_other_events(monkeypatch: pytest.MonkeyPatch, event: Event) -> None:
    assert listen(monkeypatch, [event]) == 1


def test_listener_reconnects_and_refreshes_after_broker_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert listen(monkeypatch, BrokerUnavailable("no answer"), [None], [change()]) == 3
