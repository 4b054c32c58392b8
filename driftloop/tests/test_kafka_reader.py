"""Topics, reading them outside of a group, and publishing, on an in-memory broker."""

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice

import pytest
from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaConnectionError, KafkaTimeoutError

from driftloop.errors import BrokerUnavailable
from driftloop.events import Event, Outcome, Window
from driftloop.kafka import reader, topics
from driftloop.kafka.codec import Message, encode
from driftloop.kafka.publisher import Publisher
from driftloop.settings import TopicsSettings
from tests.support.fake_kafka import KAFKA, FakeBroker

TOPIC = "outcomes"
P0, P1 = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
INVALID = Message(b"key", b"garbage", [])


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> FakeBroker:
    return FakeBroker(monkeypatch, {TOPIC: 2})


def add(broker: FakeBroker, *seconds: int, partition: int = 0) -> None:
    """Append outcomes that happened, and arrived, at the given seconds after 1970."""
    for second in seconds:
        event = Outcome(time=datetime.fromtimestamp(second, UTC), prediction_id=f"at-{second}", index=0, outcome=1.0)
        broker.append(TOPIC, encode(event, "test"), partition, timestamp=second)


def add_marker(broker: FakeBroker, partition: TopicPartition = P0) -> None:
    broker.logs[partition].append(None)


def seconds(events: list[Event]) -> list[int]:
    return [int(event.time.timestamp()) for event in events]


def commit(broker: FakeBroker, partition: TopicPartition, offset: int) -> None:
    broker.committed[partition] = OffsetAndMetadata(offset, "", -1)


def test_read_last_sorts_events_of_several_partitions_by_time(broker: FakeBroker) -> None:
    add(broker, 1, 4, 5)
    add(broker, 2, 3, partition=1)
    assert seconds(reader.read_last(KAFKA, TOPIC, 3)) == [3, 4, 5]
    assert seconds(reader.read_last(KAFKA, TOPIC, 1000)) == [1, 2, 3, 4, 5]


def test_read_last_skips_invalid_messages_and_markers(broker: FakeBroker) -> None:
    add(broker, 1)
    broker.append(TOPIC, INVALID)
    add(broker, 2)
    add_marker(broker)
    assert seconds(reader.read_last(KAFKA, TOPIC, 4)) == [1, 2]


@pytest.mark.usefixtures("broker")
def test_read_last_returns_nothing_of_unknown_topic() -> None:
    assert reader.read_last(KAFKA, "nowhere", 4) == []


def test_read_since_starts_at_time_or_after_offset(broker: FakeBroker) -> None:
    add(broker, 10, 20, 30, 40)
    add(broker, 15, partition=1)
    start = datetime.fromtimestamp(20, UTC)
    assert seconds(list(reader.read_since(KAFKA, TOPIC, start))) == [20, 30, 40]
    assert seconds(list(reader.read_since(KAFKA, TOPIC, start, {0: 2}))) == [40]


def test_read_window_returns_its_events_that_the_topic_still_holds(broker: FakeBroker) -> None:
    add(broker, 1, 2, 3, 4)
    window = Window(topic=TOPIC, partition=0, first_offset=1, last_offset=2)
    assert seconds(list(reader.read_window(KAFKA, window))) == [2, 3]


def test_tail_yields_new_events_and_none_without_any(broker: FakeBroker) -> None:
    add(broker, 1, 2)
    with reader.tail(KAFKA, TOPIC, last=1) as events:
        add(broker, 3)
        assert [event and int(event.time.timestamp()) for event in islice(events, 3)] == [2, 3, None]


def test_tail_raises_broker_unavailable_while_it_is_read(broker: FakeBroker) -> None:
    with reader.tail(KAFKA, TOPIC) as events:
        broker.faults["poll"] = [KafkaConnectionError("gone")]
        with pytest.raises(BrokerUnavailable, match="gone"):
            next(events)


def test_consumer_lag_counts_offsets_with_markers(broker: FakeBroker) -> None:
    add(broker, 1, 2)
    add_marker(broker)
    add(broker, 3, partition=1)
    assert reader.consumer_lag(KAFKA, "group", [TOPIC]) == {"outcomes-0": 3, "outcomes-1": 1}
    commit(broker, P0, 2)
    commit(broker, P1, 1)
    assert reader.consumer_lag(KAFKA, "group", [TOPIC]) == {"outcomes-0": 1, "outcomes-1": 0}


