"""Properties of outbox and relay: what is accepted is published in order, whatever is killed, copied or restored."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from driftloop.errors import BrokerUnavailable
from driftloop.events import Outcome
from driftloop.kafka.codec import serialize
from driftloop.kafka.transactional_producer import OutgoingMessage
from driftloop.settings import KafkaSettings
from predictor.outbox import outbox as outbox_module
from predictor.outbox import relay as relay_module
from predictor.outbox.outbox import Outbox, OutboxUnavailable
from predictor.outbox.relay import Relay
from predictor.settings import OutboxSettings, RelaySettings, ServingSettings

LIMITS = OutboxSettings(fsync=False, min_free_bytes=0)
MAX_FOLDERS = 4
COMMIT_FAULTS = ["refused", "committed without an answer", "killed before", "killed after"]


class ProcessKilled(Exception):
    """The relay is killed."""


class Broker:
    """Published keys, and the committed position and latest producer of each name."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.positions: dict[str, tuple[int, str]] = {}
        self.epochs = Counter[str]()
        self.fault: str | None = None


class FakeProducer:
    """A positioned producer of a broker: an earlier one of the same name can commit nothing."""

    def __init__(self, broker: Broker, name: str) -> None:
        self.broker, self.name = broker, name
        broker.epochs[name] += 1
        self.epoch = broker.epochs[name]
        self.position: int | None = None
        self.metadata = ""
        if name in broker.positions:
            self.position, self.metadata = broker.positions[name]

    def commit(self, messages: Iterable[OutgoingMessage], position: int, metadata: str) -> None:
        keys = [(message.message.key or b"").decode() for message in messages]
        fault, self.broker.fault = self.broker.fault, None
        if fault == "killed before":
            raise ProcessKilled
        if fault == "refused" or self.epoch < self.broker.epochs[self.name]:
            raise BrokerUnavailable("refused")
        self.broker.keys += keys
        self.broker.positions[self.name] = (position, metadata)
        if fault == "killed after":
            raise ProcessKilled
        if fault:
            raise BrokerUnavailable("no answer")
        self.position, self.metadata = position, metadata

    def close(self) -> None:
        """Nothing to close."""


class Folder:
    """A predictor's data folder with the two processes that use it, and what it has accepted."""

    def __init__(self, path: Path, accepted: Iterable[str] = ()) -> None:
        self.path = path
        self.accepted = list(accepted)
        self.settings = RelaySettings(predictor=ServingSettings(data_dir=path), outbox=LIMITS)
        self.outbox = Outbox(path, LIMITS)
        self.relay: Relay | None = None

    def pending(self) -> list[str]:
        return [event.key for _, event in self.outbox.read_after(0, 10_000)]

    def restart_predictor(self) -> None:
        self.outbox.close()
        self.outbox = Outbox(self.path, LIMITS)

    def relay_batch(self) -> int:
        """Let the relay publish a batch, after it was started again if it has ended; 0 if it ends or has no events."""
        try:
            if self.relay is None:
                self.relay = Relay(self.settings, Outbox(self.path, LIMITS, durable=False))
            return self.relay.relay_batch()
        except (BrokerUnavailable, ProcessKilled):
            self.relay = None
            return 0

    def copy_to(self, path: Path) -> None:
        """Copy the files while they are open, as a snapshot of the disk does."""
        shutil.copytree(self.path, path, ignore=shutil.ignore_patterns("*-shm"))


