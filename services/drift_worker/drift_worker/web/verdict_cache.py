"""The latest verdicts and model changes on the topics for the pages.

It makes no difference which worker has published them, or when this one started.
"""

import threading
import time
import zlib
from collections.abc import Callable
from datetime import datetime
from typing import Literal, NamedTuple, TypeVar

from driftloop.events import (
    DriftReason,
    DriftVerdict,
    Event,
    ModelStateChanged,
    QualityEstimate,
    QualityVerdict,
    Window,
)
from driftloop.kafka import reader
from driftloop.settings import KafkaSettings

Verdict = Literal["no_drift", "drift", "inconclusive"]
CachedEvent = DriftVerdict | QualityVerdict | QualityEstimate
OFFSETS_PER_VERDICT = 4  # the verdict, its estimate, a quality verdict, and the markers of their transactions
MAX_MODEL_OFFSETS = 20_000  # a thousand retrains with all of their phases
RECONNECT_DELAY_SECONDS = 5

E = TypeVar("E", DriftVerdict, QualityVerdict, QualityEstimate)


class JudgedWindow(NamedTuple):
    """What the status of a version needs of a verdict; kept uncompressed, since a page needs those of all versions."""

    window: Window
    verdict: Verdict
    reason: DriftReason | None
    explanation: str
    published_at: datetime
    first_prediction_at: datetime
    last_prediction_at: datetime


class CompressedEvent(NamedTuple):
    """A compressed event: a verdict on 16 columns takes 3 KB in place of 100 KB as objects."""

    model: str
    version: str
    data: bytes
    window: JudgedWindow | None = None
    """Of a verdict on drift."""


class ServiceChange(NamedTuple):
    """A version came into service."""

    version: str
    at: datetime
    state: str
    """``promoted`` or ``rolled_back``."""


class VerdictCache:
    """The latest events of the topic of verdicts, up to a limit per type. One thread writes, any thread reads.

    The last verdict of drift or no drift on a version stays, however many windows of others are judged after it.
    """

    def __init__(self, max_events: int) -> None:
        """Start empty; ``max_events`` is the limit per type of event."""
        self.max_events = max_events
        self._events: dict[type[CachedEvent], dict[tuple[str, str], CompressedEvent]] = {
            DriftVerdict: {},
            QualityVerdict: {},
            QualityEstimate: {},
        }
        self._replayed: dict[tuple[str, str], CompressedEvent] = {}
        self._last_conclusive: dict[tuple[str, str], tuple[str, str]] = {}  # by model and version: the verdict's key
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
        with self._lock:
            events = self._replayed if is_replayed else self._events[type(event)]
            events[_key_of(event)] = CompressedEvent(event.model, event.version, data, _judged_window(event))
            if isinstance(event, DriftVerdict) and not is_replayed and event.verdict != "inconclusive":
                self._last_conclusive[event.model, event.version] = _key_of(event)
            if len(events) > self.max_events:
                kept = set() if is_replayed else set(self._last_conclusive.values())
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

    def latest(self, kind: type[E], model: str, version: str, count: int) -> list[E]:
        """Return the latest events of a type on a version, at most ``count``, in the order of their publication."""
        return [_decompress(kind, event) for event in self._events_of(kind, model, version)[-count:]]

    def latest_conclusive(self, model: str, version: str, count: int) -> list[DriftVerdict]:
        """Return the latest verdicts of drift or no drift on a version, in the order of their publication."""
        events = self._events_of(DriftVerdict, model, version)
        conclusive = [event for event in events if event.window and event.window.verdict != "inconclusive"]
        return [_decompress(DriftVerdict, event) for event in conclusive[-count:]]

    def _events_of(self, kind: type[CachedEvent], model: str, version: str) -> list[CompressedEvent]:
        with self._lock:
            return [event for event in self._events[kind].values() if (event.model, event.version) == (model, version)]

    def find(self, window: str, model_version: str) -> DriftVerdict | None:
        """Return the verdict on a window's rows of a version; arguments are the window's name and model/version."""
        with self._lock:
            event = self._events[DriftVerdict].get((window, model_version))
        return None if event is None else _decompress(DriftVerdict, event)

    def replayed(self, verdict: DriftVerdict) -> DriftVerdict | None:
        """Return the latest verdict that a replay has given to a verdict's rows."""
        with self._lock:
            event = self._replayed.get(_key_of(verdict))
        return None if event is None else _decompress(DriftVerdict, event)

    def neighbours(self, verdict: DriftVerdict) -> tuple[str | None, str | None]:
        """Return the names of the version's windows before and after a verdict's window, in order of publication."""
        window, model_version = _key_of(verdict)
        with self._lock:
            names = [name for name, key in self._events[DriftVerdict] if key == model_version]
        index = names.index(window)
        return names[index - 1] if index else None, names[index + 1] if index + 1 < len(names) else None


def _judged_window(event: CachedEvent) -> JudgedWindow | None:
    if not isinstance(event, DriftVerdict):
        return None
    return JudgedWindow(
        event.window,
        event.verdict,
        event.reason,
        event.explanation,
        event.time,
        event.first_prediction_at,
        event.last_prediction_at,
    )


def _key_of(event: CachedEvent) -> tuple[str, str]:
    return event.window.name, f"{event.model}/{event.version}"


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
