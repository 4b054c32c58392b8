"""The policy at work: it hears what the topics say, and what it decides is published with the offset that decided it.

Its state is read from the topics whenever it begins, or begins anew: nothing else remembers. An event that comes again
changes nothing, and a retrain that was published stands on its topic, so each decision is taken once, whatever is
killed between two steps.
"""

from collections.abc import Callable, Collection, Iterable
from datetime import date, datetime
from zoneinfo import ZoneInfo

import structlog
from kafka.errors import KafkaError

from driftloop.events import Drift, Event, ModelChange, Quality
from driftloop.kafka import topics
from driftloop.kafka.consumer_loop import Final, NotNow, Received
from driftloop.settings import Kafka, Topics
from driftloop.usecase import UseCase
from trainer import metrics
from trainer.policy.policy import Decision, State, decide
from trainer.settings import Policy

log = structlog.get_logger(__name__)

ALL = 10**6  # what was asked for and what became of it is little, and the broker keeps it
VERDICTS = 5_000  # offsets of the topic of verdicts that the last windows of a version lie among


class Policing:
    """Decides at each verdict and each change of the model.

    It makes the topics of verdicts and of models final. Of a retrain it takes notice only: its offset is for whoever
    trains.
    """

    def __init__(
        self,
        use_case: UseCase,
        policy: Policy,
        held_out_days: int,
        names: Topics,
        said: Callable[[], Iterable[Event]],
    ) -> None:
        """``said`` reads what stands on the topics, up to now; see :func:`read`."""
        self._use_case = use_case
        self._policy = policy
        self._held_out_days = held_out_days
        self._names = names
        self._said = said
        self._state: State | None = None
        self._warned: set[str] = set()

    def handle(self, received: Received) -> Iterable[Final]:
        """Takes one event, which is final with the retrain that it decides for, if it does."""
        state = self._known()
        event = received.event
        if event is not None:
            state.add(event)
        if received.topic == self._names.retrain:
            return []
        final = Final(received.topic, received.partition, received.offset + 1)
        if not isinstance(event, Drift | Quality | ModelChange) or event.model != state.model:
            return [final]
        decision = decide(state, self._policy, self._held_out_days, self._day)
        self._tell(state, decision)
        if decision.retrain is None:
            return [final]
        state.add(decision.retrain)
        return [final._replace(events=[decision.retrain])]

    def idle(self) -> Iterable[Final]:
        """Nothing waits."""
        return []

    def revoked(self, _: Collection[tuple[str, int]]) -> None:
        """Forgets everything, also what it has decided and was not published: it is read again."""
        self._state = None

    def _day(self, at: datetime) -> date:
        return at.astimezone(ZoneInfo(self._use_case.timezone)).date()

    def _known(self) -> State:
        if self._state is None:
            state = State(self._use_case.name)
            try:
                for event in self._said():
                    state.add(event)
            except KafkaError as error:
                raise NotNow(f"the topics cannot be read: {error}") from error
            self._state = state
        return self._state

    def _tell(self, state: State, decision: Decision) -> None:
        model, serving = state.model, state.in_service
        metrics.POLICY.labels(model, decision.what).inc()
        metrics.LACKING_DAYS.labels(model).set(decision.lacking_days)
        version = serving.version if serving is not None and serving.version is not None else ""
        if decision.retrain is not None:
            log.info("retrain asked for", retrain=decision.retrain.id, version=version, why=decision.why)
        elif decision.what == "too few outcomes" and version not in self._warned:
            self._warned.add(version)
            log.warning("a retrain could not help", version=version, why=decision.why)


def read(kafka: Kafka, names: Topics) -> Iterable[Event]:
    """What the policy's state is made of. Retrains come first: the end of one that is read here is read here too."""
    yield from topics.latest(kafka, names.retrain, ALL)
    yield from topics.latest(kafka, names.models, ALL)
    yield from topics.latest(kafka, names.drift, VERDICTS)
