"""The consume loop, and what it promises.

- Each event is handed to the handler in order of its partition, and again after a crash: an offset is committed only
  when the handler has said that everything before it has had its effect. The events that it publishes by saying so go
  into the same transaction, one for all that a poll has brought: readers of committed transactions see each once.
  Other effects must bear being repeated.
- A message that is no event goes to ``<topic>.dlq`` with its origin and the error, in the transaction that commits its
  offset, and the handler is told that its offset holds nothing. So many of them that the reader must be wrong stop the
  loop with :class:`TooManyUnreadable`: the messages of that run are neither moved nor committed, and the next start
  meets them again.
- An exception of the handler ends the loop: what was final before is committed, nothing is for that event, and it is
  delivered again. After :class:`NotNow` it is delivered again by the same loop, a little later.
- SIGTERM, through ``stop``: the loop polls no more, the handler keeps or abandons what it holds, offsets stay true.
- Revoked partitions: the handler forgets what it holds of them; their next owner, which may be the same, reads it
  again. A transaction that meets a change of owners is given up, and everything since the last one is handled again.
"""

import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from threading import Event as Flag
from typing import NamedTuple, Protocol

import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import MemberState
from prometheus_client import Counter

from driftloop.events import Event
from driftloop.kafka.codec import Message, Unreadable, read
from driftloop.kafka.lag_metrics import Lag
from driftloop.kafka.topics import dead_letter_topic
from driftloop.kafka.transactional_producer import Addressed, Begin, Moved, Transactions
from driftloop.settings import DeadLetters, Kafka
from driftloop.telemetry.health import Health

log = structlog.get_logger(__name__)

LONGEST_PAUSE_SECONDS = 30  # half of what counts as stuck
POLL_MS = 200  # the handler sees after at most so long what has come of its own doings
PATIENCE_SECONDS = 900  # what is away for longer is for whoever sees a service end

CONSUMED = Counter("driftloop_consumed_events_total", "Events handed to the service's handler.", ["topic"])
DEAD_LETTERS = Counter("driftloop_dead_letters_total", "Messages moved to the dead-letter topic.", ["topic"])


class Received(NamedTuple):
    """An event and where it lay; without an event, a message that went to the dead letters."""

    topic: str
    partition: int
    offset: int
    event: Event | None
    follows: int
    """The offset behind the message before it: what lies between the two are marks of transactions."""


class Final(NamedTuple):
    """Everything of the partition before ``offset`` has had its effect, once ``events`` are published with it."""

    topic: str
    partition: int
    offset: int
    events: Sequence[Event] = ()
    note: str = ""
    """Kept with the offset, for whoever has the partition next."""


class Handler(Protocol):
    """What a service does with its events. Called by one thread."""

    def handle(self, received: Received) -> Iterable[Final]:
        """Takes one event; says what is final now, which need not be this event."""

    def idle(self) -> Iterable[Final]:
        """Called after each poll, several times a second while no event is being handled."""

    def assigned(self, partitions: Mapping[tuple[str, int], Begin]) -> None:
        """The (topic, partition) pairs are read on from there; one of which nothing was ever final is not among them.

        Called before the first event of each, and again where they are read once more from there.
        """

    def revoked(self, partitions: Collection[tuple[str, int]]) -> None:
        """The (topic, partition) pairs belong to somebody else from now on."""


class NotNow(Exception):
    """What the handler needs is away: its events are to come again a little later, from the last final one on."""


class TooManyUnreadable(Exception):
    """The limit of dead letters is reached: the service must stop, and nobody may catch this."""


def consumer(kafka: Kafka, group: str, instance: str, longest_handling_seconds: float = 300) -> KafkaConsumer:
    """A consumer for :class:`Loop`: commits by hand, sees committed transactions only.

    ``instance`` makes the membership static: after a quick restart the same partitions come back without a
    rebalance, and a killed process' partitions move on after the session timeout.
    """
    return KafkaConsumer(
        **kafka.connection,
        client_id=f"driftloop-{group}",
        group_id=group,
        group_instance_id=f"{group}-{instance}",
        session_timeout_ms=int(kafka.session_timeout_seconds * 1000),
        heartbeat_interval_ms=int(kafka.session_timeout_seconds * 1000 / 3),
        max_poll_interval_ms=int(longest_handling_seconds * 1000),
        enable_auto_commit=False,
        # What is handled between two polls, of which the broker allows only so much time. A poll's round through the
        # client and the transaction behind it cost as much as hundreds of events.
        max_poll_records=2_000,
        # While a topic is quiet, the broker holds the one request that may be under way for this long, and a full one
        # waits behind it: so seldom, with more at a time, and not for the half second that is usual.
        fetch_max_wait_ms=100,
        max_partition_fetch_bytes=8 * 2**20,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        allow_auto_create_topics=False,
    )


