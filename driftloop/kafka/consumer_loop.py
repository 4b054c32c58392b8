"""The consume loop of every service: poll, handle, commit.

The contract between the loop and its :class:`MessageHandler`:

- **Order.** Each message of a partition is handed over in the order of its offsets, and again after a crash. Callers
  should not assume that a message is handed over only once.
- **Commit.** Handling a message does not commit it. An offset is committed once the handler has returned a
  :class:`Commit` beyond it, which says that everything before it has had its effect. The commits of one poll form one
  Kafka transaction, together with the events that they publish: readers of committed messages see each event once.
  Other side effects must be idempotent.
- **Dead letters.** A message that is no valid event moves to ``<topic>.dlq`` with its origin and the error, in the
  transaction that commits its offset. The handler receives it as a :class:`ConsumedMessage` without an event. Above the
  limits of :class:`~driftloop.settings.DeadLetterSettings` the reader must be wrong, not the messages: the loop raises
  :class:`~driftloop.kafka.dead_letter_limits.DeadLetterLimitExceeded`, and the messages of that run are neither moved
  nor committed.
- **Deleted messages.** If the broker has deleted messages before they were read, by retention or by hand, reading goes
  on at the beginning of the log; the jump is logged and counted. The handler sees it as a first message whose
  ``previous_end_offset`` is beyond the position before it.
- **Forgotten offsets.** If nothing is committed, the loop asks ``find_handled`` how far the service has got. That is
  then committed, logged and counted.
- **One instance.** A process that another one of the same name has replaced waits until that has ended, and then raises
  :class:`InstanceReplaced`.
- **Errors.** An exception of the handler ends the loop after the commits returned before it; its message is delivered
  again after a restart. :class:`RetryLater` makes the same loop deliver it again after a pause.
- **Broker.** If the broker does not answer a poll, the loop polls again after a pause. If it does not answer a commit,
  it is unknown whether the transaction is committed. The loop replaces the producer, which settles that, as soon as the
  broker answers, and reads on from the committed offsets.
- **Shutdown.** After ``stop`` is set (SIGTERM) no further message is handed over. Messages that the handler still holds
  are not committed, and are delivered again to the next owner of the partition.
- **Rebalance.** When partitions are revoked, the handler drops what it holds of them, and their next owner reads it
  again; that may be the same process. A transaction that meets a rebalance is aborted, and the loop rewinds to the
  committed offsets.
"""

import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain

import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import FencedInstanceIdError, KafkaError
from kafka.structs import MemberState

from driftloop.errors import BrokerUnavailable
from driftloop.events import Event
from driftloop.kafka.client import broker_unavailable, translate_errors
from driftloop.kafka.codec import InvalidMessage, Message, decode_record
from driftloop.kafka.consumed_message import ConsumedMessage
from driftloop.kafka.dead_letter_limits import DeadLetterLimits
from driftloop.kafka.dead_letters import to_dead_letter
from driftloop.kafka.instance_conflict import wait_while_replaced
from driftloop.kafka.lag_metrics import LagMetrics
from driftloop.kafka.message_handler import Commit, MessageHandler, RetryLater
from driftloop.kafka.metrics import CONSUMED, DEAD_LETTERS
from driftloop.kafka.read_positions import FindHandled, ReadPositions, nothing_handled
from driftloop.kafka.retries import Retries
from driftloop.kafka.topics import dead_letter_topic
from driftloop.kafka.transactional_producer import (
    CommittedPosition,
    InstanceReplaced,
    OutgoingMessage,
    Rebalanced,
    TransactionalProducer,
)
from driftloop.settings import DeadLetterSettings
from driftloop.telemetry.health import Health

log = structlog.get_logger(__name__)

MAX_HANDLER_PAUSE_SECONDS = 5  # what is back is noticed soon; an attempt is a request or two
BROKER_PAUSE_SECONDS = 1  # connecting waits for the broker by itself
POLL_TIMEOUT_MS = 200  # upper bound on how late `on_poll` runs, for example after a background job has ended


