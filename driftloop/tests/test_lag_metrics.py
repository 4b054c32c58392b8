"""Lag by partition, as metrics."""

import time
from collections.abc import Iterator

import pytest
from kafka import TopicPartition
from prometheus_client import REGISTRY

from driftloop.kafka.codec import Message
from driftloop.kafka.lag_metrics import LagMetrics
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
    polled = consumer.poll()
    lag.on_polled(polled)
    lag.on_handled(polled)
    lag.update()
    assert (sample("events"), sample("seconds")) == (0, 0)


def test_lag_counts_offsets_and_age_of_last_handled_event(
    broker: FakeBroker, consumer: FakeConsumer, lag: LagMetrics
) -> None:
    add(broker, 100, 70, 50, 40, 30)
    polled = consumer.poll()
    lag.on_polled(polled)
    lag.on_handled(polled)
    lag.update()
    assert sample("events") == 3
    assert sample("seconds") == pytest.approx(70, abs=5)


def test_lag_counts_from_first_event_until_one_is_handled(
    broker: FakeBroker, consumer: FakeConsumer, lag: LagMetrics
) -> None:
    add(broker, 100, 70)
    lag.on_polled(consumer.poll())
    consumer.seek(P0, 0)  # as after RetryLater
    lag.update()
    assert sample("events") == 2
    assert sample("seconds") == pytest.approx(100, abs=5)


@pytest.mark.parametrize("is_known", [True, False], ids=["end known", "end unknown"])
def test_lag_counts_what_was_polled_and_not_handled(
    broker: FakeBroker, consumer: FakeConsumer, lag: LagMetrics, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    """The position is behind both events, because they could not be read again yet."""
    add(broker, 100, 70)
    lag.on_polled(consumer.poll())
    if not is_known:
        monkeypatch.setattr(consumer, "highwater", lambda _: None)
    lag.update()
    assert sample("events") == (2 if is_known else 1)
    assert sample("seconds") == pytest.approx(100, abs=5)


def test_lag_ends_where_what_was_polled_turns_out_to_be_committed(
    broker: FakeBroker, consumer: FakeConsumer, lag: LagMetrics
) -> None:
    add(broker, 100, 70)
    lag.on_polled(consumer.poll())
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
