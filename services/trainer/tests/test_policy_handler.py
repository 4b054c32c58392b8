"""Each decision is taken once, whatever is killed between two steps."""

import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from kafka.errors import KafkaConnectionError
from prometheus_client import REGISTRY
from sklearn.linear_model import LogisticRegression
from structlog.testing import capture_logs

from driftloop.events import Drift, Event, ModelChange, Quality, Retrain, Window
from driftloop.kafka.consumer_loop import Final, NotNow, Received
from driftloop.settings import Topics
from driftloop.usecase import UseCase
from trainer.policy.policy_handler import Policing
from trainer.settings import Policy

USE_CASE = UseCase(
    name="m",
    numbers=("x",),
    categories=(),
    outcome="y",
    time="at",
    timezone="America/New_York",
    pipeline=LogisticRegression,
    pointer=Path("m.dvc"),
    rows=pd.DataFrame,
)
POLICY = Policy(windows=5, alarms=3, unlearned_days=28, cooldown_days=5, longest_cooldown_days=20)
HELD_OUT_DAYS = 3
DAYS = 70


class Killed(Exception):
    """The process is gone."""


class Broker:
    """Topics, committed offsets, and the one step at which whoever uses them is killed."""

    def __init__(self, kills: Iterable[int] = ()) -> None:
        self.topics: dict[str, list[Event]] = {"drift": [], "models": [], "retrain": []}
        self.committed = {"drift": 0, "models": 0}
        self.kills = set(kills)
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps in self.kills:
            raise Killed

    def read(self) -> Iterator[Event]:
        for topic in ("retrain", "models", "drift"):
            self.step()
            yield from list(self.topics[topic])

    def commit(self, finals: Iterable[Final]) -> None:
        """All or nothing."""
        finals = list(finals)
        self.step()
        for final in finals:
            self.committed[final.topic] = max(self.committed[final.topic], final.offset)
            self.topics["retrain"] += final.events
        self.step()


