"""The relay: takes what is in the outbox to Kafka, each event once, in a process of its own.

The position in the outbox is committed in the same Kafka transaction as the events, as the offset of a consumer group
that has the outbox's name. So whatever is killed between two steps: the next relay reads the position and goes on
behind the last event that is on its topic.

It ends with the process that started it: when its standard input does.
"""

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import structlog
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

from driftloop.events import EVENTS
from driftloop.kafka.codec import Written, message
from driftloop.settings import load
from driftloop.telemetry import tracing
from driftloop.telemetry.health import Health, configure_logging, end_when_stuck
from predictor import metrics
from predictor.outbox.outbox import NotKept, Outbox
from predictor.settings import RelaySettings

log = structlog.get_logger(__name__)

MOST_AT_ONCE = 2_000  # events a transaction: what outlasts a retry within the broker's limit of a minute by far
PAUSE_SECONDS = 0.2  # between two transactions: one costs the broker 10 ms, whether for one event or for many
RETRY_SECONDS = 1.0
# Far more than a transaction takes. kafka-python waits without a limit for the end of one that a broker's restart has
# caught, and may wait for ever; another relay aborts it and repeats it.
STUCK_SECONDS = 30
RECONNECT_MS = 1_000  # between tries while the broker is away; kafka-python would let it wait for half a minute
DRAIN_SECONDS = 5.0  # to go on after the predictor's end; what is left then is relayed after the next start


class Relay:
    """Moves events from an outbox to their topics."""

    def __init__(self, settings: RelaySettings, outbox: Outbox) -> None:
        """Connects; an earlier relay of the same outbox can commit nothing from here on. Raises :class:`KafkaError`."""
        self._settings = settings
        self._outbox = outbox
        timeout_ms = int(settings.kafka.timeout_seconds * 1000)
        # No member of its group: the group is only where the position is stored.
        self._consumer = KafkaConsumer(
            **settings.kafka.connection,
            group_id=outbox.name,
            enable_auto_commit=False,
            isolation_level="read_committed",
            reconnect_backoff_max_ms=RECONNECT_MS,
            allow_auto_create_topics=False,
        )
        try:
            self._producer = KafkaProducer(
                **settings.kafka.connection,
                client_id="driftloop-relay",
                transactional_id=outbox.name,
                acks="all",
                linger_ms=5,
                batch_size=500_000,
                request_timeout_ms=timeout_ms,
                max_block_ms=timeout_ms * 3,
                reconnect_backoff_max_ms=RECONNECT_MS,
                allow_auto_create_topics=False,
            )
        except BaseException:
            self._consumer.close()
            raise
        self._at = TopicPartition(settings.topics.predictions, 0)  # an offset needs a partition to belong to
        try:
            # In this order: it ends what a killed relay has begun, so that the position is the last one.
            self._producer.init_transactions()
            self._position = self._consumer.committed(self._at, timeout_ms=timeout_ms) or 0
            outbox.trim(self._position)
        except BaseException:
            self.close()
            raise

    def step(self) -> int:
        """Moves the next events in one transaction; returns how many. Raises :class:`KafkaError`."""
        entries = self._outbox.after(self._position, MOST_AT_ONCE)
        if entries:
            self._publish([event for _, event in entries], entries[-1][0])
            self._position = entries[-1][0]
            metrics.RELAYED.inc(len(entries))
            # At once, since the broker forgets the position of a group that is silent for days; and in one go, since a
            # writer that waits for the lock sleeps for longer each time that it finds it taken.
            self._outbox.trim(self._position)
        return len(entries)

    def _publish(self, events: list[Written], position: int) -> None:
        self._producer.begin_transaction()
        try:
            with ExitStack() as sending:
                for event in events:
                    topic = getattr(self._settings.topics, EVENTS[event.type].topic)
                    hop = sending.enter_context(_traced(event, topic)) if event.traceparent else None
                    key, value, headers = message(event, "predictor", hop)
                    self._producer.send(topic, key=key, value=value, headers=headers)
                self._producer.send_offsets_to_transaction(
                    {self._at: OffsetAndMetadata(position, "", -1)}, self._consumer.group_metadata()
                )
                self._producer.commit_transaction()
        except KafkaError:
            with suppress(KafkaError):
                self._producer.abort_transaction()
            raise

    def close(self) -> None:
        """Lets go of the broker without waiting for it."""
        self._producer.close(timeout=1)
        self._consumer.close(autocommit=False)


def _traced(event: Written, topic: str) -> AbstractContextManager[str | None]:
    """From the event's send to its transaction's commit."""
    return tracing.span(f"publish {topic}", "producer", of=[event.traceparent], event_id=event.id)


def run(settings: RelaySettings, stop: threading.Event, health: Health) -> None:
    """Relays until ``stop`` is set and nothing is left. A broker that is away is waited for."""
    outbox = Outbox(settings.predictor.folder, settings.outbox, durable=False)
    while not stop.is_set():
        health.beat()
        try:
            relay = Relay(settings, outbox)
        except KafkaError as error:
            log.warning("no broker, events wait in the outbox", error=str(error), waiting=outbox.depth().events)
            metrics.RELAY_FAULTS.inc()
            stop.wait(RETRY_SECONDS)
            continue
        try:
            log.info("relaying", outbox=outbox.name, waiting=outbox.depth().events)
            while relay.step() or not stop.is_set():
                health.beat()
                stop.wait(PAUSE_SECONDS)
        except (KafkaError, NotKept) as error:
            log.warning("relaying begins anew", error=f"{type(error).__name__}: {error}")
            metrics.RELAY_FAULTS.inc()
            stop.wait(RETRY_SECONDS)
        finally:
            relay.close()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One relay a folder: waits for another one to end."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "relay.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Relays the folder's outbox until standard input ends."""
    for number in (signal.SIGTERM, signal.SIGINT):  # meant for the predictor, whose end is ours
        signal.signal(number, signal.SIG_IGN)
    settings = load(RelaySettings)
    configure_logging("relay", settings.log)
    stop = threading.Event()
    health = Health(STUCK_SECONDS)

    def end_with_the_predictor() -> None:
        sys.stdin.buffer.read()
        stop.set()
        time.sleep(DRAIN_SECONDS)
        os._exit(0)  # the transaction under way is aborted by the next relay, which repeats it

    threading.Thread(target=end_with_the_predictor, daemon=True).start()
    with tracing.running("relay", settings.tracing), alone(settings.predictor.folder):
        health.beat()  # the wait for another relay to end is none of ours
        end_when_stuck(health)
        run(settings, stop, health)


if __name__ == "__main__":
    main()
