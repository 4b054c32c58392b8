"""What cannot be read, through the whole loop on a real broker."""

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from prometheus_client import REGISTRY

from driftloop.events import Outcome
from driftloop.kafka import topics
from driftloop.kafka.client import create_consumer
from driftloop.kafka.consumer_loop import (
    Commit,
    ConsumedMessage,
    ConsumerLoop,
    DeadLetterLimitExceeded,
    RetryLater,
)
from driftloop.kafka.publisher import Publisher
from driftloop.kafka.topics import dead_letter_topic
from driftloop.kafka.transactional_producer import CommittedPosition, TransactionalProducer
from driftloop.settings import DeadLetterSettings, TopicsSettings
from driftloop.storage.bucket import Bucket
from driftloop.telemetry.health import Health
from stack.running import Stack
from tests.support.ports import reserve_ports
from tests.support.running_stack import FLIGHT, predict
from tests.support.waiting import wait_until


@dataclass
class Seen:
    """A handler whose effect is to remember; stops its loop after a number of offsets."""

    stop: threading.Event
    wanted: int
    received: list[ConsumedMessage] = field(default_factory=list)

    def handle(self, received: ConsumedMessage) -> Iterable[Commit]:
        self.received.append(received)
        if len(self.received) == self.wanted:
            self.stop.set()
        return [Commit(received.topic, received.partition, received.offset + 1)]

    def on_poll(self) -> Iterable[Commit]:
        return []

    def on_assigned(self, partitions: Mapping[tuple[str, int], CommittedPosition]) -> None:
        pass

    def on_revoked(self, partitions: Collection[tuple[str, int]]) -> None:
        pass


