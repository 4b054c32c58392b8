"""What is published together with offsets, on a real broker."""

import uuid
from collections.abc import Iterator

import pytest
from kafka import ConsumerGroupMetadata, KafkaConsumer, TopicPartition

from driftloop import topics
from driftloop.consuming import consumer
from driftloop.settings import Topics
from driftloop.topics import dead_letter_topic
from driftloop.transactions import Begin, Moved, Transactions
from stack.running import Stack
from tests.conftest import until
from tests.judging import SESSION_SECONDS


@pytest.fixture
def mine(stack: Stack) -> Topics:
    mine = Topics(outcomes=f"outcomes-{uuid.uuid4().hex[:8]}")
    topics.create(stack.kafka, mine)
    return mine


@pytest.fixture
def members(stack: Stack, mine: Topics) -> Iterator[list[KafkaConsumer]]:
    """One that has joined its group, and one that has not yet."""
    kafka = stack.kafka.model_copy(update={"session_timeout_seconds": SESSION_SECONDS})
    members = [consumer(kafka, f"of-two-{mine.outcomes}", name) for name in ("first", "second")]
    members[0].subscribe([mine.outcomes])
    until(lambda: membership(members[:1], than=-1), "the first has joined")
    yield members
    for member in members:
        member.close(autocommit=False)


def membership(members: list[KafkaConsumer], than: int) -> ConsumerGroupMetadata | None:
    """The first's, once all are of a generation later ``than`` that."""
    for member in members:
        member.poll(100)
    found = [member.group_metadata() for member in members]
    return found[0] if all(one.generation_id > than for one in found) else None


def test_offsets_of_a_transaction_that_was_given_up_are_in_no_later_one(
    stack: Stack, mine: Topics, members: list[KafkaConsumer]
) -> None:
    lost, kept = TopicPartition(mine.outcomes, 0), TopicPartition(dead_letter_topic(mine.outcomes), 0)
    transactions = Transactions(stack.kafka, mine, "test", mine.outcomes)
    before = members[0].group_metadata()
    members[1].subscribe([mine.outcomes])
    now = until(lambda: membership(members, than=before.generation_id), "the second has joined")

    with pytest.raises(Moved, match="IllegalGeneration"):
        transactions.commit(before, {lost: Begin(5, "too late")}, [])
    transactions.commit(now, {kept: Begin(7, "in time")}, [])
    transactions.close()

    assert members[1].committed(lost) is None
    assert members[1].committed(kept, metadata=True)[:2] == (7, "in time")
