"""The faults: each with a name, a kind, how it is caused and how it ends.

The cause of a fault is a function that returns a context manager: entering it causes the fault, leaving it ends the
fault. In between the caller waits, for as long as the fault is to last.
"""

import random
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import get_args

import psutil
from kafka import TopicPartition

from driftloop.kafka.client import admin_client
from predictor.outbox.outbox import Outbox
from predictor.settings import OutboxSettings
from tests.support.chaos.setup import DISK_MB, LINKS
from tests.support.chaos.system import FLIGHTS_PREDICTOR, OF_OTHERS, RENTALS_PREDICTOR, SECOND_WORKER, SERVICES, System
from tests.support.poison import poison_messages, poison_producer, send
from tests.support.processes import forked_jobs
from tests.support.small_disk import fill
from tests.support.tcp_proxy import Trouble
from tests.support.waiting import wait_until

CLOCK_SECONDS = (-86_400.0, -3_700.0, 3_700.0, 86_400.0)  # a broker accepts messages from the future for an hour
MAX_PARTITIONS = 4
MIN_NEW_EVENTS = 20
GONE_SECONDS = 120

Cause = Callable[[System, random.Random], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """A fault that can be caused on a running system."""

    name: str
    kind: str
    cause: Cause
    is_predictors_own: bool = False
    """Whether requests may fail meanwhile."""
    needs_session_timeout: bool = False
    """Whether a group has to notice that a member is gone or frozen, which takes up to a session timeout."""
    max_times: int | None = None
    """How often it can be caused in a run; ``None`` for any number."""
    disk: str | None = None
    """The component whose disk is to be a small one."""


@contextmanager
def killed(system: System, _: random.Random, name: str) -> Iterator[None]:
    """Kill all processes of a component with SIGKILL; start it again."""
    system.kill(name)
    yield
    system.start(name)


@contextmanager
def stopped(system: System, _: random.Random, name: str) -> Iterator[None]:
    """Stop a component with SIGTERM; start it again."""
    system.stop(name)
    yield
    system.start(name)


@contextmanager
def relay_killed(system: System, _: random.Random) -> Iterator[None]:
    """Kill the relay of a predictor, which starts another one by itself."""
    for process in system.processes(FLIGHTS_PREDICTOR):
        with suppress(psutil.NoSuchProcess):
            if "predictor.outbox.relay" in process.cmdline():
                process.kill()
    yield


@contextmanager
def training_killed(system: System, _: random.Random) -> Iterator[None]:
    """Kill the processes of a training, if one runs; the trainer begins it again."""
    for trainer in system.processes("trainer")[:1]:
        for process in forked_jobs(trainer.pid):
            with suppress(psutil.NoSuchProcess):
                process.kill()
    yield


@contextmanager
def frozen(system: System, _: random.Random, name: str) -> Iterator[None]:
    """Freeze all processes of a component with SIGSTOP; let them go on with SIGCONT."""
    processes = system.processes(name)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


@contextmanager
def network_trouble(system: System, _: random.Random, link: tuple[str, str], trouble: Trouble) -> Iterator[None]:
    """Let something be wrong with the network between two parts."""
    with system.proxies[link].trouble(trouble):
        yield


@contextmanager
def partition_added(system: System, _: random.Random) -> Iterator[None]:
    """Add a partition to the topic of predictions. It stays."""
    topic = system.stack.topics.predictions
    with admin_client(system.stack.kafka) as admin:
        count = len(admin.describe_topics([topic])[0]["partitions"])
        admin.create_partitions({topic: min(count + 1, MAX_PARTITIONS)})
    yield


@contextmanager
def offsets_forgotten(system: System, _: random.Random) -> Iterator[None]:
    """Stop the drift worker and delete its group, with all committed offsets; start it again."""
    system.stop("drift_worker")
    with admin_client(system.stack.kafka) as admin:

        def forget() -> bool | None:
            (result,) = admin.delete_groups([system.worker_group]).items()
            return result[1] == "OK" or None

        wait_until(forget, "the group is deleted", GONE_SECONDS)  # once the session of its member has ended
    system.audit.note_forgotten_windows()
    yield
    system.start("drift_worker")


@contextmanager
def records_deleted(system: System, _: random.Random) -> Iterator[None]:
    """Kill the drift worker, and delete messages beyond the offset that it has committed; start it again."""
    topic = system.stack.topics.predictions
    system.kill("drift_worker")
    with admin_client(system.stack.kafka) as admin:

        def committed_and_read() -> tuple[int, int] | None:
            system.audit.read()
            offsets = admin.list_group_offsets({system.worker_group: None}).get(system.worker_group, {})
            found = offsets.get(TopicPartition(topic, 0))
            committed = 0 if found is None else max(found.offset, 0)
            read = system.audit.last_read(topic, 0)
            return (committed, read) if read > committed + MIN_NEW_EVENTS else None

        committed, read = wait_until(committed_and_read, "there is more than the worker has committed", GONE_SECONDS)
        offset = (committed + read) // 2
        admin.delete_records({TopicPartition(topic, 0): offset})
    system.audit.note_deletion(topic, 0, committed, offset)
    system.audit.note_forgotten_windows()
    yield
    system.start("drift_worker")


@contextmanager
def snapshot_restored(system: System, _: random.Random) -> Iterator[None]:
    """Restore the first predictor's folder from a copy that was made while it was stopped, and 20 events before.

    Both times all events have been published when it stops: what a lost disk had alone nobody can publish.
    """
    folder = system.data_folder(FLIGHTS_PREDICTOR)
    copy = folder.with_name(f"{folder.name}-copy")
    _stop_when_empty(system)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    system.start(FLIGHTS_PREDICTOR)
    for _number in range(MIN_NEW_EVENTS):
        wait_until(lambda: system.predict(FLIGHTS_PREDICTOR), "the predictor answers", GONE_SECONDS)
    _stop_when_empty(system)
    shutil.rmtree(folder)
    shutil.move(copy, folder)
    yield
    system.start(FLIGHTS_PREDICTOR)


def _stop_when_empty(system: System) -> None:
    """Stop the first predictor, and start and stop it until it has left nothing in its outbox."""
    while True:
        system.stop(FLIGHTS_PREDICTOR)
        outbox = Outbox(system.data_folder(FLIGHTS_PREDICTOR), OutboxSettings())
        try:
            if not outbox.depth().events:
                return
        finally:
            outbox.close()
        system.start(FLIGHTS_PREDICTOR)


@contextmanager
def poisoned(system: System, source: random.Random, name: str) -> Iterator[None]:
    """Publish a message that is no event, on a topic of the drift worker."""
    topic = source.choice(system.audit.topics)
    producer = poison_producer(system.stack.kafka.bootstrap_servers)
    try:
        sent = send(producer, topic, poison_messages()[name])
    finally:
        producer.close()
    system.audit.poison[topic, sent.partition, sent.offset] = f"poison: {name}"
    yield


@contextmanager
def worker_joined(system: System, _: random.Random) -> Iterator[None]:
    """Let a second drift worker join the group; it leaves again."""
    system.start(SECOND_WORKER)
    try:
        yield
    finally:
        system.stop(SECOND_WORKER)


@contextmanager
def disk_filled(system: System, _: random.Random, name: str) -> Iterator[None]:
    """Fill a component's disk until it has no room at all; empty it again."""
    ballast = system.disks[name] / "ballast"
    fill(ballast)
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def clock_jumped(system: System, source: random.Random) -> Iterator[None]:
    """Let the clocks of the predictors and their relays jump; then back."""
    system.clock.set(source.choice(CLOCK_SECONDS))
    try:
        yield
    finally:
        system.clock.set(0.0)


def all_faults() -> list[Fault]:
    """Return every fault, those of a kind together."""
    predictors = (FLIGHTS_PREDICTOR, RENTALS_PREDICTOR)
    found = [
        Fault(f"{name} killed", "kill", partial(killed, name=name), is_predictors_own=name in predictors)
        for name in SERVICES
    ]
    found += [
        Fault("relay killed", "kill", relay_killed),
        Fault("training killed", "kill", training_killed),
        Fault("broker killed", "broker away", partial(killed, name="kafka"), needs_session_timeout=True),
        Fault("broker restarted", "broker away", partial(stopped, name="kafka"), needs_session_timeout=True),
        Fault("MLflow killed", "registry or bucket away", partial(killed, name="mlflow")),
        Fault("bucket killed", "registry or bucket away", partial(killed, name="gcs")),
    ]
    found += [
        Fault(f"{name} frozen", "freeze", partial(frozen, name=name), name in predictors, name not in predictors)
        for name in (*SERVICES, *OF_OTHERS)
    ]
    found += [
        Fault(
            f"{client} to {server}: {trouble}",
            f"network {trouble}",
            partial(network_trouble, link=(client, server), trouble=trouble),
            needs_session_timeout=server == "kafka" and client != "predictor",
        )
        for trouble in get_args(Trouble)
        for client, server in LINKS
    ]
    found += [
        Fault("partition added", "partition added", partition_added, max_times=MAX_PARTITIONS - 2),
        Fault("offsets forgotten", "offsets forgotten", offsets_forgotten, needs_session_timeout=True),
        Fault("records deleted", "retention", records_deleted, needs_session_timeout=True),
        Fault("outbox restored", "snapshot restored", snapshot_restored, is_predictors_own=True),
        Fault("worker joins and leaves", "rebalance", worker_joined, needs_session_timeout=True),
        Fault("clock jumped", "clock", clock_jumped),
    ]
    found += [
        Fault(
            f"disk of {name} full",
            "disk full",
            partial(disk_filled, name=name),
            is_predictors_own=name in predictors,
            needs_session_timeout=name == "kafka",
            disk=name,
        )
        for name in DISK_MB
    ]
    return found + [Fault(f"poison: {name}", "poison", partial(poisoned, name=name)) for name in poison_messages()]


def draw(source: random.Random, count: int, disks: Collection[str]) -> list[Fault]:
    """Draw faults: first each kind once, then any; the kinds are equally likely.

    Args:
        source: Of the randomness.
        count: How many.
        disks: Components that have a small disk of their own.
    """
    by_kind: dict[str, list[Fault]] = {}
    for fault in all_faults():
        if fault.disk is None or fault.disk in disks:
            by_kind.setdefault(fault.kind, []).append(fault)
    drawn: list[Fault] = []
    kinds = source.sample(sorted(by_kind), len(by_kind))
    while len(drawn) < count:
        kind = kinds[len(drawn)] if len(drawn) < len(kinds) else source.choice(kinds)
        fault = source.choice(by_kind[kind])
        if fault.max_times is None or drawn.count(fault) < fault.max_times:
            drawn.append(fault)
    return drawn
