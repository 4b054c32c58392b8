"""The relay publishes each event of an outbox in a transaction with its position, in order and once."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from kafka import OffsetAndMetadata
from kafka.errors import KafkaError, KafkaTimeoutError

from driftloop.errors import BrokerUnavailable
from driftloop.events import Outcome
from driftloop.kafka import positioned_producer
from driftloop.kafka.codec import serialize
from driftloop.telemetry.health import Health
from predictor.outbox import relay as relay_module
from predictor.outbox.outbox import Outbox, OutboxUnavailable
from predictor.outbox.readiness import report_outbox
from predictor.outbox.relay import Relay, exclusive_lock, run_relay
from predictor.settings import OutboxSettings, RelaySettings, ServingSettings


class Record(NamedTuple):
    """A message on the fake broker."""

    topic: str
    key: bytes


class FakeBroker:
    """A broker of one transactional producer: what is committed, and errors that a test sets."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.position: OffsetAndMetadata | None = None
        self.time_ahead = 0.0
        self.errors: dict[str, list[KafkaError]] = {}
        self.aborted = 0
        self.closed = 0

    def call(self, method: str) -> None:
        """Raise the next error that is set for ``method``."""
        if self.errors.get(method):
            raise self.errors[method].pop(0)


class FakeFuture:
    """A send that ends with its transaction."""

    def __init__(self, broker: FakeBroker) -> None:
        self._timestamp = int((time.time() + broker.time_ahead) * 1000)

    def get(self) -> SimpleNamespace:
        return SimpleNamespace(timestamp=self._timestamp)


class FakeProducer:
    """The relay's producer."""

    def __init__(self, broker: FakeBroker) -> None:
        self.broker = broker
        self.pending: list[Record] = []
        self.offset: OffsetAndMetadata | None = None

    def init_transactions(self) -> None:
        self.broker.call("init_transactions")

    def begin_transaction(self) -> None:
        self.pending, self.offset = [], None

    def send(self, topic: str, *, key: bytes, **_: Any) -> "FakeFuture":
        self.broker.call("send")
        self.pending.append(Record(topic, key))
        return FakeFuture(self.broker)

    def send_offsets_to_transaction(self, offsets: dict[Any, Any], _: Any) -> None:
        (self.offset,) = offsets.values()

    def commit_transaction(self) -> None:
        self.broker.call("commit_transaction")
        self.broker.records += self.pending
        self.broker.position = self.offset

    def abort_transaction(self) -> None:
        self.broker.aborted += 1

    def close(self, **_: Any) -> None:
        self.broker.closed += 1


class FakeConsumer:
    """The relay's consumer, which only reads the position."""

    def __init__(self, broker: FakeBroker) -> None:
        self.broker = broker

    def committed(self, *_: Any, **__: Any) -> OffsetAndMetadata | None:
        return self.broker.position

    def group_metadata(self) -> None:
        """The group has no members."""

    def close(self, **_: Any) -> None:
        """Nothing to close."""


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> FakeBroker:
    broker = FakeBroker()
    monkeypatch.setattr(positioned_producer, "create_reader", lambda *_, **__: FakeConsumer(broker))
    monkeypatch.setattr(positioned_producer, "create_transactional_producer", lambda *_, **__: FakeProducer(broker))
    monkeypatch.setattr(relay_module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(relay_module, "POLL_INTERVAL_SECONDS", 0.01)
    return broker


@pytest.fixture
def settings(tmp_path: Path) -> RelaySettings:
    return RelaySettings(predictor=ServingSettings(data_dir=tmp_path))


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path, OutboxSettings())
    yield outbox
    outbox.close()


def append(outbox: Outbox, *ids: str) -> None:
    outbox.append([serialize(Outcome(prediction_id=prediction_id, index=0, outcome=1)) for prediction_id in ids])


def published(broker: FakeBroker) -> list[str]:
    return [record.key.decode() for record in broker.records]


def test_relay_publishes_events_in_order_and_deletes_them(
    broker: FakeBroker, settings: RelaySettings, outbox: Outbox
) -> None:
    append(outbox, "a", "b")
    relay = Relay(settings, outbox)
    assert relay.relay_batch() == 2
    append(outbox, "c")
    assert relay.relay_batch() == 1
    assert relay.relay_batch() == 0
    assert published(broker) == ["a", "b", "c"]
    assert {record.topic for record in broker.records} == {settings.topics.outcomes}
    assert outbox.depth().events == 0


def test_relay_limits_events_of_a_transaction(
    broker: FakeBroker, settings: RelaySettings, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "MAX_BATCH_EVENTS", 2)
    append(outbox, "a", "b", "c")
    relay = Relay(settings, outbox)
    assert [relay.relay_batch() for _ in range(3)] == [2, 1, 0]
    assert published(broker) == ["a", "b", "c"]


