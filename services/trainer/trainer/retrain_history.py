"""What has become of a retrain, from the topics."""

from collections.abc import Iterator

from driftloop.events import ModelChange
from driftloop.kafka import topics
from driftloop.settings import Kafka, Topics

LATEST = 5_000  # offsets of the topic of models that are looked at: hundreds of retrains, with all that they told
ALL = 10**6


class States:
    """The states of retrains. Each call reads the topics anew, with a client of its own."""

    def __init__(self, kafka: Kafka, names: Topics) -> None:
        """Reads nothing yet."""
        self._kafka = kafka
        self._names = names

    def of(self, retrain_id: str) -> list[ModelChange] | None:
        """Its states so far, none while it waits; ``None`` where nobody has asked for it."""
        told = topics.latest(self._kafka, self._names.models, LATEST)
        states = [event for event in told if isinstance(event, ModelChange) and event.retrain_id == retrain_id]
        if states:
            return states
        asked = topics.latest(self._kafka, self._names.retrain, ALL)
        return [] if any(event.id == retrain_id for event in asked) else None

    def follow(self, retrain_id: str) -> Iterator[ModelChange | None]:
        """Its states so far and those to come, up to its end; ``None`` each second without one."""
        with topics.following(self._kafka, self._names.models, last=LATEST) as changes:
            for change in changes:
                if change is None:
                    yield None
                elif isinstance(change, ModelChange) and change.retrain_id == retrain_id:
                    yield change
                    if change.final:
                        return
