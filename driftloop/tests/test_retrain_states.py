"""Following one retrain among the events of the topic of models."""

from collections.abc import Sequence

from driftloop.events import Event, ModelStateChanged, Outcome
from driftloop.retrain_states import states_until_final


def state(name: str, retrain_id: str = "a", event_id: str | None = None) -> ModelStateChanged:
    return ModelStateChanged.model_validate(
        {"id": event_id or f"{retrain_id}/{name}", "retrain_id": retrain_id, "model": "m", "state": name}
        | {"explanation": "test"}
    )


def names(events: Sequence[Event | None]) -> list[str | None]:
    return [found.state if found else None for found in states_until_final("a", events)]


def test_states_until_final_ignores_other_retrains_and_events() -> None:
    other = Outcome(prediction_id="p", index=0, outcome=1)
    events = [state("failed", "b"), other, state("training"), state("promoted"), state("rolled_back")]
    assert names(events) == ["training", "promoted"]


def test_states_until_final_passes_on_silence() -> None:
    assert names([None, state("training"), None, state("failed"), None]) == [None, "training", None, "failed"]


def test_states_until_final_yields_repeated_events_once() -> None:
    first, second = state("training", event_id="1"), state("training", event_id="2")
    assert names([first, None, first, second, state("rejected")]) == ["training", None, "training", "rejected"]


def test_states_until_final_ends_with_its_source() -> None:
    assert names([state("training")]) == ["training"]