class ConsumerLoop:
    """Poll, hand over, commit; the module's docstring is the contract."""

    def __init__(
        self,
        consumer: KafkaConsumer,
        topics: Collection[str],
        handler: MessageHandler,
        producer: TransactionalProducer,
        limits: DeadLetterSettings,
        health: Health,
        find_handled: FindHandled = nothing_handled,
    ) -> None:
        """Subscribe the consumer to the topics.

        Args:
            consumer: A consumer of :func:`driftloop.kafka.client.create_consumer`.
            topics: The topics to consume.
            handler: Receives the messages.
            producer: Its transactions carry offsets, events and dead letters.
            limits: How many invalid messages are tolerated.
            health: Receives a heartbeat for each poll and each message.
            find_handled: Finds out where to go on in a partition of which nothing is committed. It may raise
                :class:`RetryLater`.
        """
        self._consumer = consumer
        self._topics = list(topics)
        self._handler = handler
        self._producer = producer
        self._max_letter_bytes = limits.max_bytes
        self._health = health
        # The latest run of invalid messages. It is not moved before the run has ended within the limits.
        self._pending_invalid: list[tuple[ConsumerRecord, InvalidMessage]] = []
        # Dead letters that wait until the handler commits their offset.
        self._pending_dead_letters: list[tuple[ConsumerRecord, Message]] = []
        # Created now, because Prometheus computes no increase from a counter's first sample.
        self._consumed_counters = {topic: CONSUMED.labels(topic) for topic in topics}
        self._dead_letter_counters = {topic: DEAD_LETTERS.labels(topic) for topic in topics}
        self._read_positions = ReadPositions(consumer, topics, find_handled)
        self._lag = LagMetrics(consumer)
        self._member_id = ""  # the latest one; a replaced member has none
        self._next_offsets: dict[TopicPartition, int] = {}  # after the message that was handed over last
        self._must_rewind = False  # partitions were assigned since the last poll, or could not be rewound
        self._handler_retries = Retries("handler", health, MAX_HANDLER_PAUSE_SECONDS)
        self._broker_retries = Retries("broker", health, BROKER_PAUSE_SECONDS)
        self._poll_retries = Retries("broker", health, BROKER_PAUSE_SECONDS)
        self._dead_letter_limits = DeadLetterLimits(limits)
        self._last_stable_at = time.monotonic()
        self._subscribe()

    def run(self, stop: threading.Event) -> None:
        """Consume until ``stop`` is set.

        Raises:
            DeadLetterLimitExceeded: Too many messages are invalid.
            RetryLater: The handler has raised it for longer than :data:`driftloop.kafka.retries.DEADLINE_SECONDS`.
            BrokerUnavailable: Polls or transactions have failed for as long because the broker does not answer.
            InstanceReplaced: Another process with this one's name had replaced it, and has ended by now.
        """
        try:
            self._run(stop)
        except (InstanceReplaced, FencedInstanceIdError) as error:
            self._consumer.close(autocommit=False)  # it would go on trying to join
            config = self._consumer.config
            wait_while_replaced(
                self._producer.kafka,
                config["group_id"],
                config["group_instance_id"],
                self._member_id,
                stop,
                self._health,
            )
            if not stop.is_set():
                raise InstanceReplaced(
                    "another process had taken this one's place in the group, as one with the same "
                    f"DRIFTLOOP_INSTANCE_ID does: start it again ({error})"
                ) from error

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            if (polled := self._poll(stop)) is None:
                continue
            self._member_id = self._consumer.group_metadata().member_id or self._member_id
            self._health.heartbeat()
            try:
                with translate_errors(self._producer.kafka):
                    if self._must_rewind:  # partitions that stayed were revoked, too: what was held of them is dropped
                        self._rewind_to_committed()
                    else:
                        self._read_positions.note_gaps(polled, self._next_offsets)
                        with self._lag.handling(polled):
                            self._process_batch(polled, stop)
                        self._handler_retries.end_old_series()  # what had failed may have nothing to commit
            except Rebalanced as error:
                log.warning("consumer.commit_refused", error=str(error))
                self._rewind_now_or_after_poll()
            except RetryLater as error:
                self._handler_retries.pause(error, stop)
                self._rewind_now_or_after_poll()
            except BrokerUnavailable as error:
                self._reconnect(error, stop)
            self._lag.update()
            self._rejoin_if_stalled()

    def _poll(self, stop: threading.Event) -> dict[TopicPartition, list[ConsumerRecord]] | None:
        """Return the records of a poll; ``None`` after a pause if the broker does not answer.

        kafka-python looks for the broker by itself, but raises what it meets on the way.
        """
        try:
            polled: dict[TopicPartition, list[ConsumerRecord]] = self._consumer.poll(timeout_ms=POLL_TIMEOUT_MS)
        except FencedInstanceIdError:
            raise
        except KafkaError as error:
            self._poll_retries.pause(broker_unavailable(self._producer.kafka, error), stop)
            return None
        self._poll_retries.end_series()
        return polled

    def close(self) -> None:
        """Leave the group and disconnect."""
        try:
            self._consumer.close(autocommit=False)
        finally:
            self._producer.close()

    def _subscribe(self) -> None:
        self._consumer.subscribe(topics=self._topics, listener=_RebalanceListener(self))
        # Fetch metadata first: kafka-python joins the group again when partitions become known after the join.
        for topic in self._topics:
            self._consumer.partitions_for_topic(topic)

    def _rejoin_if_stalled(self) -> None:
        """Work around kafka-python: a poll that returns in mid-rebalance can leave it in REBALANCING for ever.

        No join takes longer than ``max_poll_interval_ms``, after which the broker removes a member that has not joined.
        """
        now = time.monotonic()
        if self._consumer.group_metadata().state != MemberState.REBALANCING:
            self._last_stable_at = now
        elif now - self._last_stable_at > self._consumer.config["max_poll_interval_ms"] / 1000:
            log.warning("consumer.rejoined", rebalancing_seconds=now - self._last_stable_at)
            self._last_stable_at = now
            self._consumer.unsubscribe()
            self._subscribe()

    def _process_batch(self, polled: Mapping[TopicPartition, Sequence[ConsumerRecord]], stop: threading.Event) -> None:
        """Hand over the records of a poll, then commit what the handler has returned, even if it raises."""
        commits: list[Commit] = []
        try:
            for record in chain.from_iterable(polled.values()):
                if stop.is_set():
                    return
                self._process(record, commits)
            if not polled:  # the end of the topic ends a run of invalid messages
                self._dead_letter_pending(commits)
            commits += self._handler.on_poll()
        finally:
            self._commit(commits)

    def _process(self, record: ConsumerRecord, commits: list[Commit]) -> None:
        """Hand over a record, and append what the handler returns, also if it raises later on."""
        self._health.heartbeat()
        try:
            event = decode_record(record)
        except InvalidMessage as error:
            self._pending_invalid.append((record, error))
            self._dead_letter_limits.count_invalid(record, error)
            return
        self._dead_letter_pending(commits)
        self._dead_letter_limits.count_valid(record)
        self._consumed_counters[record.topic].inc()
        commits += self._dispatch(record, event)

    def _dispatch(self, record: ConsumerRecord, event: Event | None) -> Iterable[Commit]:
        partition = TopicPartition(record.topic, record.partition)
        previous_end = self._next_offsets.get(partition, record.offset)
        self._next_offsets[partition] = record.offset + 1
        published_at = max(record.timestamp, 0) / 1000  # -1 if the record has none
        return self._handler.handle(
            ConsumedMessage(record.topic, record.partition, record.offset, event, previous_end, published_at)
        )

    def _dead_letter_pending(self, commits: list[Commit]) -> None:
        """Turn the run of invalid messages into dead letters, and append what the handler returns for their offsets."""
        run, self._pending_invalid = self._pending_invalid, []
        for record, error in run:
            log.warning(
                "consumer.message_dead_lettered",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                event_id=next(
                    (value.decode(errors="replace") for name, value in record.headers if name == "ce_id" and value),
                    None,
                ),
                error=str(error),
            )
            self._pending_dead_letters.append((record, to_dead_letter(record, error, self._max_letter_bytes)))
            commits += self._dispatch(record, None)

    def _commit(self, commits: Sequence[Commit]) -> None:
        if not commits:
            return
        latest = {TopicPartition(commit.topic, commit.partition): commit for commit in commits}
        committed_letters = [
            (record, letter)
            for record, letter in self._pending_dead_letters
            if (commit := latest.get(TopicPartition(record.topic, record.partition))) and record.offset < commit.offset
        ]
        self._producer.commit(
            self._consumer.group_metadata(),
            {partition: CommittedPosition(commit.offset, commit.metadata) for partition, commit in latest.items()},
            [event for commit in commits for event in commit.events],
            [OutgoingMessage(dead_letter_topic(record.topic), letter) for record, letter in committed_letters],
        )
        self._pending_dead_letters = [item for item in self._pending_dead_letters if item not in committed_letters]
        for record, _ in committed_letters:
            self._dead_letter_counters[record.topic].inc()
        for partition, commit in latest.items():
            self._lag.on_committed(partition, commit.offset)
        self._handler_retries.end_series()
        self._broker_retries.end_series()

    def _reconnect(self, error: BrokerUnavailable, stop: threading.Event) -> None:
        """Replace the producer once the broker answers, and rewind."""
        while True:
            self._broker_retries.pause(error, stop)
            if stop.is_set():
                return
            try:
                self._producer.reconnect()
                break
            except BrokerUnavailable as still_unavailable:
                error = still_unavailable
        self._health.mark_available("broker")
        log.info("consumer.producer_replaced")
        self._rewind_now_or_after_poll()

    def _rewind_to_committed(self) -> None:
        """Read all assigned partitions again from their committed offsets, dropping everything after them."""
        self._must_rewind = False
        assigned = self._consumer.assignment()
        self.reset_partitions(assigned)
        positions: dict[tuple[str, int], CommittedPosition] = {}
        forgotten: list[Commit] = []
        for partition, offset, committed, is_forgotten in self._read_positions.seek_to_committed(assigned):
            self._lag.on_rewound(partition, offset)
            if committed is not None:
                self._next_offsets[partition] = offset
                positions[partition.topic, partition.partition] = committed
                if is_forgotten:
                    forgotten.append(Commit(partition.topic, partition.partition, offset))
        self._handler.on_assigned(positions)
        self._commit(forgotten)

    def _rewind_now_or_after_poll(self) -> None:
        try:
            with translate_errors(self._producer.kafka):
                self._rewind_to_committed()
        except (Rebalanced, RetryLater, BrokerUnavailable) as error:  # of the position of what was never committed
            log.warning("consumer.rewind_postponed", error=str(error))
            self._must_rewind = True

    def mark_rebalanced(self) -> None:
        """Make the loop rewind after the current poll: partitions were assigned."""
        self._must_rewind = True

    def drop_partitions(self, partitions: Collection[TopicPartition]) -> None:
        """Drop state and metrics of revoked partitions."""
        self.reset_partitions(partitions)
        self._dead_letter_limits.on_revoked(partitions)
        self._lag.on_revoked(partitions)

    def reset_partitions(self, partitions: Collection[TopicPartition]) -> None:
        """Drop everything of the partitions that is not committed."""
        for partition in partitions:
            self._next_offsets.pop(partition, None)
        pairs = {(partition.topic, partition.partition) for partition in partitions}
        self._pending_invalid = [
            (record, error) for record, error in self._pending_invalid if (record.topic, record.partition) not in pairs
        ]
        self._pending_dead_letters = [
            (record, letter)
            for record, letter in self._pending_dead_letters
            if (record.topic, record.partition) not in pairs
        ]
        self._dead_letter_limits.on_rewound(len(self._pending_invalid))
        self._handler.on_revoked(pairs)


class _RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    def __init__(self, loop: ConsumerLoop) -> None:
        self._loop = loop

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self._loop.drop_partitions(revoked)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._loop.mark_rebalanced()
        log.info("consumer.partitions_assigned", partitions=sorted(f"{p.topic}-{p.partition}" for p in assigned))