def test_is_caught_up_ignores_markers_but_no_message(broker: FakeBroker) -> None:
    add(broker, 1, 2)
    add_marker(broker)
    assert not reader.is_caught_up(KAFKA, "group", [TOPIC])
    commit(broker, P0, 1)
    assert not reader.is_caught_up(KAFKA, "group", [TOPIC])
    commit(broker, P0, 2)
    assert reader.is_caught_up(KAFKA, "group", [TOPIC])
    broker.append(TOPIC, INVALID)  # it is still to be moved to the dead letters
    assert not reader.is_caught_up(KAFKA, "group", [TOPIC])
    commit(broker, P0, 4)
    assert reader.is_caught_up(KAFKA, "group", [TOPIC])


@pytest.mark.parametrize(
    "call",
    [
        lambda: reader.read_last(KAFKA, TOPIC, 1),
        lambda: list(reader.read_since(KAFKA, TOPIC, datetime.now(UTC))),
        lambda: reader.consumer_lag(KAFKA, "group", [TOPIC]),
        lambda: reader.is_caught_up(KAFKA, "group", [TOPIC]),
        lambda: reader.tail(KAFKA, TOPIC).__enter__(),
    ],
)
def test_reader_raises_broker_unavailable_that_names_setting(broker: FakeBroker, call: Callable[[], object]) -> None:
    broker.faults["KafkaConsumer"] = [KafkaConnectionError("gone")]
    with pytest.raises(BrokerUnavailable, match=r"fake:9092 \(DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS\).*gone"):
        call()


def test_topic_specs_partition_and_expire_only_large_topics() -> None:
    specs = topics.topic_specs(TopicsSettings(partitions=6, replication_factor=3, retention_days=2))
    large = {"predictions", "outcomes"}
    names = {*TopicsSettings().names()}
    assert set(specs) == names | {f"{name}.dlq" for name in names}
    assert {name for name, spec in specs.items() if spec.partitions == 6} == large
    assert {spec.replication_factor for spec in specs.values()} == {3}
    for name, spec in specs.items():
        retention_ms = "172800000" if name.removesuffix(".dlq") in large else "-1"
        assert spec.configs == {"retention.ms": retention_ms, "message.timestamp.type": "LogAppendTime"}


def test_create_makes_missing_topics_only(broker: FakeBroker) -> None:
    created = topics.create(KAFKA, TopicsSettings(partitions=3))
    assert len(created) == 9
    assert TOPIC not in created
    assert {p.partition for p in broker.logs if p.topic == "predictions"} == {0, 1, 2}
    assert topics.create(KAFKA, TopicsSettings()) == []


def test_use_broker_time_changes_existing_topics_once(broker: FakeBroker) -> None:
    assert topics.use_broker_time(KAFKA, TopicsSettings()) == [TOPIC]
    assert broker.timestamp_types == {TOPIC: "LogAppendTime"}
    assert topics.use_broker_time(KAFKA, TopicsSettings()) == []


def test_publisher_publishes_events_to_their_topics(broker: FakeBroker) -> None:
    with Publisher(KAFKA, TopicsSettings(), "test") as publisher:
        publisher.publish(Outcome(prediction_id="a", index=0, outcome=1.0))
    assert [record.key for record in broker.messages(TOPIC)] == [b"a"]
    assert broker.producers[0].options["enable_idempotence"]
    assert broker.producers[0].closed


@pytest.mark.parametrize("step", ["KafkaProducer", "send", "future.get"])
def test_publisher_raises_broker_unavailable(broker: FakeBroker, step: str) -> None:
    broker.faults[step] = [KafkaTimeoutError("too slow")]
    with pytest.raises(BrokerUnavailable, match="too slow"):
        Publisher(KAFKA, TopicsSettings(), "test").publish(Outcome(prediction_id="a", index=0, outcome=1.0))


def test_committed_positions_have_their_metadata_and_no_other_topics(broker: FakeBroker) -> None:
    broker.committed[P1] = OffsetAndMetadata(70, "A,A;", -1)
    broker.committed[TopicPartition("drift", 0)] = OffsetAndMetadata(5, "", -1)
    assert reader.committed_positions(KAFKA, "drift_worker", [TOPIC]) == {(TOPIC, 1): (70, "A,A;")}
