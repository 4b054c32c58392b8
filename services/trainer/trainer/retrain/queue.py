"""The life of a retrain event: it waits, is trained for in a child process, and ends in one state on ``models``."""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Protocol

import structlog
from mlflow.exceptions import MlflowException

from driftloop.events import Event, ModelChange, Retrain
from driftloop.kafka.consumer_loop import Final, NotNow, Received
from driftloop.kafka.publisher import Unavailable
from driftloop.registry.model_registry import Registry
from driftloop.telemetry import tracing
from trainer import metrics
from trainer.retrain.subprocess_job import Child, Ended

log = structlog.get_logger(__name__)

TRIES = 3  # of a training whose process is killed from outside: perhaps for its memory, then it would be for ever


@dataclass
class _Training:
    """A child and the events that it runs for, which stand next to one another and ask for the same."""

    child: Child
    asked: Sequence[Received]
    began: float = field(default_factory=time.monotonic)
    phase: str = "start"
    phase_began: float = field(default_factory=time.monotonic)

    @property
    def retrains(self) -> list[Retrain]:
        return [received.event for received in self.asked if isinstance(received.event, Retrain)]

    def enter(self, phase: str) -> None:
        """Another phase has begun."""
        now = time.monotonic()
        metrics.PHASE_SECONDS.labels(self.phase).observe(now - self.phase_began)
        self.phase, self.phase_began = phase, now


class Hears(Protocol):
    """Who is told the states of retrains."""

    def publish(self, event: Event) -> None:
        """Takes one. Raises :class:`~driftloop.kafka.publisher.Unavailable`."""


