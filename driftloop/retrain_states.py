"""Follow the states of one retrain to its end, wherever the events come from."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from driftloop.events import Event, ModelStateChanged, RetrainRequested
from driftloop.retrain_summary import RetrainSummary, summarize_state


def states_until_final(retrain_id: str, events: Iterable[Event | None]) -> Iterator[ModelStateChanged | None]:
    """Yield each state of a retrain once, up to and including the final one.

    A state that comes again with the same event id is left out, so that a source may repeat itself after a broken
    connection. Events of other retrains and other types are ignored.

    Args:
        retrain_id: The id of the event that requested the retrain.
        events: The events of the topic of models; ``None`` while there is no event. It is passed on, so that the
            caller can check a deadline.
    """
    seen_ids: set[str] = set()
    for event in events:
        if event is None:
            yield None
        elif isinstance(event, ModelStateChanged) and event.retrain_id == retrain_id and event.id not in seen_ids:
            seen_ids.add(event.id)
            yield event
            if event.is_final:
                return


def states_or_retrain_before(
    retrain: RetrainRequested,
    events: Iterable[Event | None],
    read_requests: Callable[[], Mapping[str, RetrainRequested]],
) -> Iterator[ModelStateChanged | RetrainSummary | None]:
    """Yield the states of a retrain as :func:`states_until_final` does, and while it waits the retrain before it.

    Before the retrain's first state, the summary of another retrain of the model that is being trained takes the place
    of each ``None``.

    Args:
        retrain: The event that requested the retrain.
        events: The events of the topic of models, some earlier ones too; ``None`` while there is no event.
        read_requests: Returns the requested retrains by their ids; called only while another retrain is trained.
    """
    other: ModelStateChanged | None = None
    requests: Mapping[str, RetrainRequested] = {}

    def watch() -> Iterator[Event | None]:
        nonlocal other
        for event in events:
            if (
                isinstance(event, ModelStateChanged)
                and event.model == retrain.model
                and event.retrain_id != retrain.id
                and event.state != "rolled_back"
            ):
                other = None if event.is_final else event
            yield event

    waits = True
    for state in states_until_final(retrain.id, watch()):
        waits = waits and state is None
        if waits and other is not None:
            if other.retrain_id not in requests:
                requests = read_requests()
            yield summarize_state(other, requests)
        else:
            yield state
