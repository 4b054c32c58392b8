"""Whether a consumer group has members, as a real broker says."""

import uuid

from driftloop.kafka import reader
from driftloop.kafka.client import create_consumer
from stack.running import Stack
from tests.support.waiting import wait_until


def test_group_has_members_while_a_consumer_is_in_it(stack: Stack) -> None:
    group = f"group-{uuid.uuid4().hex[:8]}"
    assert reader.has_members(stack.kafka, group) is False
    consumer = create_consumer(stack.kafka, group, "only")
    consumer.subscribe([stack.topics.retrain])

    def is_member() -> bool | None:
        consumer.poll(1_000)
        return reader.has_members(stack.kafka, group) or None

    wait_until(is_member, "the consumer is a member")
    consumer.close(autocommit=False)
    wait_until(lambda: reader.has_members(stack.kafka, group) is False or None, "a member that left does not count")


def test_trainer_of_the_stack_is_a_member_of_its_group(stack: Stack) -> None:
    wait_until(lambda: reader.has_members(stack.kafka, "trainer-flights") or None, "the trainer is a member")
    assert reader.has_members(stack.kafka, "trainer-of-nothing") is False