class Process:
    """The consume loop over all three topics, started again whenever it is killed."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.begin()

    def begin(self) -> None:
        self.policing = Policing(USE_CASE, POLICY, HELD_OUT_DAYS, Topics(), self.broker.read)
        self.position = {**self.broker.committed, "retrain": 0}

    def catch_up(self) -> None:
        while True:
            try:
                for topic, at in self.position.items():
                    for offset in range(at, len(self.broker.topics[topic])):
                        received = Received(topic, 0, offset, self.broker.topics[topic][offset], offset)
                        self.broker.step()
                        self.broker.commit(self.policing.handle(received))
                        self.position[topic] = offset + 1
                return
            except Killed:
                self.begin()


def alarming(day: int) -> bool:
    """The world changes on day 10 and again on day 40; before, two odd windows."""
    return day in (3, 4) or 10 <= day < 30 or day >= 40


def drift(day: int, version: str) -> Drift:
    at = datetime(2013, 4, 1, 16, tzinfo=UTC) + timedelta(days=day)
    return Drift(
        id=f"w{day}/{version}",
        time=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=day),
        window=Window(topic="predictions", partition=0, first_offset=day, last_offset=day),
        model="m",
        version=version,
        rows=1000,
        starts=at,
        ends=at,
        verdict="alarm" if alarming(day) else "quiet",
        why="",
        archive="gs://b/x",
    )


def outcomes(day: int, version: str) -> Quality:
    at = datetime(2013, 4, 1, 16, tzinfo=UTC) + timedelta(days=day)
    return Quality(
        id=f"q{day}/{version}",
        time=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=day),
        window=Window(topic="outcomes", partition=0, first_offset=day, last_offset=day),
        windows=1,
        model="m",
        version=version,
        rows=1000,
        unmatched=0,
        starts=at,
        ends=at,
        verdict="unjudged",
        why="",
    )


def lived(kills: Iterable[int] = ()) -> Broker:
    """Days go by; every third training brings a version, and the others take two days to come to nothing."""
    broker = Broker(kills)
    process = Process(broker)
    version, ends_on = "1", dict[str, int]()
    learned = datetime(2013, 3, 31, 16, tzinfo=UTC)
    broker.topics["models"].append(
        ModelChange(retrain_id="0", model="m", version="1", state="promoted", why="", learned_until=learned)
    )
    for day in range(1, DAYS):
        broker.topics["drift"] += [drift(day, version), outcomes(day - 1, version)]
        process.catch_up()
        for number, retrain in enumerate(broker.topics["retrain"]):
            if retrain.id not in ends_on:
                ends_on[retrain.id] = day + number % 3
                broker.topics["models"].append(ModelChange(retrain_id=retrain.id, model="m", state="training", why=""))
            if ends_on[retrain.id] == day:
                promoted = number % 3 == 2
                version = str(int(version) + 1) if promoted else version
                broker.topics["models"].append(
                    ModelChange(
                        retrain_id=retrain.id,
                        model="m",
                        version=version,
                        state="promoted" if promoted else "rejected",
                        why="",
                        learned_until=datetime(2013, 4, 1, 16, tzinfo=UTC) + timedelta(days=day) if promoted else None,
                    )
                )
        process.catch_up()
    return broker


def retrains(broker: Broker) -> list[Event]:
    return broker.topics["retrain"]


def test_each_decision_is_taken_once_whatever_is_killed_between_two_steps() -> None:
    unharmed = lived()
    decided = retrains(unharmed)
    assert len(decided) >= 5
    assert len({event.id for event in decided}) == len(decided)
    assert any("no version has learned" in str(event) for event in decided)
    for step in range(1, unharmed.steps + 1):
        assert retrains(lived([step])) == decided, f"killed at step {step}"


def test_killed_again_and_again() -> None:
    decided = retrains(lived())
    for seed in range(20):
        source = random.Random(seed)
        assert retrains(lived([n for n in range(1, 2_000) if source.random() < 0.1])) == decided


def test_the_offset_of_a_retrain_is_for_whoever_trains() -> None:
    policing = Policing(USE_CASE, POLICY, HELD_OUT_DAYS, Topics(), lambda: [])
    asked = Retrain(model="m", trigger="manual", reason="", asked_by="me")
    assert list(policing.handle(Received("retrain", 0, 7, asked, 7))) == []


def test_what_decides_nothing_is_final() -> None:
    policing = Policing(USE_CASE, POLICY, HELD_OUT_DAYS, Topics(), lambda: [])
    other = drift(11, "1").model_copy(update={"model": "another"})
    for offset, event in enumerate([drift(10, "1"), other, None]):
        assert list(policing.handle(Received("drift", 0, offset, event, offset))) == [Final("drift", 0, offset + 1)]


def test_what_was_not_published_is_forgotten_with_the_partitions() -> None:
    broker = Broker()
    broker.topics["models"].append(ModelChange(retrain_id="0", model="m", version="1", state="promoted", why=""))
    broker.topics["drift"] += [drift(day, "1") for day in (10, 11)]
    policing = Policing(USE_CASE, POLICY, HELD_OUT_DAYS, Topics(), broker.read)
    received = Received("drift", 0, 2, drift(12, "1"), 2)
    (final,) = policing.handle(received)
    assert final.events
    assert list(policing.handle(received)) == [final._replace(events=())]
    policing.revoked([("drift", 0)])
    assert list(policing.handle(received)) == [final]


def test_that_a_retrain_could_not_help_is_said_once_a_version() -> None:
    broker = Broker()
    process = Process(broker)
    with capture_logs() as logs:
        for version in ("1", "2"):
            at = datetime(2013, 4, 30, 16, tzinfo=UTC)
            broker.topics["models"].append(
                ModelChange(retrain_id="0", model="m", version=version, state="promoted", why="", learned_until=at)
            )
            process.catch_up()
            for day in range(10, 20):
                broker.topics["drift"].append(drift(day, version))
                process.catch_up()
            process.policing.revoked([("drift", 0)])
    said = [line for line in logs if line["event"] == "a retrain could not help"]
    assert [line["version"] for line in said] == ["1", "2"]
    assert "3 more (DRIFTLOOP_GATE__HELD_OUT_DAYS)" in said[0]["why"]
    assert REGISTRY.get_sample_value("driftloop_trainer_policy_lacking_days", {"model": "m"}) == HELD_OUT_DAYS


def test_a_broker_that_is_away_is_met_again() -> None:
    def away() -> Iterator[Event]:
        raise KafkaConnectionError("away")
        yield

    policing = Policing(USE_CASE, POLICY, HELD_OUT_DAYS, Topics(), away)
    with pytest.raises(NotNow, match="away"):
        policing.handle(Received("drift", 0, 0, drift(1, "1"), 0))