class Loop:
    """Poll, handle, commit what is final; see the module's promises."""

    def __init__(
        self,
        consumer: KafkaConsumer,
        topics: Collection[str],
        handler: Handler,
        transactions: Transactions,
        limits: DeadLetters,
        health: Health,
    ) -> None:
        """``transactions`` carry offsets, events and dead letters; ``health`` gets a beat each event and each round."""
        self._consumer = consumer
        self._topics = list(topics)
        self._handler = handler
        self._transactions = transactions
        self._limits = limits
        self._health = health
        self._unread: list[tuple[ConsumerRecord, Unreadable]] = []  # the run that is not moved yet
        self._letters: list[tuple[ConsumerRecord, Message]] = []  # those that wait for their offset to be final
        self._consumed = {topic: CONSUMED.labels(topic) for topic in topics}
        # From the start: Prometheus takes no notice of a counter's first value.
        self._moved_away = {topic: DEAD_LETTERS.labels(topic) for topic in topics}
        self._lag = Lag(consumer)
        self._next: dict[TopicPartition, int] = {}  # behind what was handed to the handler last
        self._moved = False  # partitions have come since the last poll
        self._away_since: float | None = None
        self._in_a_row = 0
        self._last: deque[bool] = deque(maxlen=limits.among)
        self._joined_at = time.monotonic()
        self._subscribe()

    def run(self, stop: Flag) -> None:
        """Until ``stop`` is set. Raises what the handler raises, and :class:`TooManyUnreadable`."""
        while not stop.is_set():
            polled = self._consumer.poll(timeout_ms=POLL_MS)
            self._health.beat()
            try:
                if self._moved:  # what stays with its owner is read on where it was, and was forgotten
                    self._begin_anew()
                else:
                    self._lag.polled(polled)
                    self._handle(polled, stop)
                    self._lag.handled(polled)
            except Moved as error:
                log.warning("not committed, the partitions move: handled again", error=str(error))
                self._begin_anew()
            except NotNow as error:
                self._pause(error, stop)
                self._begin_anew()
            self._lag.measure()
            self._join_anew_if_forgotten()

    def close(self) -> None:
        """Leaves the topics and the broker."""
        try:
            self._consumer.close(autocommit=False)
        finally:
            self._transactions.close()

    def _subscribe(self) -> None:
        self._consumer.subscribe(topics=self._topics, listener=_Listener(self))
        for topic in self._topics:  # whoever joins without knowing a topic's partitions has to join again
            self._consumer.partitions_for_topic(topic)

    def _join_anew_if_forgotten(self) -> None:
        """The client forgets to end a join that new partitions have begun, where a poll is over in the midst of it.

        It then waits for ever, without partitions; the broker lets nobody wait for longer than between two polls.
        """
        now = time.monotonic()
        if self._consumer.group_metadata().state != MemberState.REBALANCING:
            self._joined_at = now
        elif now - self._joined_at > self._consumer.config["max_poll_interval_ms"] / 1000:
            log.warning("joining the group anew: no join has ended", seconds=now - self._joined_at)
            self._joined_at = now
            self._consumer.unsubscribe()
            self._subscribe()

    def _handle(self, polled: Mapping[TopicPartition, Sequence[ConsumerRecord]], stop: Flag) -> None:
        """Hands over what a poll has brought, and commits what is final, whatever ends it."""
        final: list[Final] = []
        try:
            for record in chain.from_iterable(polled.values()):
                if stop.is_set():
                    return
                final += self._take(record)
            if not polled:  # the run of unreadable messages ends here, for now
                final += self._move_unread()
            final += self._handler.idle()
        finally:
            self._commit(final)

    def _take(self, record: ConsumerRecord) -> list[Final]:
        self._health.beat()
        try:
            event = read(record.value, record.headers, record.timestamp)
        except Unreadable as error:
            self._unread.append((record, error))
            self._in_a_row += 1
            self._last.append(True)
            self._refuse_too_many(record, error)
            return []
        final = self._move_unread()
        self._in_a_row = 0
        self._last.append(False)
        self._consumed[record.topic].inc()
        final += self._hand(record, event)
        return final

    def _hand(self, record: ConsumerRecord, event: Event | None) -> Iterable[Final]:
        at = TopicPartition(record.topic, record.partition)
        follows = self._next.get(at, record.offset)
        self._next[at] = record.offset + 1
        return self._handler.handle(Received(record.topic, record.partition, record.offset, event, follows))

    def _refuse_too_many(self, record: ConsumerRecord, error: Unreadable) -> None:
        limits = self._limits
        share = sum(self._last) / limits.among
        if self._in_a_row <= limits.consecutive and share <= limits.share:
            return
        raise TooManyUnreadable(
            f"{self._in_a_row} messages in a row and {sum(self._last)} of the last {limits.among} cannot be read, the "
            f"latest at {record.topic}[{record.partition}]@{record.offset}: {error}. Stopped instead of moving a topic "
            f"to the dead letters: mend the reader or the writer, or raise DRIFTLOOP_DEAD_LETTERS__CONSECUTIVE "
            f"({limits.consecutive}) or DRIFTLOOP_DEAD_LETTERS__SHARE ({limits.share:g})."
        ) from error

    def _move_unread(self) -> list[Final]:
        final: list[Final] = []
        moved, self._unread = self._unread, []
        for record, error in moved:
            self._moved_away[record.topic].inc()
            log.warning(
                "unreadable message moved",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                event_id=next(
                    (value.decode(errors="replace") for name, value in record.headers if name == "ce_id"), None
                ),
                error=str(error),
            )
            self._letters.append((record, _dead_letter(record, error)))
            final += self._hand(record, None)
        return final

    def _commit(self, finals: Sequence[Final]) -> None:
        if not finals:
            return
        latest = {TopicPartition(final.topic, final.partition): final for final in finals}
        final_now = [
            (record, letter)
            for record, letter in self._letters
            if (final := latest.get(TopicPartition(record.topic, record.partition))) and record.offset < final.offset
        ]
        self._transactions.commit(
            self._consumer.group_metadata(),
            {partition: Begin(final.offset, final.note) for partition, final in latest.items()},
            [event for final in finals for event in final.events],
            [Addressed(dead_letter_topic(record.topic), letter) for record, letter in final_now],
        )
        self._letters = [one for one in self._letters if one not in final_now]
        self._away_since = None
        self._health.has("handler")

    def _pause(self, error: NotNow, stop: Flag) -> None:
        """The longer, the longer it has lasted already; raises the error when that is too long."""
        now = time.monotonic()
        self._away_since = self._away_since or now
        lasted = now - self._away_since
        if lasted > PATIENCE_SECONDS:
            raise error
        seconds = min(max(lasted, 1), LONGEST_PAUSE_SECONDS)
        log.warning("handled again a little later", seconds=seconds, lasted=lasted, error=str(error))
        self._health.lacks("handler", str(error))
        stop.wait(seconds)
        self._health.beat()

    def _begin_anew(self) -> None:
        """From the committed offsets: what was polled and not committed comes again to whoever has the partitions."""
        self._moved = False
        assigned = self._consumer.assignment()
        self.forget(assigned)
        begins: dict[tuple[str, int], Begin] = {}
        for partition in assigned:
            committed = self._consumer.committed(partition, metadata=True)
            if committed is None:
                self._consumer.seek_to_beginning(partition)
            else:
                self._next[partition] = committed.offset
                self._consumer.seek(partition, committed.offset)
                begins[partition.topic, partition.partition] = Begin(committed.offset, committed.metadata)
        self._handler.assigned(begins)

    def move(self) -> None:
        """Partitions have come, or stayed after all were revoked."""
        self._moved = True

    def lose(self, partitions: Collection[TopicPartition]) -> None:
        """The partitions are gone: so is all that is known of them."""
        self.forget(partitions)
        self._lag.lost(partitions)

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Drops what is held of the partitions and is not final."""
        for partition in partitions:
            self._next.pop(partition, None)
        gone = {(partition.topic, partition.partition) for partition in partitions}
        self._unread = [(r, e) for r, e in self._unread if (r.topic, r.partition) not in gone]
        self._letters = [(r, m) for r, m in self._letters if (r.topic, r.partition) not in gone]
        self._in_a_row = len(self._unread)  # the others come again, and count then
        self._handler.revoked(gone)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self._loop.lose(revoked)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._loop.move()
        log.info("partitions assigned", partitions=sorted(f"{p.topic}-{p.partition}" for p in assigned))


def _dead_letter(record: ConsumerRecord, error: Unreadable) -> Message:
    """The message as it was, with where it lay and why it could not be read in headers of their own."""
    origin = {
        "dlq_topic": record.topic,
        "dlq_partition": record.partition,
        "dlq_offset": record.offset,
        "dlq_error": error,
    }
    headers = [*record.headers, *((name, str(value).encode()) for name, value in origin.items())]
    return Message(record.key, record.value, headers)
