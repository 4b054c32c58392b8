"""Transactions that carry events, dead letters and offsets, on an in-memory broker."""

import pytest
from kafka import ConsumerGroupMetadata, TopicPartition
from kafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from driftloop.errors import BrokerUnavailable
from driftloop.events import Outcome
from driftloop.kafka.codec import Message, decode
from driftloop.kafka.transactional_producer import (
    CommittedPosition,
    OutgoingMessage,
    Rebalanced,
    TransactionalProducer,
)
from driftloop.settings import TopicsSettings
from tests.support.fake_kafka import KAFKA, FakeBroker

INPUT = TopicPartition("predictions", 0)
OTHER_INPUT = TopicPartition("predictions", 1)
EVENT = Outcome(prediction_id="p", index=0, outcome=1.0)
LETTER = OutgoingMessage("predictions.dlq", Message(b"key", b"garbage", [("dlq_offset", b"4")]))
MEMBER = ConsumerGroupMetadata("group", 0, "member")


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> FakeBroker:
    return FakeBroker(monkeypatch, {"predictions": 2, "outcomes": 1, "predictions.dlq": 1})


@pytest.fixture
def producer(broker: FakeBroker) -> TransactionalProducer:
    assert broker.producers == []
    return TransactionalProducer(KAFKA, TopicsSettings(), "drift_worker", "worker-1")


@pytest.mark.usefixtures("producer")
def test_producer_is_fenced_by_source_and_instance(broker: FakeBroker) -> None:
    options = broker.producers[0].options
    assert options["transactional_id"] == "driftloop-drift_worker-worker-1"
    assert options["acks"] == "all"
    assert options["transaction_timeout_ms"] == KAFKA.session_timeout_seconds * 1000


def test_commit_publishes_events_dead_letters_and_positions(
    broker: FakeBroker, producer: TransactionalProducer
) -> None:
    producer.commit(
        MEMBER, {INPUT: CommittedPosition(5, "slice 3"), OTHER_INPUT: CommittedPosition(2)}, [EVENT], [LETTER]
    )
    (published,) = broker.messages("outcomes")
    assert decode(published.value, published.headers) == EVENT
    (letter,) = broker.messages("predictions.dlq")
    assert (letter.key, letter.value, letter.headers) == LETTER.message
    assert broker.committed[INPUT][:2] == (5, "slice 3")
    assert broker.committed[OTHER_INPUT][:2] == (2, "")
    assert broker.commits == 1


def test_commit_refuses_consumer_without_membership(broker: FakeBroker, producer: TransactionalProducer) -> None:
    with pytest.raises(Rebalanced):
        producer.commit(ConsumerGroupMetadata("group"), {INPUT: CommittedPosition(5)}, [EVENT])
    assert broker.messages("outcomes") == []
    assert broker.committed == {}


@pytest.mark.parametrize(
    "error", [CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError]
)
@pytest.mark.parametrize("step", ["send_offsets_to_transaction", "commit_transaction"])
def test_commit_raises_rebalanced_and_replaces_producer(
    broker: FakeBroker, producer: TransactionalProducer, error: type[KafkaError], step: str
) -> None:
    broker.faults[step] = [error("refused")]
    with pytest.raises(Rebalanced, match="refused"):
        producer.commit(MEMBER, {INPUT: CommittedPosition(5)}, [EVENT])
    refused, current = broker.producers
    assert (refused.aborts, refused.closed, current.closed) == (1, True, False)
    assert broker.messages("outcomes") == []

    producer.commit(MEMBER, {OTHER_INPUT: CommittedPosition(7)}, [EVENT])
    assert {partition: position.offset for partition, position in broker.committed.items()} == {OTHER_INPUT: 7}


def test_commit_of_outdated_member_is_refused(broker: FakeBroker, producer: TransactionalProducer) -> None:
    broker.generation = 1
    with pytest.raises(Rebalanced, match="IllegalGeneration"):
        producer.commit(MEMBER, {INPUT: CommittedPosition(5)}, [])


@pytest.mark.parametrize("step", ["send", "send_offsets_to_transaction", "commit_transaction", "future.get"])
def test_commit_without_an_answer_is_settled_by_reconnecting(
    broker: FakeBroker, producer: TransactionalProducer, step: str
) -> None:
    broker.faults[step] = [KafkaTimeoutError("too slow")]
    with pytest.raises(BrokerUnavailable, match=r"fake:9092 \(DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS\).*too slow"):
        producer.commit(MEMBER, {INPUT: CommittedPosition(5)}, [EVENT])
    assert broker.messages("outcomes") == []

    producer.reconnect()
    producer.commit(MEMBER, {INPUT: CommittedPosition(5)}, [EVENT])
    unanswered, current = broker.producers
    assert (unanswered.closed, current.closed) == (True, False)
    assert len(broker.messages("outcomes")) == 1


@pytest.mark.parametrize("step", ["KafkaProducer", "init_transactions"])
def test_producer_raises_broker_unavailable_at_start(broker: FakeBroker, step: str) -> None:
    broker.faults[step] = [KafkaConnectionError("gone")]
    with pytest.raises(BrokerUnavailable, match="gone"):
        TransactionalProducer(KAFKA, TopicsSettings(), "drift_worker", "worker-1")


@pytest.mark.usefixtures("producer")
def test_request_to_a_coordinator_that_has_gone_is_not_dropped(broker: FakeBroker) -> None:
    client = broker.producers[0]._sender._client  # what kafka-python's sender asks before each request
    broker.faults["await_ready"] = [KafkaConnectionError("not ready")]
    assert not client.await_ready("coordinator-3", timeout_ms=1_000)  # so it looks for another one
    assert client.await_ready("coordinator-1", timeout_ms=1_000)


def test_close_closes_current_producer(broker: FakeBroker, producer: TransactionalProducer) -> None:
    producer.close()
    assert broker.producers[0].closed


def test_producer_that_cannot_be_initialized_is_closed(broker: FakeBroker, producer: TransactionalProducer) -> None:
    """It would go on trying in the background, and fence the next one."""
    broker.faults["init_transactions"] = [KafkaTimeoutError("no coordinator")]
    with pytest.raises(BrokerUnavailable):
        producer.reconnect()
    assert [each.closed for each in broker.producers] == [True, True]