class Source:
    """A topic of its own for each test, and a loop that consumes it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.topic = f"outcomes-{uuid.uuid4().hex[:8]}"
        self.topics = TopicsSettings(outcomes=self.topic)
        topics.create(stack.kafka, self.topics)
        self.publisher = Publisher(stack.kafka, self.topics, "test")
        self.group = f"group-{self.topic}"

    def put(self, *good: bool) -> None:
        """Readable and unreadable messages, in this order."""
        raw = KafkaProducer(bootstrap_servers=self.stack.kafka.bootstrap_servers)
        for number, readable in enumerate(good):
            if readable:
                self.publisher.publish(Outcome(prediction_id="p", index=number, outcome=1.0))
            else:
                raw.send(self.topic, key=b"k", value=b"garbage %d" % number, headers=[("trace", b"t")]).get(10)
        raw.close()

    def run(self, wanted: int, limits: DeadLetterSettings) -> Seen:
        """Consumes until ``wanted`` offsets are handled."""
        stop = threading.Event()
        seen = Seen(stop, wanted)
        watchdog = threading.Timer(60, stop.set)
        watchdog.start()
        source = create_consumer(self.stack.kafka, self.group, "test")
        try:
            ConsumerLoop(source, [self.topic], seen, self.transactions(), limits, Health()).run(stop)
        finally:
            watchdog.cancel()
            source.close(autocommit=False)
        return seen

    def transactions(self) -> TransactionalProducer:
        return TransactionalProducer(self.stack.kafka, self.topics, "test", self.topic)

    def committed(self) -> int | None:
        reader = KafkaConsumer(bootstrap_servers=self.stack.kafka.bootstrap_servers, group_id=self.group)
        try:
            offset = reader.committed(TopicPartition(self.topic, 0))
            return None if offset is None else int(offset)
        finally:
            reader.close()

    def dead_letters(self) -> list[ConsumerRecord]:
        return records(self.stack, dead_letter_topic(self.topic))


def records(stack: Stack, topic: str) -> list[ConsumerRecord]:
    """All messages of a topic of one partition."""
    partition = TopicPartition(topic, 0)
    reader = KafkaConsumer(bootstrap_servers=stack.kafka.bootstrap_servers, isolation_level="read_committed")
    try:
        reader.assign([partition])
        reader.seek_to_beginning(partition)
        end, found = reader.end_offsets([partition])[partition], []
        while reader.position(partition) < end:
            for polled in reader.poll(1_000).values():
                found += polled
        return found
    finally:
        reader.close()


@pytest.fixture
def source(stack: Stack) -> Iterator[Source]:
    source = Source(stack)
    yield source
    source.publisher.close()


def test_an_unreadable_message_is_moved_with_its_origin_and_the_rest_is_handled(source: Source) -> None:
    source.put(True, False, True)
    seen = source.run(3, DeadLetterSettings())
    assert [(r.offset, r.event is not None) for r in seen.received] == [(0, True), (1, False), (2, True)]
    (letter,) = source.dead_letters()
    headers = {name: value.decode() for name, value in letter.headers}
    assert (letter.key, letter.value) == (b"k", b"garbage 1")
    assert headers.pop("dlq_error").startswith("no CloudEvent")
    assert headers == {"trace": "t", "dlq_topic": source.topic, "dlq_partition": "0", "dlq_offset": "1"}
    assert source.committed() == 3


def test_unreadable_messages_at_the_end_of_a_topic_are_moved_too(source: Source) -> None:
    source.put(True, False, False)
    assert len(source.run(3, DeadLetterSettings()).received) == 3
    assert len(source.dead_letters()) == 2
    assert source.committed() == 3


def test_too_many_in_a_row_stop_the_loop_and_none_of_them_is_moved(source: Source) -> None:
    source.put(True, *[False] * 20)
    for _ in range(2):  # and again after a restart
        with pytest.raises(
            DeadLetterLimitExceeded, match=r"4 messages in a row .* DRIFTLOOP_DEAD_LETTERS__MAX_CONSECUTIVE \(3\)"
        ):
            source.run(21, DeadLetterSettings(max_consecutive=3, max_ratio=1.0))
        assert source.dead_letters() == []
        assert source.committed() == 1


def test_a_mended_reader_goes_on_where_the_loop_stopped(source: Source) -> None:
    source.put(True, *[False] * 5, True)
    with pytest.raises(DeadLetterLimitExceeded):
        source.run(7, DeadLetterSettings(max_consecutive=3, max_ratio=1.0))
    seen = source.run(6, DeadLetterSettings(max_consecutive=5, max_ratio=1.0))
    assert [received.offset for received in seen.received] == [1, 2, 3, 4, 5, 6]
    assert len(source.dead_letters()) == 5


def test_too_large_a_share_stops_the_loop(source: Source) -> None:
    source.put(*[True, False] * 10)
    with pytest.raises(DeadLetterLimitExceeded, match=r"DRIFTLOOP_DEAD_LETTERS__MAX_RATIO \(0\.2\)"):
        source.run(20, DeadLetterSettings(max_consecutive=3, max_ratio=0.2, ratio_window=20))
    assert len(source.dead_letters()) == 4
    assert source.committed() == 9


def test_a_handler_that_fails_ends_the_loop_and_meets_its_event_again(source: Source) -> None:
    class Failing(Seen):
        def handle(self, received: ConsumedMessage) -> Iterable[Commit]:
            if received.offset == 1:
                raise RuntimeError("disk full")
            return super().handle(received)

    source.put(True, True)
    reader = create_consumer(source.stack.kafka, source.group, "test")
    failing = Failing(threading.Event(), 2)
    with pytest.raises(RuntimeError, match="disk full"):
        ConsumerLoop(reader, [source.topic], failing, source.transactions(), DeadLetterSettings(), Health()).run(
            failing.stop
        )
    reader.close(autocommit=False)
    assert source.committed() == 1
    assert [received.offset for received in source.run(1, DeadLetterSettings()).received] == [1]


def test_what_a_poll_has_made_final_is_committed_in_one_transaction(source: Source) -> None:
    class Counted(TransactionalProducer):
        commits = 0

        def commit(self, *what: Any) -> None:
            self.commits += 1
            super().commit(*what)

    source.put(*[True] * 10, False, *[True] * 10)
    reader, seen = create_consumer(source.stack.kafka, source.group, "test"), Seen(threading.Event(), 21)
    transactions = Counted(source.stack.kafka, source.topics, "test", source.topic)
    try:
        ConsumerLoop(reader, [source.topic], seen, transactions, DeadLetterSettings(), Health()).run(seen.stop)
    finally:
        reader.close(autocommit=False)
    assert source.committed() == 21
    assert len(source.dead_letters()) == 1
    assert transactions.commits < 5


def test_a_handler_that_lacks_something_for_a_while_meets_its_events_again_in_the_same_loop(source: Source) -> None:
    class Waiting(Seen):
        tries = 0

        def handle(self, received: ConsumedMessage) -> Iterable[Commit]:
            if received.offset == 1 and self.tries < 2:
                self.tries += 1
                assert not health.unavailable or self.tries == 2
                if self.tries == 2:
                    assert lag(source.topic)[0] == 3
                    assert lag(source.topic)[1] >= 1  # so long it has waited
                raise RetryLater("no disk")
            return super().handle(received)

    source.put(True, True, False, True)
    reader, health = create_consumer(source.stack.kafka, source.group, "test"), Health()
    health.mark_started()
    waiting = Waiting(threading.Event(), 4)
    try:
        ConsumerLoop(reader, [source.topic], waiting, source.transactions(), DeadLetterSettings(), health).run(
            waiting.stop
        )
        assert lag(source.topic) == (0, 0)
    finally:
        reader.close(autocommit=False)
    assert lag(source.topic) == (None, None)  # it is for the next owner of the partition to tell
    assert [received.offset for received in waiting.received] == [0, 1, 2, 3]
    assert waiting.tries == 2
    assert health.unavailable == {}
    assert source.committed() == 4


def lag(topic: str) -> tuple[Any, Any]:
    """What this process' metrics tell: events, and seconds."""
    labels = {"topic": topic, "partition": "0"}
    names = ("driftloop_consumer_lag_events", "driftloop_consumer_lag_seconds")
    return REGISTRY.get_sample_value(names[0], labels), REGISTRY.get_sample_value(names[1], labels)


