"""The relay: a process that publishes the events of an outbox to Kafka, each exactly once.

The position in the outbox is committed in the same Kafka transaction as the events
(:mod:`driftloop.kafka.positioned_producer`), under the outbox's name and with the id of the event at the position.

A position that the broker has counts only if this file has seen it committed, or has its event: a relay may be killed
between the commit and the deletion. Any other position is that of another copy of the file, and what is published under
it says nothing about the events of this one. Then the outbox takes a new name, and publishes all that it holds.

The relay exits with the process that started it, once it has drained the outbox.
"""

import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
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
from predictor.outbox.outbox import Outbox, OutboxUnavailable, RelayState
from predictor.settings import RelaySettings

log = structlog.get_logger(__name__)

MAX_BATCH_EVENTS = 2_000  # per transaction: even with a retry it stays far below the broker's limit of a minute
POLL_INTERVAL_SECONDS = 0.2  # a transaction costs the broker 10 ms, whether it has one event or many
RETRY_SECONDS = 1.0
# Much longer than a transaction takes. If the broker restarts during one, kafka-python may wait for its end for ever;
# the next relay aborts and repeats it.
WATCHDOG_SECONDS = 30
CLOCK_CHANGE_SECONDS = 5.0  # smaller changes of the clock's skew are not stored
DRAIN_SECONDS = 5.0  # for publishing after the predictor has ended; the rest is published after the next start


class Relay:
    """Publishes events from an outbox to their topics."""

    def __init__(self, settings: RelaySettings, outbox: Outbox) -> None:
        """Connect, and fence every earlier relay of the same outbox: it can commit nothing anymore.

        Raises:
            BrokerUnavailable: No broker answers.
            OutboxUnavailable: The outbox cannot be read, or it needs a new name and cannot be written.
        """
        self._settings = settings
        self._outbox = outbox
        self._state = outbox.relay_state()
        self._delete_error: str | None = None  # of the latest deletion, so that it is not logged at each poll
        self._producer = self._connect()
        try:
            self._deleted_position = outbox.committed_position()
            if not self._is_own_position():
                self._take_new_name()
            self._position = max(self._producer.position or 0, self._deleted_position)
            self._delete_published()
            if not outbox.depth().events:
                self._tell_success()
        except BaseException:
            self.close()
            raise

    def relay_batch(self) -> int:
        """Publish the next events in one transaction and return how many.

        Raises:
            BrokerUnavailable: The broker does not answer; the transaction is aborted, or will be by the next relay.
            OutboxUnavailable: The outbox cannot be read.
        """
        entries = self._outbox.read_after(self._position, MAX_BATCH_EVENTS)
        if entries:
            position, last = entries[-1]
            began = time.time()
            with ExitStack() as spans:
                messages = (self._message(event, spans) for _, event in entries)
                broker_time = self._producer.commit(messages, position, last.id)
            self._position = position
            metrics.OUTBOX_RELAYED.inc(len(entries))
            self._tell_success(_clock_skew(broker_time, began, time.time()))
        # Immediately, because the broker forgets the position of a group that is idle for days.
        self._delete_published()
        return len(entries)

    def _connect(self) -> PositionedProducer:
        topic = self._settings.topics.predictions
        return PositionedProducer(self._settings.kafka, self._outbox.name, "driftloop-relay", topic)

    def _is_own_position(self) -> bool:
        """Return whether the position that the broker has is one of this file's."""
        position = self._producer.position
        if position is None or position <= self._deleted_position:
            return True
        return self._outbox.has_event(position, self._producer.metadata)

    def _take_new_name(self) -> None:
        """Give the outbox a name of its own, and connect under it."""
        old_name, position = self._outbox.name, self._producer.position
        self._producer.close()
        self._outbox.rename()
        metrics.OUTBOX_RENAMED.inc()
        log.error(
            "relay.outbox_renamed",
            reason="the broker has a position of the old name that is not of this file: the folder was restored from a "
            "copy, or another predictor uses a copy of it; all events in the outbox are published now, and those that "
            "the other copy has published are published again with the same ids",
            old_name=old_name,
            new_name=self._outbox.name,
            broker_position=position,
            own_position=self._deleted_position,
            pending=self._outbox.depth().events,
        )
        self._producer = self._connect()

    def _delete_published(self) -> None:
        """Delete what is published. While that fails, publishing goes on, and the next call tries again."""
        if self._deleted_position >= self._position:
            return
        try:
            self._outbox.delete_through(self._position)
            self._deleted_position = self._position
            self._delete_error = None
            self._outbox.shrink()
        except OutboxUnavailable as error:
            metrics.TRIM_FAILURES.inc()
            if str(error) != self._delete_error:
                log.warning("relay.not_deleted", error=str(error), through_position=self._position)
            self._delete_error = str(error)

    def _tell_success(self, clock_skew_seconds: float | None = None) -> None:
        """Store for readiness that events can be published, and the clock's skew, if either has changed."""
        skew = self._state.clock_skew_seconds
        if clock_skew_seconds is not None:
            metrics.CLOCK_SKEW.set(clock_skew_seconds)
            if skew is None or abs(skew - clock_skew_seconds) > CLOCK_CHANGE_SECONDS:
                skew = clock_skew_seconds
        state = RelayState(skew)
        if state != self._state:
            try:
                self._outbox.save_relay_state(state)
            except OutboxUnavailable as failure:
                log.warning("relay.state_not_stored", error=str(failure), state=state._asdict())
            else:
                self._state = state

    def _message(self, event: SerializedEvent, spans: ExitStack) -> OutgoingMessage:
        """Return the message of an event; the span of a traced one is open until ``spans`` is closed."""
        topic = self._settings.topics.name_of(EVENTS[event.type].topic)
        producer_traceparent = spans.enter_context(_publish_span(event, topic)) if event.traceparent else None
        return OutgoingMessage(topic, to_message(event, "predictor", producer_traceparent))

    def close(self) -> None:
        """Disconnect without waiting for the broker."""
        self._producer.close()


def _clock_skew(broker_time: float | None, began: float, ended: float) -> float | None:
    """Return this machine's time minus the broker's, as far as it is not explained by when it was asked.

    Args:
        broker_time: When the broker has written a message, by its clock, rounded to milliseconds.
        began: The time of this machine before the message was sent.
        ended: The time of this machine when the message was known to be written.
    """
    if broker_time is None:
        return None
    return min(ended - broker_time, 0) + max(began - broker_time - 0.001, 0)


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
        except (BrokerUnavailable, OutboxUnavailable) as error:
            log.warning("relay.not_started", error=str(error))
            _report_error(outbox, error)
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
            _report_error(outbox, error)
            metrics.RELAY_RESTARTS.inc()
            stop.wait(RETRY_SECONDS)
        finally:
            relay.close()


def _report_error(outbox: Outbox, error: Exception) -> None:
    """Tell the processes that answer requests why events cannot be published, if that can be stored."""
    with suppress(OutboxUnavailable):
        state = outbox.relay_state()
        if state.error != str(error):
            outbox.save_relay_state(state._replace(error=str(error)))


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
