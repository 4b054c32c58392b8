"""What happens to the outbox's folder, its disk and its machine's clock, on a real broker: no event is lost."""

import random
import shutil
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.record.default_records import DefaultRecordBatchBuilder

from driftloop.events import Outcome
from driftloop.kafka import topics
from driftloop.kafka.codec import SerializedEvent, serialize
from driftloop.settings import KafkaSettings, TopicsSettings
from driftloop.telemetry.health import Health
from predictor.outbox.outbox import Outbox, OutboxUnavailable
from predictor.outbox.readiness import report_outbox
from predictor.outbox.relay import run_relay
from predictor.settings import OutboxSettings, RelaySettings, ServingSettings
from tests.support.small_disk import fill
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


SECONDS_AHEAD = 3_700  # a broker accepts an hour


class Machine:
    """A folder with an outbox, whose relay publishes to topics of the test."""

    def __init__(self, kafka: KafkaSettings, names: TopicsSettings, folder: Path) -> None:
        self.folder = folder
        self._settings = RelaySettings(kafka=kafka, topics=names, predictor=ServingSettings(data_dir=folder))

    @contextmanager
    def outbox(self) -> Iterator[Outbox]:
        outbox = Outbox(self.folder, OutboxSettings(fsync=False))
        try:
            yield outbox
        finally:
            outbox.close()

    def append(self, count: int, size: int = 10) -> list[str]:
        """Store events, each in a commit of its own; return their ids."""
        events = make_events(count, size)
        with self.outbox() as outbox:
            for event in events:
                outbox.append([event])
        return [event.id for event in events]

    @contextmanager
    def relay(self) -> Iterator[None]:
        """Run the relay in the block, and let it publish all that is left at the end."""
        stop = threading.Event()
        thread = threading.Thread(target=run_relay, args=(self._settings, stop, Health()), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(120)
            assert not thread.is_alive()

    def wait_until_empty(self) -> None:
        with self.outbox() as outbox:
            wait_until(lambda: outbox.depth().events == 0 or None, "the outbox is empty", seconds=120)


def make_events(count: int, size: int = 10) -> list[SerializedEvent]:
    return [
        serialize(Outcome(prediction_id=uuid.uuid4().hex, index=0, outcome=1.0))._replace(value=b"x" * size)
        for _ in range(count)
    ]


@pytest.fixture
def names(broker: KafkaSettings) -> TopicsSettings:
    suffix = uuid.uuid4().hex[:8]
    names = TopicsSettings(predictions=f"predictions-{suffix}", outcomes=f"outcomes-{suffix}")
    topics.create(broker, names)
    return names


@pytest.fixture
def published(broker: KafkaSettings, names: TopicsSettings) -> Callable[[], Counter[str]]:
    """Return a function that counts the committed events on the topic by id."""

    def read() -> Counter[str]:
        partition = TopicPartition(names.outcomes, 0)
        consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap_servers, isolation_level="read_committed")
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        end, counts = consumer.end_offsets([partition])[partition], Counter[str]()
        while consumer.position(partition) < end:
            for records in consumer.poll(1_000).values():
                counts.update(dict(record.headers)["ce_id"].decode() for record in records)
        consumer.close()
        return counts

    return read


def test_folder_restored_from_a_copy_publishes_all_events_once(
    broker: KafkaSettings, names: TopicsSettings, tmp_path: Path, published: Callable[[], Counter[str]]
) -> None:
    machine = Machine(broker, names, tmp_path / "outbox")
    ids = machine.append(20)
    with machine.relay():
        machine.wait_until_empty()
    shutil.copytree(machine.folder, tmp_path / "copy")
    ids += machine.append(500)
    with machine.relay():
        machine.wait_until_empty()
    shutil.rmtree(machine.folder)
    shutil.copytree(tmp_path / "copy", machine.folder)
    with machine.outbox() as outbox:
        name = outbox.name
    ids += machine.append(600)
    with machine.relay():
        machine.wait_until_empty()
        ids += machine.append(30)
        machine.wait_until_empty()
    assert published() == Counter(ids)
    with machine.outbox() as outbox:
        assert outbox.name != name
        assert outbox.depth().events == 0


def test_copies_of_a_folder_that_run_at_once_lose_no_event(
    broker: KafkaSettings,
    names: TopicsSettings,
    tmp_path: Path,
    published: Callable[[], Counter[str]],
    random_source: random.Random,
) -> None:
    original = Machine(broker, names, tmp_path / "outbox")
    ids = original.append(50)
    with original.relay():
        original.wait_until_empty()
    pending = original.append(10)  # both copies have these, and publish them
    shutil.copytree(original.folder, tmp_path / "clone")
    clone = Machine(broker, names, tmp_path / "clone")
    with original.relay(), clone.relay():
        for _ in range(20):
            ids += random_source.choice([original, clone]).append(random_source.randint(1, 30))
            time.sleep(random_source.uniform(0, 0.3))
        original.wait_until_empty()
        clone.wait_until_empty()
    counts = published()
    assert {event_id: counts[event_id] for event_id in ids} == dict.fromkeys(ids, 1)
    assert {counts[event_id] for event_id in pending} <= {1, 2}
    assert set(counts) == {*ids, *pending}
    with original.outbox() as first, clone.outbox() as second:
        assert first.name != second.name


