"""The queue of retrains: each event waits, runs in a subprocess, and ends with one final state on ``models``."""

import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Protocol

import structlog

from driftloop.errors import BrokerUnavailable, RegistryRefused, RegistryUnavailable, Rejected
from driftloop.events import ModelStateChanged, RetrainRequested
from driftloop.kafka.consumed_message import ConsumedMessage
from driftloop.kafka.message_handler import Commit, RetryLater
from driftloop.registry.model_registry import AliasChanging, ModelRegistry
from driftloop.telemetry import tracing
from trainer import metrics
from trainer.event_publisher import EventPublisher
from trainer.retrain.subprocess_job import JobResult, SubprocessJob

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 3  # of a training whose process is killed, perhaps for its memory: it would be killed each time


@dataclass
class _RunningTraining:
    """A subprocess and the events that it runs for: neighbours in the queue that request the same data."""

    job: SubprocessJob
    messages: Sequence[ConsumedMessage]
    started: float = field(default_factory=time.monotonic)
    phase: str = "start"
    phase_started: float = field(default_factory=time.monotonic)

    @property
    def retrains(self) -> list[RetrainRequested]:
        """The events, in their order."""
        return [message.event for message in self.messages if isinstance(message.event, RetrainRequested)]

    def enter(self, phase: str) -> None:
        """Record the duration of the phase before, and begin ``phase``."""
        now = time.monotonic()
        metrics.PHASE_DURATION.labels(self.phase).observe(now - self.phase_started)
        self.phase, self.phase_started = phase, now


class FinalStateReader(Protocol):
    """Reads how earlier retrains ended."""

    def final_states(self) -> Mapping[str, ModelStateChanged]:
        """Return the final state of each finished retrain, by the retrain's id.

        Raises:
            BrokerUnavailable: The states cannot be read now.
        """


class RetrainStarter(Protocol):
    """Starts trainings."""

    def start_retrain(self, retrain: RetrainRequested) -> SubprocessJob:
        """Start the training of an event in a subprocess."""


