"""What a change of a group's members or of a topic's partitions must not break, on a real broker."""

import threading
import uuid
from collections.abc import Iterable, Iterator

import pytest
from kafka import ConsumerGroupMetadata, KafkaAdminClient, KafkaConsumer, TopicPartition

from driftloop.events import Outcome
from driftloop.kafka import consumer_loop, topics
from driftloop.kafka.client import create_consumer
from driftloop.kafka.consumer_loop import Commit, ConsumedMessage, ConsumerLoop
from driftloop.kafka.publisher import Publisher
from driftloop.kafka.topics import dead_letter_topic
from driftloop.kafka.transactional_producer import CommittedPosition, Rebalanced, TransactionalProducer
from driftloop.settings import DeadLetterSettings, TopicsSettings
from driftloop.telemetry.health import Health
from stack.running import Stack
from tests.integration.test_dead_letters import Seen
from tests.support.waiting import wait_until
from tests.support.worker_group import SESSION_SECONDS


@pytest.fixture
def mine(stack: Stack) -> TopicsSettings:
    mine = TopicsSettings(outcomes=f"outcomes-{uuid.uuid4().hex[:8]}")
    topics.create(stack.kafka, mine)
    return mine


@pytest.fixture
def members(stack: Stack, mine: TopicsSettings) -> Iterator[list[KafkaConsumer]]:
    """One that has joined its group, and one that has not yet."""
    kafka = stack.kafka.model_copy(update={"session_timeout_seconds": SESSION_SECONDS})
    members = [create_consumer(kafka, f"of-two-{mine.outcomes}", name) for name in ("first", "second")]
    members[0].subscribe([mine.outcomes])
    members[0].partitions_for_topic(mine.outcomes)
    wait_until(lambda: membership(members[:1], than=-1), "the first has joined")
    yield members
    for member in members:
        member.close(autocommit=False)


def membership(members: list[KafkaConsumer], than: int) -> ConsumerGroupMetadata | None:
    """The first's, once all are of a generation later ``than`` that."""
    for member in members:
        member.poll(1_000)
    found = [member.group_metadata() for member in members]
    return found[0] if all(one.generation_id > than for one in found) else None


def test_offsets_of_a_transaction_that_was_given_up_are_in_no_later_one(
    stack: Stack, mine: TopicsSettings, members: list[KafkaConsumer]
) -> None:
    lost, kept = TopicPartition(mine.outcomes, 0), TopicPartition(dead_letter_topic(mine.outcomes), 0)
    transactions = TransactionalProducer(stack.kafka, mine, "test", mine.outcomes)
    before = members[0].group_metadata()
    members[1].subscribe([mine.outcomes])
    now = wait_until(lambda: membership(members, than=before.generation_id), "the second has joined")

    with pytest.raises(Rebalanced, match="IllegalGeneration"):
        transactions.commit(before, {lost: CommittedPosition(5, "too late")}, [])
    transactions.commit(now, {kept: CommittedPosition(7, "in time")}, [])
    transactions.close()

    assert members[1].committed(lost) is None
    assert members[1].committed(kept, metadata=True)[:2] == (7, "in time")


def test_partitions_that_are_added_are_read_even_where_the_client_forgets_its_join(
    stack: Stack, mine: TopicsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_loop, "POLL_TIMEOUT_MS", 1)  # so that every poll is over in the midst of a join
    reader = create_consumer(stack.kafka, f"grows-{mine.outcomes}", "test", max_poll_interval_seconds=SESSION_SECONDS + 1)
    admin = KafkaAdminClient(bootstrap_servers=stack.kafka.bootstrap_servers)

    class Growing(Seen):
        grown = False

        def handle(self, received: ConsumedMessage) -> Iterable[Commit]:
            if received.partition == 1:
                self.stop.set()
            return super().handle(received)

        def on_poll(self) -> Iterable[Commit]:
            if reader.assignment() and not self.grown:
                self.grown = True
                admin.create_partitions({mine.outcomes: 2})
                reader.topics()  # learns of it now, and not in five minutes
                with Publisher(stack.kafka, mine, "test") as publisher:
                    publisher.publish(*(Outcome(prediction_id=f"{key}", index=0, outcome=1.0) for key in range(40)))
            return []

    growing = Growing(threading.Event(), wanted=40)
    watchdog = threading.Timer(120, growing.stop.set)
    watchdog.start()
    transactions = TransactionalProducer(stack.kafka, mine, "test", f"grows-{mine.outcomes}")
    loop = ConsumerLoop(reader, [mine.outcomes], growing, transactions, DeadLetterSettings(), Health())
    try:
        loop.run(growing.stop)
    finally:
        watchdog.cancel()
        loop.close()
        admin.close()
    assert 1 in {received.partition for received in growing.received}
