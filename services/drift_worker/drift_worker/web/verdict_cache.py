"""What the pages know of verdicts: the latest on the topic, whoever gave them and whenever this worker started."""

import threading
import time
import zlib
from typing import NamedTuple, TypeVar

import structlog
from kafka.errors import KafkaError

from driftloop.events import DriftVerdict, QualityEstimate, Event, QualityVerdict
from driftloop.kafka import topics
from driftloop.settings import KafkaSettings

log = structlog.get_logger(__name__)

Shown = DriftVerdict | QualityVerdict | QualityEstimate
OFFSETS = 4  # a verdict's share of the topic: itself, its estimate, a quality, and the markers of their transactions
PAUSE_SECONDS = 5  # before a broker that was away is asked again

E = TypeVar("E", DriftVerdict, QualityVerdict, QualityEstimate)


class Kept(NamedTuple):
    """An event, packed: a verdict on 16 columns is 100 KB of objects, and 3 KB like this."""

    model: str
    version: str
    packed: bytes


class VerdictCache:
    """The latest events of the topic of verdicts, of each type so many. Written by one thread, read by any."""

    def __init__(self, max_events: int) -> None:
        """Nothing is known yet."""
        self.max_events = max_events
        self._kept: dict[type[Shown], dict[tuple[str, str], Kept]] = {
            DriftVerdict: {},
            QualityVerdict: {},
            QualityEstimate: {},
        }
        self._replayed: dict[tuple[str, str], Kept] = {}
        self._lock = threading.Lock()
        self._fresh_at = time.monotonic()

    def add(self, event: Event) -> None:
        """Takes an event; one of a type that no page shows is let go."""
        if not isinstance(event, Shown):
            return
        packed = zlib.compress(event.model_dump_json().encode())
        with self._lock:
            kept = self._replayed if isinstance(event, DriftVerdict) and event.replayed else self._kept[type(event)]
            kept[event.window.name, f"{event.model}/{event.version}"] = Kept(event.model, event.version, packed)
            if len(kept) > self.max_events:
                del kept[next(iter(kept))]

    def mark_fresh(self) -> None:
        """The topic answered, if only that there is nothing new."""
        self._fresh_at = time.monotonic()

    @property
    def age_seconds(self) -> float:
        """How long the topic has not answered: what is known may be as old."""
        return time.monotonic() - self._fresh_at

    def versions(self) -> list[tuple[str, str]]:
        """Models and versions that have verdicts, the one that was judged last first."""
        with self._lock:
            return list(
                dict.fromkeys((kept.model, kept.version) for kept in reversed(self._kept[DriftVerdict].values()))
            )

    def latest(self, kind: type[E], model: str, version: str, count: int) -> list[E]:
        """The version's last events of a type, in the order in which they were published."""
        with self._lock:
            chosen = [kept for kept in self._kept[kind].values() if (kept.model, kept.version) == (model, version)]
        return [_unpacked(kind, kept) for kept in chosen[-count:]]

    def find(self, window: str, of: str) -> DriftVerdict | None:
        """The verdict on the rows ``of`` a model/version in the window of this name."""
        with self._lock:
            kept = self._kept[DriftVerdict].get((window, of))
        return None if kept is None else _unpacked(DriftVerdict, kept)

    def rejudged(self, verdict: DriftVerdict) -> DriftVerdict | None:
        """What the same rows got when they were judged once more, the last time."""
        with self._lock:
            kept = self._replayed.get((verdict.window.name, f"{verdict.model}/{verdict.version}"))
        return None if kept is None else _unpacked(DriftVerdict, kept)

    def neighbours(self, verdict: DriftVerdict) -> tuple[str | None, str | None]:
        """The names of the windows before and after, of the same version."""
        with self._lock:
            names = [name for name, of in self._kept[DriftVerdict] if of == f"{verdict.model}/{verdict.version}"]
        at = names.index(verdict.window.name)
        return names[at - 1] if at else None, names[at + 1] if at + 1 < len(names) else None


def _unpacked(kind: type[E], kept: Kept) -> E:
    return kind.model_validate_json(zlib.decompress(kept.packed))


def start_tailing(verdicts: VerdictCache, kafka: KafkaSettings, topic: str) -> None:
    """Fills ``verdicts`` from the topic, in a thread that ends with the process and outlives a broker that is away."""

    def run() -> None:
        while True:
            try:
                with topics.tail(kafka, topic, last=verdicts.max_events * OFFSETS) as events:
                    for event in events:
                        verdicts.mark_fresh()
                        if event is not None:
                            verdicts.add(event)
            except KafkaError as error:
                log.warning("the verdicts cannot be followed for now", error=str(error))
                time.sleep(PAUSE_SECONDS)

    threading.Thread(target=run, name="verdicts", daemon=True).start()
