"""The policy handler: each decision is taken once, wherever the process is killed."""

import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from driftloop.errors import BrokerUnavailable
from driftloop.events import (
    DataSelection,
    DriftVerdict,
    Event,
    ModelStateChanged,
    QualityVerdict,
    RetrainRequested,
    Window,
)
from driftloop.kafka.consumed_message import ConsumedMessage
from driftloop.kafka.message_handler import Commit, RetryLater
from driftloop.settings import TopicsSettings
from tests.support.policy_process import Broker, Process
from tests.support.synthetic_usecase import make_use_case
from trainer.policy.policy_handler import PolicyHandler
from trainer.policy.settings import PolicySettings

USE_CASE = make_use_case()
POLICY = PolicySettings(
    lookback_windows=5,
    min_alarms=3,
    min_days_since_alarm=2,
    max_stale_days=28,
    cooldown_days=5,
    max_cooldown_days=20,
)
HOLDOUT_DAYS = 3
DAYS = 70


def has_alarm(day: int) -> bool:
    """The data change on day 10 and again on day 40; before, there are two unusual windows."""
    return day in (3, 4) or 10 <= day < 30 or day >= 40


def published_at(day: int) -> datetime:
    """Return when a day's events are published: the year is replayed at a day per minute."""
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=day)


def promotion(version: str = "1", *, day: int = 0, trained_through: datetime | None = None) -> ModelStateChanged:
    return ModelStateChanged(
        time=published_at(day),
        retrain_id="0",
        model="m",
        version=version,
        state="promoted",
        explanation="",
        trained_through=trained_through,
    )


def drift(day: int, version: str) -> DriftVerdict:
    at = datetime(2013, 4, 1, 16, tzinfo=UTC) + timedelta(days=day)
    return DriftVerdict(
        id=f"w{day}/{version}",
        time=published_at(day),
        window=Window(topic="predictions", partition=0, first_offset=day, last_offset=day),
        model="m",
        version=version,
        rows=1000,
        first_prediction_at=at,
        last_prediction_at=at,
        verdict="drift" if has_alarm(day) else "no_drift",
        explanation="",
        archive=["gs://b/x"],
    )


def outcomes(day: int, version: str) -> QualityVerdict:
    at = datetime(2013, 4, 1, 16, tzinfo=UTC) + timedelta(days=day)
    return QualityVerdict(
        id=f"q{day}/{version}",
        time=published_at(day),
        window=Window(topic="outcomes", partition=0, first_offset=day, last_offset=day),
        windows=1,
        model="m",
        version=version,
        rows=1000,
        unmatched=0,
        first_prediction_at=at,
        last_prediction_at=at,
        verdict="inconclusive",
        explanation="",
    )


def run_days(kills: Iterable[int] = ()) -> Broker:
    """Simulate days; every third training leads to a promotion, and the others are rejected after up to two days."""
    broker = Broker(kills)
    process = Process(broker, USE_CASE, POLICY, HOLDOUT_DAYS)
    version, ends_on = "1", dict[str, int]()
    learned = datetime(2013, 3, 31, 16, tzinfo=UTC)
    broker.topics["models"].append(promotion(trained_through=learned))
    for day in range(1, DAYS):
        broker.topics["drift"] += [drift(day, version), outcomes(day - 1, version)]
        process.catch_up()
        for number, retrain in enumerate(broker.topics["retrain"]):
            if retrain.id not in ends_on:
                ends_on[retrain.id] = day + number % 3
                broker.topics["models"].append(
                    ModelStateChanged(retrain_id=retrain.id, model="m", state="training", explanation="")
                )
            if ends_on[retrain.id] == day:
                promoted = number % 3 == 2
                version = str(int(version) + 1) if promoted else version
                broker.topics["models"].append(
                    ModelStateChanged(
                        time=published_at(day),
                        retrain_id=retrain.id,
                        model="m",
                        version=version,
                        state="promoted" if promoted else "rejected",
                        explanation="",
                        trained_through=datetime(2013, 4, 1, 16, tzinfo=UTC) + timedelta(days=day)
                        if promoted
                        else None,
                    )
                )
        process.catch_up()
    return broker


def requested_retrains(broker: Broker) -> list[Event]:
    """Return the requests without the days of outcomes in their reasons: a restarted process may know of more."""
    return [event.model_copy(update={"reason": event.reason.split("; since")[0]}) for event in policy_retrains(broker)]


def policy_retrains(broker: Broker) -> list[RetrainRequested]:
    return [event for event in broker.topics["retrain"] if isinstance(event, RetrainRequested)]


def test_policy_handler_takes_each_decision_once_when_killed_at_any_step() -> None:
    undisturbed = run_days()
    decisions = requested_retrains(undisturbed)
    assert len(decisions) >= 5
    assert len({event.id for event in decisions}) == len(decisions)
    assert any("MAX_STALE_DAYS" in str(event) for event in decisions)
    for step in range(1, undisturbed.steps + 1):
        assert requested_retrains(run_days([step])) == decisions, f"killed at step {step}"


