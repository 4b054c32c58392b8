"""The latest verdicts and model changes on the topics for the pages.

It makes no difference which worker has published them, or when this one started.
"""

import threading
import time
import zlib
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple, Self, TypeVar

from driftloop.events import DriftVerdict, Event, ModelStateChanged, QualityEstimate, QualityVerdict
from driftloop.kafka import reader
from driftloop.settings import KafkaSettings
from driftloop.version_status import JudgedWindow, is_of_run

CachedEvent = DriftVerdict | QualityVerdict | QualityEstimate
OFFSETS_PER_VERDICT = 4  # the verdict, its estimate, a quality verdict, and the markers of their transactions
MAX_MODEL_OFFSETS = 20_000  # a thousand retrains with all of their phases
RECONNECT_DELAY_SECONDS = 5

E = TypeVar("E", DriftVerdict, QualityVerdict, QualityEstimate)
V = TypeVar("V", DriftVerdict, QualityVerdict)


class CompressedEvent(NamedTuple):
    """A compressed event: a verdict on 16 columns takes 3 KB in place of 100 KB as objects."""

    model: str
    version: str
    run_id: str | None
    data: bytes
    is_conclusive: bool
    """Whether it is a verdict that is not inconclusive."""
    window: JudgedWindow | None
    """Of a verdict on drift; uncompressed, since a page needs those of all versions."""


class EventKey(NamedTuple):
    """What an event is about; a later one with the same key takes its place."""

    window: str
    """The window's name."""
    model_version: str
    """The model's name, a slash and the version."""
    run_id: str | None

    @classmethod
    def of(cls, event: CachedEvent) -> Self:
        """Return an event's key."""
        return cls(event.window.name, f"{event.model}/{event.version}", event.run_id)


class ServiceChange(NamedTuple):
    """A version came into service."""

    version: str
    at: datetime
    state: str
    """``promoted`` or ``rolled_back``."""


