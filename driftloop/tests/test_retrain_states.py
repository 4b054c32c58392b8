"""Following one retrain among the events of the topic of models."""

from collections.abc import Sequence

import pytest

from driftloop.events import Event, ModelStateChanged, Outcome, RetrainRequested
from driftloop.retrain_states import states_or_retrain_before, states_until_final
from driftloop.retrain_summary import RetrainSummary


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


REQUESTED = RetrainRequested(id="a", model="m", trigger="manual", reason="test", requested_by="root")
POLICY = RetrainRequested(id="b", model="m", trigger="drift", reason="test", requested_by="policy")


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param([state("training", "b"), None], [("b", "training", "policy")], id="being trained"),
        pytest.param([state("training", "b"), state("rejected", "b"), None], [None], id="has ended"),
        pytest.param(
            [state("training", "b"), state("rolled_back", "c"), None], [("b", "training", "policy")], id="rollback"
        ),
        pytest.param([state("training", "c"), None], [("c", "training", None)], id="unknown origin"),
        pytest.param(
            [state("training", "b").model_copy(update={"model": "other"}), None], [None], id="of another model"
        ),
        pytest.param([state("training"), state("training", "b"), None], ["training", None], id="own has begun"),
    ],
)
def test_waiting_retrain_is_preceded_by_another_one(events: list[Event | None], expected: list[object]) -> None:
    found = states_or_retrain_before(REQUESTED, events, lambda: {POLICY.id: POLICY})
    assert [
        (item.retrain_id, item.state, item.requested_by) if isinstance(item, RetrainSummary) else item and item.state
        for item in found
    ] == expected