def test_policy_handler_takes_each_decision_once_when_killed_repeatedly() -> None:
    decisions = requested_retrains(run_days())
    for seed in range(20):
        source = random.Random(seed)
        assert requested_retrains(run_days([n for n in range(1, 2_000) if source.random() < 0.1])) == decisions


@pytest.mark.parametrize(
    ("setting", "expected"),
    [(None, DataSelection(base_end=date(2013, 4, 1))), (DataSelection(last_rows=5), DataSelection(last_rows=5))],
    ids=["first version's rows", "setting"],
)
def test_policy_handler_requests_the_first_versions_rows_unless_a_setting_says_otherwise(
    setting: DataSelection | None, expected: DataSelection
) -> None:
    use_case = replace(USE_CASE, first_version=DataSelection(base_end=date(2013, 4, 1)))
    broker = Broker()
    broker.topics["models"].append(promotion())
    broker.topics["drift"] = [event for day in range(10, 20) for event in (drift(day, "1"), outcomes(day, "1"))]
    policy = POLICY.model_copy(update={"data": setting})
    policy_handler = PolicyHandler(use_case, policy, HOLDOUT_DAYS, TopicsSettings(), broker)
    (commit,) = policy_handler.handle(ConsumedMessage("drift", 0, 0, broker.topics["drift"][0], 0))
    assert [event.data for event in commit.events if isinstance(event, RetrainRequested)] == [expected]


def test_policy_handler_does_not_commit_retrains() -> None:
    policy_handler = PolicyHandler(USE_CASE, POLICY, HOLDOUT_DAYS, TopicsSettings(), Broker())
    request = RetrainRequested(model="m", trigger="manual", reason="", requested_by="me")
    assert list(policy_handler.handle(ConsumedMessage("retrain", 0, 7, request, 7))) == []


def test_policy_handler_commits_events_that_decide_nothing() -> None:
    policy_handler = PolicyHandler(USE_CASE, POLICY, HOLDOUT_DAYS, TopicsSettings(), Broker())
    other = drift(11, "1").model_copy(update={"model": "another"})
    for offset, event in enumerate([drift(10, "1"), other, None]):
        assert list(policy_handler.handle(ConsumedMessage("drift", 0, offset, event, offset))) == [
            Commit("drift", 0, offset + 1)
        ]


def test_policy_handler_drops_unpublished_decision_on_revoke() -> None:
    broker = Broker()
    broker.topics["models"].append(promotion())
    broker.topics["drift"] += [*(drift(day, "1") for day in (10, 11)), outcomes(12, "1")]
    policy_handler = PolicyHandler(USE_CASE, POLICY, HOLDOUT_DAYS, TopicsSettings(), broker)
    message = ConsumedMessage("drift", 0, 2, drift(12, "1"), 2)
    (commit,) = policy_handler.handle(message)
    assert commit.events
    assert list(policy_handler.handle(message)) == [commit._replace(events=())]
    policy_handler.on_revoked([("drift", 0)])
    assert list(policy_handler.handle(message)) == [commit]


def test_policy_handler_warns_once_per_version_about_insufficient_outcomes() -> None:
    broker = Broker()
    process = Process(broker, USE_CASE, POLICY, HOLDOUT_DAYS)
    with capture_logs() as logs:
        for version in ("1", "2"):
            at = datetime(2013, 4, 30, 16, tzinfo=UTC)
            broker.topics["models"].append(promotion(version, trained_through=at))
            process.catch_up()
            for day in range(10, 20):
                broker.topics["drift"].append(drift(day, version))
                process.catch_up()
            process.policy_handler.on_revoked([("drift", 0)])
    warnings = [line for line in logs if line["event"] == "policy.insufficient_outcomes"]
    assert [line["version"] for line in warnings] == ["1", "2"]
    assert "3 more (DRIFTLOOP_GATE__HOLDOUT_DAYS)" in warnings[0]["explanation"]
    assert REGISTRY.get_sample_value("driftloop_trainer_policy_missing_outcome_days", {"model": "m"}) == HOLDOUT_DAYS


def test_policy_handler_retries_when_broker_is_unavailable() -> None:
    class UnavailableBroker:
        def policy_events(self) -> Iterable[Event]:
            raise BrokerUnavailable("unavailable")

    policy_handler = PolicyHandler(USE_CASE, POLICY, HOLDOUT_DAYS, TopicsSettings(), UnavailableBroker())
    with pytest.raises(RetryLater, match="unavailable"):
        policy_handler.handle(ConsumedMessage("drift", 0, 0, drift(1, "1"), 0))