class Retrains:
    """Takes the retrain events of one model in order, one training at a time.

    Those that wait beside one another and want the same data are trained for once, and each is answered. An event's
    last state is published together with its offset; delivered again, one that brought a version is told again and
    not repeated, and one that a process was killed over is begun again. An id that has ended is not trained for twice.
    """

    def __init__(
        self,
        model: str,
        registry: Registry,
        publisher: Hears,
        ended: Callable[[], Mapping[str, ModelChange]],
        begin: Callable[[Retrain], Child],
    ) -> None:
        """``ended`` reads how earlier retrains ended, by id; ``begin`` starts the training of an event."""
        self._model = model
        self._registry = registry
        self._publisher = publisher
        self._read_ended = ended
        self._begin = begin
        self._ended: dict[str, ModelChange] | None = None
        self._waiting: deque[Received] = deque()
        self._training: _Training | None = None
        self._killed: dict[str, int] = {}

    def handle(self, received: Received) -> Iterable[Final]:
        """Takes one event, which is final when it has ended."""
        self._waiting.append(received)
        return self._next()

    def idle(self) -> Iterable[Final]:
        """Looks at the training under way, and begins the next."""
        return [*self._look(), *self._next()]

    def revoked(self, _: Collection[tuple[str, int]]) -> None:
        """Drops what waits, and ends the training: it is somebody else's now."""
        self.close()
        self._waiting.clear()
        self._ended = None

    def close(self) -> None:
        """Ends the training under way; its event comes again."""
        if self._training is not None:
            self._training.child.kill()
            self._training = None

    def _next(self) -> list[Final]:
        """What needs no training, up to the first event that does, whose training begins."""
        self._known()  # also while nothing waits: the metrics show it
        final: list[Final] = []
        while self._waiting and self._training is None:
            first = self._waiting[0]
            retrain = first.event
            if not isinstance(retrain, Retrain) or retrain.model != self._model:
                final.append(_final([self._waiting.popleft()], []))
            elif retrain.id in self._known():
                log.info("asked for before", retrain=retrain.id, state=self._known()[retrain.id].state)
                final.append(_final([self._waiting.popleft()], []))
            elif (done := self._recorded(retrain)) is not None:
                final.append(self._end([self._waiting.popleft()], done, seconds=0))
            else:
                self._train(retrain)
        return final

    def _train(self, retrain: Retrain) -> None:
        """Begins the training of the first that waits, and of those behind it that ask for the same."""

        def asks_for_the_same(other: Received) -> bool:
            event = other.event
            if not isinstance(event, Retrain) or event.id in self._known():
                return False
            return (event.model, event.data) == (retrain.model, retrain.data)

        asked = list(takewhile(asks_for_the_same, self._waiting))
        for _ in asked:
            self._waiting.popleft()
        self._training = _Training(self._begin(retrain), asked)
        for one in self._training.retrains:
            together = "" if one.id == retrain.id else f", together with retrain {retrain.id}"
            self._publish(_change(one, "training", f"asked for by {one.asked_by}: {one.reason}{together}"))

    def _look(self) -> list[Final]:
        training = self._training
        if training is None:
            return []
        first = training.retrains[0]
        for phase, words in training.child.told():
            training.enter(phase)
            log.info("retrain goes on", retrain=first.id, phase=phase, words=words)
            self._publish(_change(first, "training", words))
        ended = training.child.ended()
        if ended is None:
            return []
        self._training = None
        training.enter("end")
        change = self._outcome(first, ended)
        return [self._end(training.asked, change, seconds=time.monotonic() - training.began)]

    def _outcome(self, retrain: Retrain, ended: Ended) -> ModelChange:
        """The final state that a child's end means. Raises :class:`NotNow` where it is to be begun again."""
        if ended.how == "done":
            return ModelChange.model_validate_json(ended.text)
        if ended.how == "again":
            raise NotNow(ended.text)
        if ended.how == "killed":
            tries = self._killed[retrain.id] = self._killed.get(retrain.id, 0) + 1
            if tries < TRIES:
                raise NotNow(f"the training of retrain {retrain.id} was killed, try {tries} of {TRIES}: {ended.text}")
            return _change(retrain, "failed", f"the training was killed {tries} times: {ended.text}")
        return _change(retrain, "failed", ended.text)

    def _end(self, asked: Sequence[Received], change: ModelChange, *, seconds: float) -> Final:
        """The events' last states, to be published with their offset."""
        with tracing.span(
            change.state, of=[change.traceparent], retrain=change.retrain_id, why=change.why
        ) as traceparent:
            return self._settle(asked, change.model_copy(update={"traceparent": traceparent}), seconds)

    def _settle(self, asked: Sequence[Received], change: ModelChange, seconds: float) -> Final:
        """The alias moves before: where it cannot be moved the event comes again, with its outcome recorded."""
        if change.state == "promoted" and change.version is not None:
            try:
                self._registry.promote(change.version)
            except MlflowException as error:
                raise NotNow(f"the registry is out of reach: {error}") from error
        states = []
        for received in asked:
            retrain = received.event
            assert isinstance(retrain, Retrain)
            together = "" if retrain.id == change.retrain_id else f"together with retrain {change.retrain_id}: "
            states.append(_renamed(change, retrain, f"{together}{change.why}"))
            metrics.RETRAINS.labels(retrain.trigger, change.state).inc()
            self._known()[retrain.id] = states[-1]
        metrics.SECONDS.observe(seconds)
        _show(change)
        log.info("retrain over", retrain=change.retrain_id, state=change.state, version=change.version, why=change.why)
        return _final(asked, states)

    def _recorded(self, retrain: Retrain) -> ModelChange | None:
        """How a retrain ended whose last state was not published any more."""
        try:
            return self._registry.outcome_of(retrain.id)
        except MlflowException as error:
            raise NotNow(f"the registry is out of reach: {error}") from error

    def _known(self) -> dict[str, ModelChange]:
        if self._ended is None:
            self._ended = dict(self._read_ended())
            for change in sorted(self._ended.values(), key=lambda change: change.time):
                _show(change)
        return self._ended

    def _publish(self, change: ModelChange) -> None:
        """Tells how far it is; the end is told in another way, which cannot get lost."""
        try:
            self._publisher.publish(change)
        except Unavailable as error:
            log.warning("not told how far a retrain is", retrain=change.retrain_id, error=str(error))


def _show(change: ModelChange) -> None:
    """The end of the latest retrain, in the metrics; also of one before this process began."""
    if "dataset_rows" in change.challenger:
        metrics.DATASET_ROWS.labels(change.model).set(change.challenger["dataset_rows"])
    for role, figures in (("champion", change.champion), ("challenger", change.challenger)):
        for name, value in figures.items():
            metrics.FIGURES.labels(change.model, role, name).set(value)
    metrics.LAST_RETRAIN.labels(change.model, change.state).set(change.time.timestamp())


def _final(asked: Sequence[Received], states: Sequence[ModelChange]) -> Final:
    last = asked[-1]
    return Final(last.topic, last.partition, last.offset + 1, states)


def _change(retrain: Retrain, state: str, why: str) -> ModelChange:
    about = {"retrain_id": retrain.id, "model": retrain.model, "traceparent": retrain.traceparent}
    return ModelChange.model_validate({**about, "state": state, "version": None, "why": why})


def _renamed(change: ModelChange, retrain: Retrain, why: str) -> ModelChange:
    """The state as another retrain's, as an event of its own."""
    if retrain.id == change.retrain_id:
        return change
    return ModelChange(**{**change.model_dump(exclude={"id"}), "retrain_id": retrain.id, "why": why})
