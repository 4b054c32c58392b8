"""Follow the states of one retrain to its end, wherever the events come from."""

from collections.abc import Iterable, Iterator

from driftloop.events import Event, ModelStateChanged


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