def test_a_stop_ends_the_wait_of_a_handler_that_lacks_something(source: Source) -> None:
    class Lacking(Seen):
        def handle(self, received: ConsumedMessage) -> Iterable[Commit]:
            if received.offset == 1:
                threading.Timer(0.2, self.stop.set).start()
                raise RetryLater("no disk")
            return super().handle(received)

    source.put(True, True)
    reader, lacking = create_consumer(source.stack.kafka, source.group, "test"), Lacking(threading.Event(), 2)
    try:
        ConsumerLoop(reader, [source.topic], lacking, source.transactions(), DeadLetterSettings(), Health()).run(
            lacking.stop
        )
    finally:
        reader.close(autocommit=False)
    assert source.committed() == 1


@pytest.mark.usefixtures("version_1")
def test_the_running_worker_moves_what_it_cannot_read_and_goes_on(stack: Stack) -> None:
    raw = KafkaProducer(bootstrap_servers=stack.kafka.bootstrap_servers)
    at = raw.send("predictions", b"not an event").get(10)
    raw.close()

    def moved() -> ConsumerRecord | None:
        offsets = [(dict(record.headers)["dlq_offset"], record) for record in records(stack, "predictions.dlq")]
        return next((record for offset, record in offsets if offset == str(at.offset).encode()), None)

    assert wait_until(moved, "the dead letter").value == b"not an event"
    answer = predict(stack, FLIGHT).json()

    def archived() -> bool | None:
        bucket = Bucket(stack.storage)
        frames = (bucket.read_parquet(path) for path in bucket.list_paths("events/predictions/"))
        return any(answer["id"] in set(frame["id"]) for frame in frames) or None

    wait_until(archived, f"{answer['id']} is archived")


def test_a_worker_that_meets_too_many_stops_and_says_so(source: Source) -> None:
    source.put(*[False] * 10)
    stack = source.stack
    ended = subprocess.run(
        [sys.executable, "-m", "drift_worker.main"],
        env={
            **os.environ,
            **stack.environment,
            "DRIFTLOOP_INSTANCE_ID": source.topic,
            "DRIFTLOOP_DRIFT_WORKER__GROUP": source.group,
            "DRIFTLOOP_DRIFT_WORKER__PORT": str(reserve_ports(1)[0]),
            "DRIFTLOOP_TOPICS__OUTCOMES": source.topic,
            "DRIFTLOOP_TOPICS__PREDICTIONS": f"{source.topic}-none",
            "DRIFTLOOP_DEAD_LETTERS__MAX_CONSECUTIVE": "5",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1
    assert "6 messages in a row" in ended.stderr
    assert "Stopped instead of moving a topic" in ended.stderr
    assert source.dead_letters() == []
