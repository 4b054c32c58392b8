"""An in-memory broker with kafka-python's consumer, producer and admin client, as far as the product uses them.

It models what the tests check: offsets, transaction markers, committed positions with metadata, group generations
that fence outdated members, and rebalances that happen inside ``poll``. There is one group member at a time.
"""
# ruff: noqa: ARG002  # the signatures are kafka-python's

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import ConsumerGroupMetadata, OffsetAndMetadata, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import IllegalGenerationError, KafkaError
from kafka.structs import MemberState, OffsetAndTimestamp

from driftloop.kafka import client
from driftloop.kafka.codec import Message
from driftloop.settings import KafkaSettings

KAFKA = KafkaSettings(bootstrap_servers="fake:9092", request_timeout_seconds=1)

DEFAULT_CONFIGS = {"retention.ms": "604800000", "segment.ms": "604800000", "cleanup.policy": "delete"}


class FakeBroker:
    """Topics, committed offsets and one group's generation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, partitions: Mapping[str, int]) -> None:
        """Create topics with the given numbers of partitions; all Kafka clients of the product use this broker."""
        self.logs: dict[TopicPartition, list[ConsumerRecord | None]] = {  # None is a transaction marker
            TopicPartition(topic, number): [] for topic, count in partitions.items() for number in range(count)
        }
        self.beginnings: dict[TopicPartition, int] = {}
        """The first offset of each partition from whose beginning messages were deleted."""
        self.timestamp_types: dict[str, str] = {}
        self.configs: dict[tuple[str, str], str] = {}
        """Settings of topics that are not the defaults, by topic and name."""
        self.committed: dict[TopicPartition, OffsetAndMetadata] = {}
        self.generation = 0
        self.assigned: set[TopicPartition] | None = None
        self.commits = 0
        self.producers: list[FakeProducer] = []
        self.faults: dict[str, list[KafkaError | None]] = defaultdict(list)
        """Errors that the next calls of a client's method raise, by the method's name."""
        monkeypatch.setattr(client, "KafkaConsumer", lambda **options: FakeConsumer(self, options))
        monkeypatch.setattr(client, "KafkaProducer", lambda **options: FakeProducer(self, options))
        monkeypatch.setattr(client, "KafkaAdminClient", lambda **_: FakeAdminClient(self))

    def append(self, topic: str, message: Message, partition: int = 0, timestamp: float | None = None) -> int:
        """Append a message to a partition and return its offset."""
        log = self.logs.setdefault(TopicPartition(topic, partition), [])
        milliseconds = int((time.time() if timestamp is None else timestamp) * 1000)
        record = ConsumerRecord(
            topic, partition, 0, len(log), milliseconds, 0, message.key, message.value, message.headers, None, 0, 0, 0
        )
        log.append(record)
        return len(log) - 1

    def messages(self, topic: str) -> list[ConsumerRecord]:
        """Return the committed messages of a topic in the order of partitions and offsets."""
        logs = [log for partition, log in sorted(self.logs.items()) if partition.topic == topic]
        return [record for log in logs for record in log if record is not None]

    def rebalance(self, assigned: Collection[TopicPartition]) -> None:
        """Begin a generation in which the consumer has the given partitions, as it notices in its next poll."""
        self.generation += 1
        self.assigned = set(assigned)

    def raise_fault(self, method: str) -> None:
        """Raise the next error that a test has planned for a method; ``None`` stands for a call without one."""
        if self.faults[method] and (error := self.faults[method].pop(0)) is not None:
            raise error


class FakeConsumer:
    """The parts of ``KafkaConsumer`` that the product uses."""

    def __init__(self, broker: FakeBroker, options: Mapping[str, Any]) -> None:
        broker.raise_fault("KafkaConsumer")
        self.config = {"max_poll_interval_ms": 300_000, "max_poll_records": 500, **options}
        self.state = MemberState.UNJOINED
        self.subscriptions = 0
        self.closed = False
        self._fetcher = SimpleNamespace()
        self._broker = broker
        self._topics: Collection[str] = ()
        self._listener: Any = None
        self._positions: dict[TopicPartition, int] = {}
        self._generation = -1

    def subscribe(self, topics: Collection[str], listener: Any = None) -> None:
        self.subscriptions += 1
        self._topics, self._listener = topics, listener
        if self._broker.assigned is None:
            self._broker.rebalance([partition for partition in self._broker.logs if partition.topic in topics])

    def unsubscribe(self) -> None:
        self._topics, self._generation = (), -1

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        self._positions = dict.fromkeys(partitions, 0)

    def assignment(self) -> set[TopicPartition]:
        return set(self._positions)

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return {partition.partition for partition in self._broker.logs if partition.topic == topic} or None

    def group_metadata(self) -> ConsumerGroupMetadata:
        return ConsumerGroupMetadata("group", self._generation, "member", None, self.state)

    def poll(self, timeout_ms: float = 0) -> dict[TopicPartition, list[ConsumerRecord]]:
        self._broker.raise_fault("poll")
        if self._topics and self._generation != self._broker.generation:
            self._join()
            return {}
        left, polled = self.config["max_poll_records"], {}
        for partition in sorted(self._positions):
            log = self._broker.logs[partition]
            start = self._positions[partition] = max(
                self._positions[partition], self._broker.beginnings.get(partition, 0)
            )
            records = [record for record in log[start:] if record is not None][:left]
            left -= len(records)
            if records:
                polled[partition] = records
                self._positions[partition] = records[-1].offset + 1
            while self._positions[partition] < len(log) and log[self._positions[partition]] is None:
                self._positions[partition] += 1
        return polled

    def _join(self) -> None:
        assigned = self._broker.assigned or set()
        if self._positions and self._listener is not None:
            self._listener.on_partitions_revoked(set(self._positions))
        committed = self._broker.committed
        self._positions = {p: committed[p].offset if p in committed else 0 for p in assigned}
        self._generation, self.state = self._broker.generation, MemberState.STABLE
        if self._listener is not None:
            self._listener.on_partitions_assigned(assigned)

    def committed(self, partition: TopicPartition, *, metadata: bool = False) -> OffsetAndMetadata | int | None:
        self._broker.raise_fault("committed")
        found = self._broker.committed.get(partition)
        return found if metadata or found is None else int(found.offset)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._positions[partition] = offset

    def seek_to_beginning(self, partition: TopicPartition) -> None:
        self._positions[partition] = 0

    def position(self, partition: TopicPartition, timeout_ms: float | None = None) -> int:
        return self._positions[partition]

    def highwater(self, partition: TopicPartition) -> int:
        return len(self._broker.logs[partition])

    def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {partition: self._broker.beginnings.get(partition, 0) for partition in partitions}

    def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {partition: len(self._broker.logs[partition]) for partition in partitions}

    def offsets_for_times(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        return {
            partition: next(
                (
                    OffsetAndTimestamp(record.offset, record.timestamp, 0)
                    for record in self._broker.logs[partition]
                    if record is not None and record.timestamp >= time_ms
                ),
                None,
            )
            for partition, time_ms in times.items()
        }

    def close(self, *, autocommit: bool = True) -> None:
        self.closed = True


class FakeFuture:
    """A send that ends with the transaction."""

    def __init__(self, raise_fault: Callable[[str], None]) -> None:
        self._raise_fault = raise_fault

    def get(self, timeout: float | None = None) -> None:
        self._raise_fault("future.get")


class FakeProducer:
    """The parts of ``KafkaProducer`` that the product uses. Without a transaction a send is visible at once."""

    def __init__(self, broker: FakeBroker, options: Mapping[str, Any]) -> None:
        broker.raise_fault("KafkaProducer")
        self.options = options
        self.closed = False
        self.aborts = 0
        self._broker = broker
        self._sent: list[tuple[str, Message]] = []
        # Like kafka-python, which keeps refused offsets and sends them with the next transaction of the same producer.
        self._offsets: dict[TopicPartition, OffsetAndMetadata] = {}
        self._in_transaction = False
        self._transaction_manager = SimpleNamespace(
            send_offsets_to_transaction=None, begin_commit=None, begin_abort=None
        )
        self._sender = SimpleNamespace(_client=SimpleNamespace(await_ready=self._await_ready))
        broker.producers.append(self)

    def _await_ready(self, node_id: str, timeout_ms: float) -> bool:
        """Wait for the coordinator; like kafka-python, which raises instead of returning that it is not ready."""
        self._broker.raise_fault("await_ready")
        return True

    def init_transactions(self) -> None:
        self._broker.raise_fault("init_transactions")

    def begin_transaction(self) -> None:
        assert not self._in_transaction
        self._in_transaction = True
        self._sent = []

    def send(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Any) -> FakeFuture:
        self._broker.raise_fault("send")
        message = Message(key, value, headers)
        if self._in_transaction:
            self._sent.append((topic, message))
        else:
            self._broker.append(topic, message)
        return FakeFuture(self._broker.raise_fault)

    def send_offsets_to_transaction(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], group: ConsumerGroupMetadata
    ) -> None:
        self._offsets |= offsets
        if group.generation_id != self._broker.generation:
            raise IllegalGenerationError("outdated generation")
        self._broker.raise_fault("send_offsets_to_transaction")

    def commit_transaction(self) -> None:
        self._broker.raise_fault("commit_transaction")
        for topic, message in self._sent:
            self._broker.append(topic, message)
        for topic in {topic for topic, _ in self._sent}:
            self._broker.logs[TopicPartition(topic, 0)].append(None)
        self._broker.committed |= self._offsets
        self._broker.commits += 1
        self._offsets = {}
        self._in_transaction = False
        self._broker.raise_fault("answer to commit_transaction")

    def abort_transaction(self) -> None:
        self.aborts += 1
        self._in_transaction = False

    def close(self, timeout: float | None = None) -> None:
        self.closed = True


class FakeAdminClient:
    """The parts of ``KafkaAdminClient`` that the product uses."""

    def __init__(self, broker: FakeBroker) -> None:
        broker.raise_fault("KafkaAdminClient")
        self._broker = broker

    def list_topics(self) -> list[str]:
        return sorted({partition.topic for partition in self._broker.logs})

    def create_topics(self, topics: Mapping[str, Mapping[str, Any]], *, wait_for_metadata: bool) -> None:
        for topic, spec in topics.items():
            for number in range(spec["num_partitions"]):
                self._broker.logs[TopicPartition(topic, number)] = []

    def describe_configs(self, resources: Iterable[Any], *, config_filter: str) -> dict[str, Any]:
        def value(topic: str, name: str) -> str:
            if name == "message.timestamp.type":
                return self._broker.timestamp_types.get(topic, "CreateTime")
            return self._broker.configs.get((topic, name)) or DEFAULT_CONFIGS[name]

        return {"topic": {r.name: {name: {"value": value(r.name, name)} for name in r.configs} for r in resources}}

    def alter_configs(self, resources: Iterable[Any]) -> dict[str, Any]:
        for resource in resources:
            (self._broker.timestamp_types[resource.name],) = resource.configs.values()
        return {"topic": dict.fromkeys(self._broker.timestamp_types, "OK")}

    def list_group_offsets(self, groups: Mapping[str, None]) -> dict[str, dict[TopicPartition, OffsetAndMetadata]]:
        return dict.fromkeys(groups, self._broker.committed)

    def close(self) -> None:
        pass