@pytest.mark.parametrize("method", ["send", "commit_transaction"])
def test_relay_aborts_failed_transaction_and_keeps_its_events(
    broker: FakeBroker, settings: RelaySettings, outbox: Outbox, method: str
) -> None:
    append(outbox, "a")
    relay = Relay(settings, outbox)
    broker.errors[method] = [KafkaTimeoutError("no answer")]
    with pytest.raises(BrokerUnavailable):
        relay.relay_batch()
    assert (broker.aborted, published(broker), outbox.depth().events) == (1, [], 1)


def test_relay_started_after_a_kill_between_commit_and_delete_does_not_publish_again(
    broker: FakeBroker, settings: RelaySettings, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(outbox, "a")
    with monkeypatch.context() as patch:
        patch.setattr(outbox, "delete_through", lambda _: None)
        Relay(settings, outbox).relay_batch()
    assert outbox.depth().events == 1
    append(outbox, "b")
    relay = Relay(settings, outbox)
    assert outbox.depth().events == 1
    relay.relay_batch()
    assert published(broker) == ["a", "b"]


def test_relay_whose_outbox_the_broker_knows_further_takes_a_new_name_and_publishes_all(
    broker: FakeBroker, settings: RelaySettings, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(outbox, "a")
    Relay(settings, outbox).relay_batch()
    name = outbox.name
    broker.position = OffsetAndMetadata(3, "the id of another copy's event", -1)
    append(outbox, "b", "c", "d")

    rename = outbox.rename

    def rename_unknown() -> str:
        broker.position = None  # of the new name
        return rename()

    monkeypatch.setattr(outbox, "rename", rename_unknown)
    relay = Relay(settings, outbox)
    relay.relay_batch()
    assert published(broker) == ["a", "b", "c", "d"]
    assert outbox.name != name
    assert Outbox(settings.predictor.data_dir, settings.outbox).name == outbox.name


def test_relay_goes_on_while_published_events_cannot_be_deleted(
    broker: FakeBroker, settings: RelaySettings, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = Relay(settings, outbox)
    with monkeypatch.context() as patch:

        def fail(_: int) -> None:
            raise OutboxUnavailable("the disk is full")

        patch.setattr(outbox, "delete_through", fail)
        append(outbox, "a")
        relay.relay_batch()
        append(outbox, "b")
        relay.relay_batch()
        assert outbox.depth().events == 2
    assert relay.relay_batch() == 0
    assert outbox.depth().events == 0
    assert published(broker) == ["a", "b"]


@pytest.mark.parametrize("ahead", [-300, 0, 300])
def test_relay_tells_how_far_the_clock_is_from_the_brokers(
    broker: FakeBroker, settings: RelaySettings, outbox: Outbox, ahead: int
) -> None:
    broker.time_ahead = -ahead
    append(outbox, "a")
    Relay(settings, outbox).relay_batch()
    health = Health()
    report_outbox(outbox, health)
    assert outbox.relay_state().clock_skew_seconds == pytest.approx(ahead, abs=5)
    assert ("clock" in health.warnings) == (ahead != 0)


def test_relay_closes_its_clients_if_it_cannot_start(
    broker: FakeBroker, settings: RelaySettings, outbox: Outbox
) -> None:
    broker.errors["init_transactions"] = [KafkaTimeoutError("no answer")]
    with pytest.raises(BrokerUnavailable):
        Relay(settings, outbox)
    assert broker.closed == 1


def test_run_relay_drains_the_outbox_through_broker_failures(
    broker: FakeBroker, settings: RelaySettings, outbox: Outbox
) -> None:
    append(outbox, "a", "b")
    broker.errors = {
        "init_transactions": [KafkaTimeoutError("no answer")],
        "commit_transaction": [KafkaTimeoutError("no answer")],
    }
    stop = threading.Event()
    thread = threading.Thread(target=run_relay, args=(settings, stop, Health()), daemon=True)
    thread.start()
    try:
        deadline = threading.Event()
        for _ in range(500):
            if outbox.depth().events == 0:
                break
            deadline.wait(0.01)
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()
    assert (published(broker), outbox.depth().events) == (["a", "b"], 0)


def test_exclusive_lock_admits_one_relay_per_folder(tmp_path: Path) -> None:
    order: list[str] = []

    def enter_second() -> None:
        with exclusive_lock(tmp_path):
            order.append("second")

    thread = threading.Thread(target=enter_second, daemon=True)
    with exclusive_lock(tmp_path):
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