def test_outbox_that_fills_its_disk_refuses_and_empties_itself(
    broker: KafkaSettings, names: TopicsSettings, small_disk: Path, published: Callable[[], Counter[str]]
) -> None:
    machine = Machine(broker, names, small_disk)
    health = Health()
    health.mark_started()
    ids: list[str] = []
    with machine.outbox() as outbox:
        while outbox.full_reason() is None:
            while outbox.full_reason() is None:
                events = make_events(10, 9_000)
                outbox.append(events)
                ids += [event.id for event in events]
            outbox.empty_wal()  # as readiness does before it says that the disk is full
        with pytest.raises(OutboxUnavailable, match="DRIFTLOOP_OUTBOX__MIN_FREE_BYTES"):
            outbox.require_capacity()
        report_outbox(outbox, health)
        assert "outbox" in health.unavailable
        assert shutil.disk_usage(small_disk).free > 0
        with machine.relay():
            machine.wait_until_empty()
            wait_until(lambda: outbox.full_reason() is None or None, "there is room again", seconds=60)
            events = make_events(100, 9_000)
            outbox.append(events)
            ids += [event.id for event in events]
            machine.wait_until_empty()
        report_outbox(outbox, health)
        assert health.unavailable == {}
    assert len(ids) > 1_000
    assert published() == Counter(ids)


def test_disk_that_others_have_filled_ends_neither_publishing_nor_honesty(
    broker: KafkaSettings, names: TopicsSettings, small_disk: Path, published: Callable[[], Counter[str]]
) -> None:
    machine = Machine(broker, names, small_disk / "outbox")
    ids = machine.append(1_000, 5_000)
    health = Health()
    health.mark_started()
    ballast = small_disk / "ballast"
    with machine.outbox() as outbox:
        fill(ballast)
        with pytest.raises(OutboxUnavailable):
            outbox.require_capacity()
        report_outbox(outbox, health)
        assert "outbox" in health.unavailable
        with machine.relay():
            wait_until(lambda: len(published()) == len(ids) or None, "all events are published", seconds=120)
            ballast.unlink()
            machine.wait_until_empty()
            report_outbox(outbox, health)
            assert health.unavailable == {}
            outbox.append(more := make_events(1))
            machine.wait_until_empty()
    assert published() == Counter([*ids, more[0].id])


def test_events_of_a_clock_that_is_an_hour_ahead_go_on_and_readiness_says_it(
    broker: KafkaSettings,
    names: TopicsSettings,
    tmp_path: Path,
    published: Callable[[], Counter[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_clock_ahead(monkeypatch)
    machine = Machine(broker, names, tmp_path / "outbox")
    health = Health()
    ids = machine.append(5)
    with machine.relay(), machine.outbox() as outbox:
        machine.wait_until_empty()
        wait_until(lambda: outbox.relay_state().clock_skew_seconds, "the clock's skew is known")
        report_outbox(outbox, health)
    assert published() == Counter(ids)
    assert outbox_skew(machine) == pytest.approx(SECONDS_AHEAD, abs=60)
    assert "clock" in health.warnings


def test_broker_that_refuses_a_clock_is_named_until_topics_have_its_time(
    broker: KafkaSettings,
    names: TopicsSettings,
    tmp_path: Path,
    published: Callable[[], Counter[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_create_time(broker, names.outcomes)
    set_clock_ahead(monkeypatch)
    machine = Machine(broker, names, tmp_path / "outbox")
    health = Health()
    ids = machine.append(5)
    with machine.relay(), machine.outbox() as outbox:
        error = wait_until(lambda: outbox.relay_state().error, "the relay says what is wrong", seconds=60)
        assert topics.TIMESTAMP_TYPE in error
        report_outbox(outbox, health)
        assert "relay" in health.warnings
        assert topics.use_broker_time(broker, names) == [names.outcomes]
        machine.wait_until_empty()
        wait_until(lambda: outbox.relay_state().error is None or None, "the relay publishes")
        report_outbox(outbox, health)
        assert "relay" not in health.warnings
    assert published() == Counter(ids)


def set_clock_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set this process' clock ahead. No tool here can do it, so everything that asks for the time gets another one."""
    real = time.time

    def ahead() -> float:
        return real() + SECONDS_AHEAD

    append = DefaultRecordBatchBuilder.append  # it has kept the function that it asks
    defaults = tuple(ahead if default is real else default for default in append.__defaults__)
    monkeypatch.setattr(append, "__defaults__", defaults)
    monkeypatch.setattr(time, "time", ahead)


def outbox_skew(machine: Machine) -> float | None:
    with machine.outbox() as outbox:
        return outbox.relay_state().clock_skew_seconds


def set_create_time(broker: KafkaSettings, topic: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, {topics.TIMESTAMP_TYPE: "CreateTime"})
    assert admin.alter_configs([resource])["topic"] == {topic: "OK"}
    admin.close()
