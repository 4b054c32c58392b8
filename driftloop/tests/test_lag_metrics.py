"""Lag by partition, as metrics."""

import time
from collections.abc import Iterator, Mapping, Sequence

import pytest
from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from prometheus_client import REGISTRY

from driftloop.kafka.codec import Message
from driftloop.kafka.lag_metrics import LagMetrics
from driftloop.kafka.message_handler import RetryLater
from tests.support.fake_kafka import FakeBroker, FakeConsumer

TOPIC = "lagging"
P0 = TopicPartition(TOPIC, 0)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> FakeBroker:
    return FakeBroker(monkeypatch, {TOPIC: 1})


@pytest.fixture
def consumer(broker: FakeBroker) -> FakeConsumer:
    consumer = FakeConsumer(broker, {"max_poll_records": 2})
    consumer.assign([P0])
    return consumer


@pytest.fixture
def lag(consumer: FakeConsumer) -> Iterator[LagMetrics]:
    lag = LagMetrics(consumer)
    yield lag
    lag.update()
    lag.on_revoked([P0])


def add(broker: FakeBroker, *ages: float) -> None:
    for age in ages:
        broker.append(TOPIC, Message(None, b"", []), timestamp=time.time() - age)


def sample(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"driftloop_consumer_lag_{name}", {"topic": TOPIC, "partition": "0"})


def test_lag_is_zero_when_nothing_is_left(broker: FakeBroker, consumer: FakeConsumer, lag: LagMetrics) -> None:
    add(broker, 100)
    with lag.handling(consumer.poll()):
        pass
    lag.update()
    assert (sample("events"), sample("seconds")) == (0, 0)


def test_lag_counts_offsets_and_age_of_last_handled_event(
    broker: FakeBroker, consumer: FakeConsumer, lag: LagMetrics
) -> None:
    add(broker, 100, 70, 50, 40, 30)
    with lag.handling(consumer.poll()):
        pass
    lag.update()
    assert sample("events") == 3
    assert sample("seconds") == pytest.approx(70, abs=5)


def fail(lag: LagMetrics, polled: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
    with pytest.raises(RetryLater), lag.handling(polled):
        raise RetryLater("no bucket")


def test_lag_counts_from_first_event_until_one_is_handled(
    broker: FakeBroker, consumer: FakeConsumer, lag: LagMetrics
) -> None:
    add(broker, 100, 70)
    fail(lag, consumer.poll())
    consumer.seek(P0, 0)
    lag.update()
    assert sample("events") == 2
    assert sample("seconds") == pytest.approx(100, abs=5)


@pytest.mark.parametrize("is_known", [True, False], ids=["end known", "end unknown"])
def test_lag_counts_what_could_not_be_handled(
    broker: FakeBroker, consumer: FakeConsumer, lag: LagMetrics, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    """The position is behind both events, because they could not be read again yet."""
    add(broker, 100, 70)
    polled = consumer.poll()
    if not is_known:
        monkeypatch.setattr(consumer, "highwater", lambda _: None)
    fail(lag, polled)
    assert sample("events") == (2 if is_known else 1)
    assert sample("seconds") == pytest.approx(100, abs=5)


def test_lag_counts_what_a_handler_holds_once_it_fails(
    broker: FakeBroker, consumer: FakeConsumer, lag: LagMetrics
) -> None:
    add(broker, 100, 70)
    with lag.handling(consumer.poll()):
        pass
    lag.update()
    assert sample("events") == 0
    fail(lag, {})  # as when a slice that is idle cannot be written
    assert sample("events") == 2
    assert sample("seconds") == pytest.approx(100, abs=5)
    consumer.seek(P0, 0)
    with lag.handling(consumer.poll()):
        pass
    lag.update()
    assert sample("events") == 2, "the slice is open again, and its events are as old as before"
    lag.on_committed(P0, 2)
    lag.update()
    assert (sample("events"), sample("seconds")) == (0, 0)


def test_lag_counts_from_the_commit_within_a_poll(broker: FakeBroker, consumer: FakeConsumer, lag: LagMetrics) -> None:
    add(broker, 100, 70)
    with lag.handling(consumer.poll()):
        lag.on_committed(P0, 1)
    fail(lag, {})
    assert sample("events") == 1
    assert sample("seconds") == pytest.approx(70, abs=5)


def test_lag_ends_where_what_was_polled_turns_out_to_be_committed(
    broker: FakeBroker, consumer: FakeConsumer, lag: LagMetrics
) -> None:
    add(broker, 100, 70)
    fail(lag, consumer.poll())
    lag.on_rewound(P0, 0)
    lag.update()
    assert sample("events") == 2
    lag.on_rewound(P0, 2)
    lag.update()
    assert (sample("events"), sample("seconds")) == (0, 0)


def test_lag_has_no_sample_of_partition_without_fetch(consumer: FakeConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "highwater", lambda _: None)
    LagMetrics(consumer).update()
    assert (sample("events"), sample("seconds")) == (None, None)


def test_lag_is_removed_with_its_partition(broker: FakeBroker, lag: LagMetrics) -> None:
    add(broker, 100)
    lag.update()
    assert sample("events") == 1
    lag.on_revoked([P0])
    assert (sample("events"), sample("seconds")) == (None, None)


def test_lag_of_a_revoked_partition_comes_back_only_with_a_new_position(broker: FakeBroker, lag: LagMetrics) -> None:
    """kafka-python has a revoked partition in its assignment until the group has joined again."""
    add(broker, 100)
    lag.update()
    lag.on_revoked([P0])
    lag.update()
    assert (sample("events"), sample("seconds")) == (None, None)
    lag.on_rewound(P0, 0)
    lag.update()
    assert sample("events") == 1