class VerdictCache:
    """The latest events of the topic of verdicts, up to a limit per type. One thread writes, any thread reads.

    The last conclusive verdicts on a version's drift and quality stay, however many windows of others are judged after
    them.
    """

    def __init__(self, max_events: int) -> None:
        """Start empty; ``max_events`` is the limit per type of event."""
        self.max_events = max_events
        self._events: dict[type[CachedEvent], dict[EventKey, CompressedEvent]] = {
            DriftVerdict: {},
            QualityVerdict: {},
            QualityEstimate: {},
        }
        self._replayed: dict[EventKey, CompressedEvent] = {}
        # The key of the last conclusive verdict of each type on each model and version.
        self._last_conclusive: dict[type[CachedEvent], dict[tuple[str, str], EventKey]] = {
            DriftVerdict: {},
            QualityVerdict: {},
            QualityEstimate: {},
        }
        self._service_changes: dict[str, dict[str, ServiceChange]] = {}
        self._lock = threading.Lock()
        self._fresh_at = time.monotonic()

    def add(self, event: Event) -> None:
        """Add an event; events that no page shows are ignored."""
        if isinstance(event, ModelStateChanged):
            self._add_service_change(event)
        if not isinstance(event, CachedEvent):
            return
        data = zlib.compress(event.model_dump_json().encode())
        is_replayed = isinstance(event, DriftVerdict) and event.replayed
        is_conclusive = not isinstance(event, QualityEstimate) and event.verdict != "inconclusive"
        window = JudgedWindow.of(event) if isinstance(event, DriftVerdict) else None
        with self._lock:
            events = self._replayed if is_replayed else self._events[type(event)]
            last_conclusive = {} if is_replayed else self._last_conclusive[type(event)]
            key = EventKey.of(event)
            events[key] = CompressedEvent(event.model, event.version, event.run_id, data, is_conclusive, window)
            if is_conclusive:
                last_conclusive[event.model, event.version] = key
            if len(events) > self.max_events:
                kept = set(last_conclusive.values())
                del events[next((key for key in events if key not in kept), next(iter(events)))]

    def _add_service_change(self, event: ModelStateChanged) -> None:
        if event.version is None or event.state not in ("promoted", "rolled_back"):
            return
        with self._lock:
            changes = self._service_changes.setdefault(event.model, {})
            changes[event.version] = ServiceChange(event.version, event.time, event.state)

    def mark_fresh(self) -> None:
        """Note that the topic has answered now, with or without new events."""
        self._fresh_at = time.monotonic()

    @property
    def age_seconds(self) -> float:
        """How long ago the topic answered last; later events can be missing."""
        return time.monotonic() - self._fresh_at

    def windows_by_version(self) -> dict[tuple[str, str], list[JudgedWindow]]:
        """Return the judged windows of each model and version, in the order of their publication."""
        windows: dict[tuple[str, str], list[JudgedWindow]] = {}
        with self._lock:
            for event in self._events[DriftVerdict].values():
                if event.window is not None:
                    windows.setdefault((event.model, event.version), []).append(event.window)
        return windows

    def service_changes(self) -> dict[str, dict[str, ServiceChange]]:
        """Return by model and version the latest promotion of the version, or rollback to it."""
        with self._lock:
            return {model: dict(changes) for model, changes in self._service_changes.items()}

    def latest(self, kind: type[E], model: str, version: str, count: int, run_id: str | None = None) -> list[E]:
        """Return the latest events of a type on a version, at most ``count``, in the order of their publication.

        With a run, events on a version of the same number and of another run are left out.
        """
        return [_decompress(kind, event) for event in self._events_of(kind, model, version, run_id)[-count:]]

    def latest_conclusive(
        self, kind: type[V], model: str, version: str, count: int, run_id: str | None = None
    ) -> list[V]:
        """Return the latest conclusive verdicts, as :meth:`latest` does."""
        conclusive = [event for event in self._events_of(kind, model, version, run_id) if event.is_conclusive]
        return [_decompress(kind, event) for event in conclusive[-count:]]

    def _events_of(
        self, kind: type[CachedEvent], model: str, version: str, run_id: str | None
    ) -> list[CompressedEvent]:
        with self._lock:
            events = list(self._events[kind].values())
        return [e for e in events if (e.model, e.version) == (model, version) and is_of_run(e, run_id)]

    def find(self, window: str, model_version: str) -> DriftVerdict | None:
        """Return the verdict on a window's rows of a version; arguments are the window's name and model/version.

        Of versions with the same number, and rows in the same slices, it is the one that was judged last.
        """
        with self._lock:
            events = reversed(self._events[DriftVerdict].items())
            event = next((event for key, event in events if key[:2] == (window, model_version)), None)
        return None if event is None else _decompress(DriftVerdict, event)

    def replayed(self, verdict: DriftVerdict) -> DriftVerdict | None:
        """Return the latest verdict that a replay has given to a verdict's rows."""
        with self._lock:
            event = self._replayed.get(EventKey.of(verdict))
        return None if event is None else _decompress(DriftVerdict, event)

    def neighbours(self, verdict: DriftVerdict) -> tuple[str | None, str | None]:
        """Return the names of the version's windows before and after a verdict's window, in order of publication."""
        of = EventKey.of(verdict)
        with self._lock:
            names = [key.window for key in self._events[DriftVerdict] if key[1:] == of[1:]]
        index = names.index(of.window)
        return names[index - 1] if index else None, names[index + 1] if index + 1 < len(names) else None


def _decompress(kind: type[E], event: CompressedEvent) -> E:
    return kind.model_validate_json(zlib.decompress(event.data))


def follow_verdicts(cache: VerdictCache, kafka: KafkaSettings, topic: str, report_progress: Callable[[], None]) -> None:
    """Fill the cache from the topic of verdicts for as long as the broker is available.

    Raises:
        BrokerUnavailable: The connection has failed or has been lost.
    """
    with reader.tail(kafka, topic, last=cache.max_events * OFFSETS_PER_VERDICT) as events:
        for event in events:
            report_progress()
            cache.mark_fresh()
            if event is not None:
                cache.add(event)


def follow_models(cache: VerdictCache, kafka: KafkaSettings, topic: str, report_progress: Callable[[], None]) -> None:
    """Learn from the topic of models which versions are in service, for as long as the broker is available.

    Raises:
        BrokerUnavailable: The connection has failed or has been lost.
    """
    with reader.tail(kafka, topic, last=MAX_MODEL_OFFSETS) as events:
        for event in events:
            report_progress()
            if event is not None:
                cache.add(event)