class RetrainQueue:
    """The retrain events of one model: handled in order, one training at a time.

    Waiting neighbours that request the same data share one training, and each gets its own final state. The final
    state is published in the transaction that commits the event's offset. An event that is delivered again is not
    trained again if its version is in the registry: only its state is published. A training that was killed with its
    process starts again. An id whose retrain has finished is skipped, so an event that was published several times has
    one final state.
    """

    def __init__(
        self,
        model: str,
        registry: ModelRegistry,
        publisher: EventPublisher,
        history: FinalStateReader,
        starter: RetrainStarter,
    ) -> None:
        """Create an empty queue.

        Args:
            model: The registered model; events of other models are skipped.
            registry: Where results are recorded and the alias moves.
            publisher: Receives the states on the way to the final one.
            history: Reads how earlier retrains ended.
            starter: Starts trainings.
        """
        self._model = model
        self._registry = registry
        self._publisher = publisher
        self._history = history
        self._starter = starter
        self._final_states: dict[str, ModelStateChanged] | None = None
        self._waiting: deque[ConsumedMessage] = deque()
        self._training: _RunningTraining | None = None
        self._kills: dict[str, int] = {}

    def handle(self, message: ConsumedMessage) -> Iterable[Commit]:
        """Add one message to the queue. It is committed when its retrain has finished."""
        self._waiting.append(message)
        return self._drain()

    def on_poll(self) -> Iterable[Commit]:
        """Check the running training, and start the next."""
        finished = self._poll_running()
        try:
            return [*finished, *self._drain()]
        except RetryLater:
            if not finished:
                raise
            return finished  # a training that has ended must be committed; the next poll tries the others again

    def on_revoked(self, _: Collection[tuple[str, int]]) -> None:
        """Drop the queue and kill the training: another trainer may own the partition now."""
        self.close()
        self._waiting.clear()
        self._final_states = None

    def close(self) -> None:
        """Kill the running training; its events will be delivered again."""
        if self._training is not None:
            self._training.job.kill()
            self._training = None

    def _drain(self) -> list[Commit]:
        """Commit messages that need no training, up to the first that does, and start its training."""
        self._finished()  # also while nothing waits: it sets the metrics of earlier retrains
        commits: list[Commit] = []
        while self._waiting and self._training is None:
            first = self._waiting[0]
            retrain = first.event
            if not isinstance(retrain, RetrainRequested) or retrain.model != self._model:
                commits.append(_commit([self._waiting.popleft()], []))
            elif retrain.id in self._finished():
                state = self._finished()[retrain.id].state
                log.info("retrain.already_finished", retrain_id=retrain.id, state=state)
                commits.append(_commit([self._waiting.popleft()], []))
            elif (result := self._recorded_result(retrain)) is not None:
                commits.append(self._finish([self._waiting.popleft()], result, seconds=0))
            else:
                self._start_training(retrain)
        return commits

    def _start_training(self, retrain: RetrainRequested) -> None:
        """Start a training for the first waiting event and its neighbours that request the same data."""

        def requests_same_data(message: ConsumedMessage) -> bool:
            event = message.event
            if not isinstance(event, RetrainRequested) or event.id in self._finished():
                return False
            return (event.model, event.data) == (retrain.model, retrain.data)

        messages = list(takewhile(requests_same_data, self._waiting))
        for _ in messages:
            self._waiting.popleft()
        self._training = _RunningTraining(self._starter.start_retrain(retrain), messages)
        for requested in {requested.id: requested for requested in self._training.retrains}.values():
            note = "" if requested.id == retrain.id else f", together with retrain {retrain.id}"
            explanation = f"requested by {requested.requested_by}: {requested.reason}{note}"
            self._publish(_state(requested, "training", explanation))

    def _poll_running(self) -> list[Commit]:
        training = self._training
        if training is None:
            return []
        first = training.retrains[0]
        for phase, message in training.job.progress():
            training.enter(phase)
            log.info("retrain.phase_started", retrain_id=first.id, phase=phase, details=message)
            self._publish(_state(first, "training", message))
        job_result = training.job.poll()
        if job_result is None:
            return []
        self._training = None
        training.enter("end")
        state = self._final_state(first, job_result)
        return [self._finish(training.messages, state, seconds=time.monotonic() - training.started)]

    def _final_state(self, retrain: RetrainRequested, job_result: JobResult) -> ModelStateChanged:
        """Translate a job's result into the retrain's final state.

        Raises:
            RetryLater: The training has to start again.
        """
        if job_result.status == "done":
            return ModelStateChanged.model_validate_json(job_result.payload)
        if job_result.status == "retry":
            raise RetryLater(job_result.payload)
        if job_result.status == "killed":
            attempt = self._kills[retrain.id] = self._kills.get(retrain.id, 0) + 1
            if attempt < MAX_ATTEMPTS:
                raise RetryLater(
                    f"the training of retrain {retrain.id} was killed, attempt {attempt} of {MAX_ATTEMPTS}: "
                    f"{job_result.payload}"
                )
            return _state(retrain, "failed", f"the training was killed {attempt} times: {job_result.payload}")
        return _state(retrain, "failed", job_result.payload)

    def _finish(self, messages: Sequence[ConsumedMessage], state: ModelStateChanged, *, seconds: float) -> Commit:
        """Return the commit that publishes the events' final states."""
        with tracing.span(
            state.state, parents=[state.traceparent], retrain_id=state.retrain_id, explanation=state.explanation
        ) as traceparent:
            traced = state.model_copy(update={"traceparent": traceparent})
            return self._promote_and_record(messages, traced, seconds)

    def _promote_and_record(
        self, messages: Sequence[ConsumedMessage], state: ModelStateChanged, seconds: float
    ) -> Commit:
        """Move the alias before the state is published.

        If the alias cannot be moved, the event is delivered again, and the registry still has the recorded result.
        """
        if state.state == "promoted" and state.version is not None:
            try:
                state = self._promote(state, state.version)
            except RegistryUnavailable as error:
                raise RetryLater(f"the registry is unavailable: {error}") from error
            except RegistryRefused as error:
                state = _not_promoted(state, error)
        states = []
        for message in messages:
            retrain = message.event
            if not isinstance(retrain, RetrainRequested) or retrain.id in self._finished():
                continue
            note = "" if retrain.id == state.retrain_id else f"together with retrain {state.retrain_id}: "
            states.append(_copy_for(state, retrain, f"{note}{state.explanation}"))
            metrics.RETRAINS.labels(retrain.trigger, state.state).inc()
            self._finished()[retrain.id] = states[-1]
        metrics.RETRAIN_DURATION.observe(seconds)
        _update_metrics(state)
        log.info(
            "retrain.finished",
            retrain_id=state.retrain_id,
            state=state.state,
            version=state.version,
            explanation=state.explanation,
        )
        return _commit(messages, states)

    def _promote(self, state: ModelStateChanged, version: str) -> ModelStateChanged:
        """Move the alias; return the state, or the one that the retrain has if its version may not be promoted."""
        try:
            self._registry.promote_challenger(version)
        except AliasChanging as error:
            state = _not_promoted(state, error)
            self._registry.record_result(version, state)  # final, also if the event is delivered again
        return state

    def _recorded_result(self, retrain: RetrainRequested) -> ModelStateChanged | None:
        """Return the result of a retrain whose process died before it published the final state.

        If the registry refuses to say, the retrain has failed: it would refuse for ever, and others wait.
        """
        try:
            return self._registry.recorded_result(retrain.id)
        except RegistryUnavailable as error:
            raise RetryLater(f"the registry is unavailable: {error}") from error
        except RegistryRefused as error:
            return _state(retrain, "failed", str(error))

    def _finished(self) -> dict[str, ModelStateChanged]:
        if self._final_states is None:
            try:
                states = self._history.final_states()
            except BrokerUnavailable as error:
                raise RetryLater(f"final states of earlier retrains cannot be read: {error}") from error
            self._final_states = {key: state for key, state in states.items() if state.model == self._model}
            for state in sorted(self._final_states.values(), key=lambda state: state.time):
                _update_metrics(state)
        return self._final_states

    def _publish(self, state: ModelStateChanged) -> None:
        """Publish progress, which may get lost; a final state is published with its commit, and cannot."""
        try:
            self._publisher.publish(state)
        except BrokerUnavailable as error:
            log.warning("retrain.progress_not_published", retrain_id=state.retrain_id, error=str(error))


