"""Look at a running stack every few seconds: lag, outboxes, memory, files, disk."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.soak_trends import Sample
from driftloop.kafka import reader
from tests.support.chaos.system import SERVICES, System
from tests.support.waiting import wait_until

DRAIN_SECONDS = 1_800
PARTS = ("kafka", "gcs", "mlflow", "predictor", "logs")
"""Of the stack's folder."""


@dataclass
class Backlog:
    """What waits, as the services say."""

    lag_seconds: dict[str, float] = field(default_factory=dict)
    outbox_events: float = 0.0
    outbox_seconds: float = 0.0


class Sampler:
    """Takes samples of a stack none of whose services is started again meanwhile."""

    def __init__(self, system: System) -> None:
        """Wait until nothing is under way, and begin to count unread events there."""
        self._system = system
        self._published: dict[str, float] = {}
        self._read: dict[str, float] = {}
        kafka, topics = system.stack.kafka, system.audit.topics
        wait_until(
            lambda: reader.is_caught_up(kafka, "drift_worker", topics) or None, "the worker reads all", DRAIN_SECONDS
        )
        self._look(Backlog())
        self._at_rest = self._unread()

    def sample(self, *, with_resources: bool = True) -> Sample:
        """Look at the stack; what its processes and disks hold takes longest, and may be left out.

        Raises:
            StackStartError: A component has ended.
        """
        self._system.stack.require_running()
        backlog, folder = Backlog(), self._system.stack.folder
        self._look(backlog)
        return Sample(
            time.time(),
            backlog.lag_seconds,
            max(
                self._unread() - self._at_rest, 0.0
            ),  # what is read before its publishing is counted is no negative lag
            backlog.outbox_events,
            backlog.outbox_seconds,
            self._system.resources() if with_resources else {},
            {part: folder_mb(folder / part) for part in PARTS} if with_resources else {},
        )

    def _look(self, backlog: Backlog) -> None:
        topics = self._system.audit.topics
        for service in SERVICES:
            for name, labels, value, *_ in self._system.metric_samples(service):
                if name == "driftloop_consumer_lag_seconds":
                    topic = labels["topic"]
                    backlog.lag_seconds[topic] = max(backlog.lag_seconds.get(topic, 0.0), value)
                elif name == "driftloop_outbox_pending_events":
                    backlog.outbox_events += value
                elif name == "driftloop_outbox_oldest_event_age_seconds":
                    backlog.outbox_seconds = max(backlog.outbox_seconds, value)
                elif name == "driftloop_outbox_relayed_events_total":
                    self._published[service] = value
                elif name == "driftloop_consumed_events_total" and labels["topic"] in topics:
                    self._read[labels["topic"]] = value

    def _unread(self) -> float:
        """Return how many events were published and not read, but for a constant.

        The worker's own metric of its lag says nothing new while the worker is busy or stuck.
        """
        return sum(self._published.values()) - sum(self._read.values())

    def samples(self, seconds: float, interval: float, *, with_resources: bool = True) -> Iterator[Sample]:
        """Take samples at regular times; the last one is taken at the end."""
        begin = time.monotonic()
        for number in range(int(seconds / interval) + 1):
            time.sleep(max(begin + number * interval - time.monotonic(), 0))
            yield self.sample(with_resources=with_resources)

    def wait_until_drained(self, tell: Callable[[Sample], None] = lambda _: None) -> float:
        """Wait until all events are published and read; return the seconds.

        Args:
            tell: Receives samples on the way.

        Raises:
            AssertionError: They are not, for half an hour.
        """
        begin = time.monotonic()

        def drained() -> bool | None:
            sample = self.sample(with_resources=False)
            tell(sample)
            return sample.outbox_events + sample.unread_events == 0 or None

        wait_until(drained, "all events are published and read", DRAIN_SECONDS)
        return time.monotonic() - begin


def folder_mb(folder: Path) -> float:
    """Return what a folder takes on its disk, in MB (2^20 bytes); files may be created and deleted meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.lstat().st_blocks * 512
    return total / 2**20
