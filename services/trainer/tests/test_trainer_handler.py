"""The trainer's handler: which part gets which event, and what is committed."""

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from driftloop.errors import BrokerUnavailable
from driftloop.events import Event, ModelStateChanged, RetrainRequested
from driftloop.kafka.consumed_message import ConsumedMessage
from driftloop.kafka.message_handler import Commit
from driftloop.kafka.transactional_producer import CommittedPosition
from trainer.handler import TrainerHandler

RETRAIN = RetrainRequested(id="a", model="m", trigger="manual", reason="", requested_by="me")
PROMOTED = ModelStateChanged(retrain_id="a", model="m", version="1", state="promoted", explanation="")


class FakeParts:
    """The calls of all parts, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []
        self.schedule_error: Exception | None = None


class FakePolicy:
    def __init__(self, parts: FakeParts) -> None:
        self.parts = parts

    def handle(self, message: ConsumedMessage) -> Iterable[Commit]:
        self.parts.calls.append(("policy", message.event))
        return [] if message.topic == "retrain" else [Commit(message.topic, message.partition, message.offset + 1)]

    def on_revoked(self, partitions: Collection[tuple[str, int]]) -> None:
        self.parts.calls.append(("policy.on_revoked", partitions))


class FakeQueue:
    def __init__(self, parts: FakeParts) -> None:
        self.parts = parts

    def handle(self, message: ConsumedMessage) -> Iterable[Commit]:
        self.parts.calls.append(("queue", message.event))
        return [Commit(message.topic, message.partition, message.offset + 1, [PROMOTED])]

    def on_poll(self) -> Iterable[Commit]:
        self.parts.calls.append(("queue.on_poll", None))
        return [Commit("retrain", 0, 5)]

    def on_revoked(self, partitions: Collection[tuple[str, int]]) -> None:
        self.parts.calls.append(("queue.on_revoked", partitions))

    def close(self) -> None:
        self.parts.calls.append(("queue.close", None))


class FakeProbation:
    def __init__(self, parts: FakeParts) -> None:
        self.parts = parts

    def on_event(self, event: Event | None) -> None:
        self.parts.calls.append(("probation", event))

    def poll(self) -> None:
        self.parts.calls.append(("probation.poll", None))

    def close(self) -> None:
        self.parts.calls.append(("probation.close", None))


class FakeSchedule:
    def __init__(self, parts: FakeParts) -> None:
        self.parts = parts

    def run_due(self, time: datetime) -> None:
        assert time.tzinfo is UTC
        self.parts.calls.append(("schedule", None))
        if self.parts.schedule_error is not None:
            raise self.parts.schedule_error


@pytest.fixture
def parts() -> FakeParts:
    return FakeParts()


def create_handler(parts: FakeParts, *, with_schedule: bool = True) -> TrainerHandler:
    policy: Any = FakePolicy(parts)
    queue: Any = FakeQueue(parts)
    probation: Any = FakeProbation(parts)
    schedule: Any = FakeSchedule(parts) if with_schedule else None
    return TrainerHandler("retrain", policy, queue, probation, schedule)


def test_trainer_handler_hands_retrain_to_all_parts_and_lets_queue_commit(parts: FakeParts) -> None:
    commits = create_handler(parts).handle(ConsumedMessage("retrain", 0, 3, RETRAIN, 3))
    assert parts.calls == [("probation", RETRAIN), ("policy", RETRAIN), ("queue", RETRAIN)]
    assert list(commits) == [Commit("retrain", 0, 4, [PROMOTED])]


@pytest.mark.parametrize("topic", ["models", "drift"])
@pytest.mark.parametrize("event", [PROMOTED, None])
def test_trainer_handler_hands_other_topics_to_policy_and_probation_only(
    parts: FakeParts, topic: str, event: Event | None
) -> None:
    commits = create_handler(parts).handle(ConsumedMessage(topic, 0, 3, event, 3))
    assert parts.calls == [("probation", event), ("policy", event)]
    assert list(commits) == [Commit(topic, 0, 4)]


def test_trainer_handler_polls_schedule_probation_and_queue(parts: FakeParts) -> None:
    assert list(create_handler(parts).on_poll()) == [Commit("retrain", 0, 5)]
    assert [call for call, _ in parts.calls] == ["schedule", "probation.poll", "queue.on_poll"]


def test_trainer_handler_polls_without_schedule(parts: FakeParts) -> None:
    assert list(create_handler(parts, with_schedule=False).on_poll()) == [Commit("retrain", 0, 5)]
    assert [call for call, _ in parts.calls] == ["probation.poll", "queue.on_poll"]


def test_trainer_handler_postpones_scheduled_retrain_without_broker(parts: FakeParts) -> None:
    parts.schedule_error = BrokerUnavailable("no broker")
    with capture_logs() as logs:
        assert list(create_handler(parts).on_poll()) == [Commit("retrain", 0, 5)]
    assert [line["event"] for line in logs] == ["schedule.request_postponed"]


def test_trainer_handler_drops_state_of_policy_and_queue_on_revoke(parts: FakeParts) -> None:
    positions: Mapping[tuple[str, int], CommittedPosition] = {}
    handler = create_handler(parts)
    handler.on_assigned(positions)
    handler.on_revoked([("retrain", 0)])
    assert parts.calls == [("policy.on_revoked", [("retrain", 0)]), ("queue.on_revoked", [("retrain", 0)])]


def test_trainer_handler_close_kills_running_jobs(parts: FakeParts) -> None:
    create_handler(parts).close()
    assert [call for call, _ in parts.calls] == ["queue.close", "probation.close"]
