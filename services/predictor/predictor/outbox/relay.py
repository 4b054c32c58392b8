"""The relay: a process that publishes the events of an outbox to Kafka, each exactly once.

The position in the outbox is committed in the same Kafka transaction as the events
(:mod:`driftloop.kafka.positioned_producer`), under the outbox's name.

The relay exits with the process that started it, once it has drained the outbox.
"""

import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import structlog

from driftloop.command_line import exit_on_invalid_settings, load_settings_or_exit
from driftloop.errors import BrokerUnavailable
from driftloop.events import EVENTS
from driftloop.kafka.codec import SerializedEvent, to_message
from driftloop.kafka.positioned_producer import PositionedProducer
from driftloop.kafka.transactional_producer import OutgoingMessage
from driftloop.process import exit_with_parent
from driftloop.telemetry import tracing
from driftloop.telemetry.health import Health, start_watchdog
from driftloop.telemetry.logging import configure_logging
from predictor import metrics
from predictor.outbox.outbox import Outbox, OutboxUnavailable
from predictor.settings import RelaySettings

log = structlog.get_logger(__name__)

MAX_BATCH_EVENTS = 2_000  # per transaction: even with a retry it stays far below the broker's limit of a minute
POLL_INTERVAL_SECONDS = 0.2  # a transaction costs the broker 10 ms, whether it has one event or many
RETRY_SECONDS = 1.0
# Much longer than a transaction takes. If the broker restarts during one, kafka-python may wait for its end for ever;
# the next relay aborts and repeats it.
WATCHDOG_SECONDS = 30
DRAIN_SECONDS = 5.0  # for publishing after the predictor has ended; the rest is published after the next start


class Relay:
    """Publishes events from an outbox to their topics."""

    def __init__(self, settings: RelaySettings, outbox: Outbox) -> None:
        """Connect, and fence every earlier relay of the same outbox: it can commit nothing anymore.

        Raises:
            BrokerUnavailable: No broker answers.
        """
        self._settings = settings
        self._outbox = outbox
        self._producer = PositionedProducer(settings.kafka, outbox.name, "driftloop-relay", settings.topics.predictions)
        self._position = self._producer.position or 0
        try:
            outbox.delete_through(self._position)
        except BaseException:
            self.close()
            raise

    def relay_batch(self) -> int:
        """Publish the next events in one transaction and return how many.

        Raises:
            BrokerUnavailable: The broker does not answer; the transaction is aborted, or will be by the next relay.
        """
        entries = self._outbox.read_after(self._position, MAX_BATCH_EVENTS)
        if entries:
            position = entries[-1][0]
            with ExitStack() as spans:
                self._producer.commit((self._message(event, spans) for _, event in entries), position)
            self._position = position
            metrics.OUTBOX_RELAYED.inc(len(entries))
            # Immediately, because the broker forgets the position of a group that is idle for days; and all at once,
            # because a writer that waits for the lock sleeps longer after each attempt.
            self._outbox.delete_through(self._position)
        return len(entries)

    def _message(self, event: SerializedEvent, spans: ExitStack) -> OutgoingMessage:
        """Return the message of an event; the span of a traced one is open until ``spans`` is closed."""
        topic = self._settings.topics.name_of(EVENTS[event.type].topic)
        producer_traceparent = spans.enter_context(_publish_span(event, topic)) if event.traceparent else None
        return OutgoingMessage(topic, to_message(event, "predictor", producer_traceparent))

    def close(self) -> None:
        """Disconnect without waiting for the broker."""
        self._producer.close()


def _publish_span(event: SerializedEvent, topic: str) -> AbstractContextManager[str | None]:
    """Open a span that lasts from the event's send to its transaction's commit."""
    return tracing.span(f"publish {topic}", "producer", parents=[event.traceparent], event_id=event.id)


def run_relay(settings: RelaySettings, stop: threading.Event, health: Health) -> None:
    """Publish until ``stop`` is set and the outbox is empty; reconnect for as long as the broker is unavailable."""
    outbox = Outbox(settings.predictor.data_dir, settings.outbox, durable=False)
    while not stop.is_set():
        health.heartbeat()
        try:
            relay = Relay(settings, outbox)
        except BrokerUnavailable as error:
            log.warning("relay.broker_unavailable", error=str(error), pending=outbox.depth().events)
            metrics.RELAY_RESTARTS.inc()
            stop.wait(RETRY_SECONDS)
            continue
        try:
            log.info("relay.connected", outbox=outbox.name, pending=outbox.depth().events)
            while relay.relay_batch() or not stop.is_set():
                health.heartbeat()
                stop.wait(POLL_INTERVAL_SECONDS)
        except (BrokerUnavailable, OutboxUnavailable) as error:
            log.warning("relay.failed", error=f"{type(error).__name__}: {error}")
            metrics.RELAY_RESTARTS.inc()
            stop.wait(RETRY_SECONDS)
        finally:
            relay.close()


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Make sure that only one relay uses ``folder``: wait until another one has ended."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "relay.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Relay the outbox of the predictor's data folder until the predictor exits, or until SIGTERM without one."""
    settings = load_settings_or_exit(RelaySettings)
    configure_logging("relay", settings.log)
    stop = threading.Event()
    health = Health(WATCHDOG_SECONDS)

    def drain() -> None:
        stop.set()
        time.sleep(DRAIN_SECONDS)
        os._exit(0)  # the next relay aborts and repeats the open transaction

    if exit_with_parent(drain):
        # Signals are meant for the predictor: this process drains the outbox after it.
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signal_number, signal.SIG_IGN)
    with (
        exit_on_invalid_settings(),
        tracing.tracing_session("relay", settings.tracing),
        exclusive_lock(settings.predictor.data_dir),
    ):
        health.heartbeat()  # waiting for another relay's end is no stall of this one
        start_watchdog(health)
        run_relay(settings, stop, health)


if __name__ == "__main__":
    main()