def _update_metrics(state: ModelStateChanged) -> None:
    """Show a final state as the latest one, also if it is from before this process started."""
    if "dataset_rows" in state.challenger:
        metrics.DATASET_ROWS.labels(state.model).set(state.challenger["dataset_rows"])
    for role, values in (("champion", state.champion), ("challenger", state.challenger)):
        for name, value in values.items():
            metrics.GATE_METRICS.labels(state.model, role, name).set(value)
    metrics.LAST_RETRAIN.labels(state.model, state.state).set(state.time.timestamp())


def _commit(messages: Sequence[ConsumedMessage], states: Sequence[ModelStateChanged]) -> Commit:
    last = messages[-1]
    return Commit(last.topic, last.partition, last.offset + 1, states)


def _state(retrain: RetrainRequested, state: str, explanation: str) -> ModelStateChanged:
    origin = {"retrain_id": retrain.id, "model": retrain.model, "traceparent": retrain.traceparent}
    return ModelStateChanged.model_validate({**origin, "state": state, "version": None, "explanation": explanation})


def _not_promoted(state: ModelStateChanged, error: Rejected) -> ModelStateChanged:
    return state.model_copy(update={"state": "failed", "explanation": f"not promoted: {error}"})


def _copy_for(state: ModelStateChanged, retrain: RetrainRequested, explanation: str) -> ModelStateChanged:
    """Return a final state as another retrain's event, with an id of its own."""
    if retrain.id == state.retrain_id:
        return state
    return ModelStateChanged(
        **{**state.model_dump(exclude={"id"}), "retrain_id": retrain.id, "explanation": explanation}
    )
