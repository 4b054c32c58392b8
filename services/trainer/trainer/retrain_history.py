"""What the topics say about retrains, versions and verdicts. Each call reads them with a Kafka client of its own."""

from collections.abc import Iterable, Iterator

from driftloop.events import Event, ModelStateChanged, RetrainRequested
from driftloop.kafka import reader
from driftloop.retrain_states import states_until_final
from driftloop.retrain_summary import RetrainSummary, summarize_retrains
from driftloop.settings import KafkaSettings, TopicsSettings

MAX_RECENT_OFFSETS = 5_000  # of the topic of models: hundreds of retrains, with all their progress
MAX_OFFSETS = 10**6  # practically all: there are few retrains and model states, and the broker keeps them
MAX_VERDICT_OFFSETS = 5_000  # of the topic of verdicts: more than a version's latest windows, which the policy needs


class RetrainHistory:
    """The past of retrains. All methods raise :class:`driftloop.errors.BrokerUnavailable` if Kafka does not answer."""

    def __init__(self, kafka: KafkaSettings, topics: TopicsSettings) -> None:
        """Remember how to reach the topics; nothing is read yet."""
        self._kafka = kafka
        self._topics = topics

    def states(self, retrain_id: str) -> list[ModelStateChanged] | None:
        """Return a retrain's states so far: an empty list while it waits, None if it was never requested."""
        recent = reader.read_last(self._kafka, self._topics.models, MAX_RECENT_OFFSETS)
        states = [event for event in recent if isinstance(event, ModelStateChanged) and event.retrain_id == retrain_id]
        if states:
            return states
        requested = reader.read_last(self._kafka, self._topics.retrain, MAX_OFFSETS)
        return [] if any(event.id == retrain_id for event in requested) else None

    def request(self, retrain_id: str) -> RetrainRequested | None:
        """Return the event that requested a retrain, the first one if it was published again."""
        requested = reader.read_last(self._kafka, self._topics.retrain, MAX_OFFSETS)
        return next((e for e in requested if isinstance(e, RetrainRequested) and e.id == retrain_id), None)

    def stream(self, retrain_id: str) -> Iterator[ModelStateChanged | None]:
        """Yield a retrain's states, past and future, up to the final one; None for each second without an event."""
        with reader.tail(self._kafka, self._topics.models, last=MAX_RECENT_OFFSETS) as events:
            yield from states_until_final(retrain_id, events)

    def summaries(self, model: str, count: int) -> list[RetrainSummary]:
        """Return the last retrains and rollbacks of a model, the latest state last."""
        requested = reader.read_last(self._kafka, self._topics.retrain, MAX_RECENT_OFFSETS)
        states = reader.read_last(self._kafka, self._topics.models, MAX_RECENT_OFFSETS)
        return summarize_retrains([*requested, *states], model, count)

    def final_states(self) -> dict[str, ModelStateChanged]:
        """Return the final state of each finished retrain, by the retrain's id."""
        return {
            event.retrain_id: event
            for event in self.model_events()
            if isinstance(event, ModelStateChanged) and event.is_final and event.state != "rolled_back"
        }

    def model_events(self) -> list[Event]:
        """Return the events of the topic of models."""
        return reader.read_last(self._kafka, self._topics.models, MAX_OFFSETS)

    def policy_events(self) -> Iterable[Event]:
        """Yield the events that the policy decides from.

        Requested retrains come first, so that the final state of each one that is read is read as well.
        """
        yield from reader.read_last(self._kafka, self._topics.retrain, MAX_OFFSETS)
        yield from self.model_events()
        yield from reader.read_last(self._kafka, self._topics.drift, MAX_VERDICT_OFFSETS)