class OutboxMachine(RuleBasedStateMachine):
    """Folders that use one broker."""

    @initialize()
    def start(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.broker = Broker()
        self.patches = ExitStack()
        self.patches.enter_context(patch.object(outbox_module, "MAX_DELETED_EVENTS", 2))
        self.patches.enter_context(patch.object(relay_module, "MAX_BATCH_EVENTS", 5))
        self.patches.enter_context(patch.object(relay_module, "PositionedProducer", self.connect))
        self.count = 0
        self.may_repeat = Counter[str]()
        self.folders = [Folder(self.root / "0")]
        self.copies: list[tuple[Path, list[str]]] = []

    def connect(self, _: KafkaSettings, name: str, *__: str) -> FakeProducer:
        return FakeProducer(self.broker, name)

    def folder(self, number: int) -> Folder:
        return self.folders[number % len(self.folders)]

    def new_path(self) -> Path:
        return self.root / str(len(self.copies) + len(self.folders))

    @rule(number=st.integers(0, MAX_FOLDERS - 1), size=st.integers(1, 6))
    def accept(self, number: int, size: int) -> None:
        keys = [f"{self.count + position}" for position in range(size)]
        self.count += size
        self.folder(number).outbox.append([serialize(Outcome(model="m", key=key, outcome=1)) for key in keys])
        self.folder(number).accepted += keys

    @rule(number=st.integers(0, MAX_FOLDERS - 1), fault=st.none() | st.sampled_from(COMMIT_FAULTS))
    def publish(self, number: int, fault: str | None) -> None:
        folder, before = self.folder(number), len(self.broker.keys)
        self.broker.fault = fault
        folder.relay_batch()
        self.broker.fault = None
        published = self.broker.keys[before:]
        if published:
            first = folder.accepted.index(published[0])
            assert folder.accepted[first : first + len(published)] == published

    @rule(
        number=st.integers(0, MAX_FOLDERS - 1),
        steps=st.integers(0, 2),
        error=st.sampled_from([ProcessKilled(), OutboxUnavailable("the disk is full")]),
    )
    def publish_and_fail_to_delete(self, number: int, steps: int, error: Exception) -> None:
        delete, left = Outbox._delete_some, iter(range(steps))

        def delete_some(*arguments: Any) -> bool:
            if next(left, None) is None:
                raise error
            return delete(*arguments)

        with patch.object(Outbox, "_delete_some", delete_some):
            self.publish(number, None)

    @rule(number=st.integers(0, MAX_FOLDERS - 1))
    def kill_relay(self, number: int) -> None:
        self.folder(number).relay = None

    @rule(number=st.integers(0, MAX_FOLDERS - 1))
    def restart_predictor(self, number: int) -> None:
        self.folder(number).restart_predictor()

    @precondition(lambda self: len(self.copies) < MAX_FOLDERS)
    @rule(number=st.integers(0, MAX_FOLDERS - 1))
    def copy(self, number: int) -> None:
        folder, path = self.folder(number), self.new_path()
        folder.copy_to(path)
        self.copies.append((path, list(folder.accepted)))

    @precondition(lambda self: self.copies)
    @rule(number=st.integers(0, MAX_FOLDERS - 1), copy=st.integers(0, MAX_FOLDERS - 1))
    def restore(self, number: int, copy: int) -> None:
        folder, (path, accepted) = self.folder(number), self.copies[copy % len(self.copies)]
        folder.outbox.close()
        shutil.rmtree(folder.path)
        shutil.copytree(path, folder.path)
        self.folders[self.folders.index(folder)] = Folder(folder.path, accepted)
        self.may_repeat.update(accepted)

    @precondition(lambda self: len(self.folders) < MAX_FOLDERS)
    @rule(number=st.integers(0, MAX_FOLDERS - 1))
    def clone_into_another_machine(self, number: int) -> None:
        folder, path = self.folder(number), self.new_path()
        folder.copy_to(path)
        self.folders.append(Folder(path, folder.accepted))
        self.may_repeat.update(folder.accepted)

    @invariant()
    def what_is_accepted_is_kept_in_order_or_published(self) -> None:
        published = set(self.broker.keys)
        for folder in self.folders:
            pending = folder.pending()
            deleted = len(folder.accepted) - len(pending)
            assert folder.accepted[deleted:] == pending
            assert published.issuperset(folder.accepted[:deleted])

    @invariant()
    def no_event_is_published_twice_unless_two_folders_have_had_it(self) -> None:
        repeated = Counter(self.broker.keys) - Counter(set(self.broker.keys))
        assert repeated <= self.may_repeat

    def teardown(self) -> None:
        try:
            for folder in self.folders:
                turns = 0
                while folder.pending():
                    folder.relay_batch()
                    turns += 1
                    assert turns <= self.count + 10, "stuck"
                assert set(self.broker.keys) >= set(folder.accepted)
            self.no_event_is_published_twice_unless_two_folders_have_had_it()
        finally:
            self.patches.close()
            for folder in self.folders:
                folder.outbox.close()
            shutil.rmtree(self.root)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_is_accepted_is_published_in_order_through_kills_copies_and_restores() -> None:
    OutboxMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=25)
    OutboxMachine.TestCase("runTest").runTest()
