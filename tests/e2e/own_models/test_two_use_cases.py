"""Two use cases on one stack: each has a predictor and a trainer of its own; broker, registry and bucket are shared."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from driftloop.events import ModelStateChanged, Prediction, RetrainRequested
from driftloop.kafka import reader
from stack.running import Stack
from stack.services import ServedUseCase
from tests.support import regression_usecase
from tests.support.running_stack import FLIGHT, predict
from tests.support.waiting import wait_until

RENTALS = regression_usecase.rentals.name
ROW = {"hour": 8, "temperature": 21.5}


@pytest.fixture(scope="module")
def rentals(stack: Stack) -> ServedUseCase:
    """The second use case: its dataset is published, its services run, and its first version is trained."""
    served = stack.use_case(RENTALS)
    stack.publish_dataset(RENTALS)
    for name, component in served.components.items():
        # It has too few rows for windows as long as those of the flights.
        stack.components[name] = replace(
            component, environment={**component.environment, "DRIFTLOOP_WINDOW__ROWS": "48"}
        )
        stack.start(name)
    result = stack.retrain(
        "the first version", served.use_case.first_version, lambda state: print(state.explanation), RENTALS
    )
    assert result.state == "promoted", result.explanation
    return served


@pytest.mark.usefixtures("version_1")
def test_two_use_cases_serve_and_are_retrained_by_their_own_trainer_only(stack: Stack, rentals: ServedUseCase) -> None:
    def answer() -> Any:
        response = httpx.post(rentals.component("predictor").url + "/predict", json={"instances": [ROW]}, timeout=30)
        return response.json() if response.status_code == 200 else None

    first, second = predict(stack, FLIGHT).json(), wait_until(answer, "the second predictor answers")
    assert (first["model"], second["model"], second["version"]) == ("flights", RENTALS, "1")
    assert rentals.registry.champion() == "1"

    def served_models() -> bool | None:
        events = reader.read_last(stack.kafka, stack.topics.predictions, 10_000)
        models = {event.id: event.model for event in events if isinstance(event, Prediction)}
        return True if (models.get(first["id"]), models.get(second["id"])) == ("flights", RENTALS) else None

    wait_until(served_models, "the events of both predictors are on their topic")

    def both_caught_up() -> bool | None:
        groups = (f"trainer-{name}" for name in ("flights", RENTALS))
        return (
            True if all(reader.is_caught_up(stack.kafka, group, [stack.topics.retrain]) for group in groups) else None
        )

    wait_until(both_caught_up, "both trainers have committed every retrain request")
    requested = [
        event
        for event in reader.read_last(stack.kafka, stack.topics.retrain, 10_000)
        if isinstance(event, RetrainRequested) and event.model in ("flights", RENTALS)
    ]
    assert {event.model for event in requested} == {"flights", RENTALS}
    states = [
        event
        for event in reader.read_last(stack.kafka, stack.topics.models, 10_000)
        if isinstance(event, ModelStateChanged)
    ]
    models = {event.id: event.model for event in requested}
    assert {state.model == models[state.retrain_id] for state in states if state.retrain_id in models} == {True}
    results = Counter(state.retrain_id for state in states if state.state in ("promoted", "rejected", "failed"))
    assert [results[event.id] for event in requested] == [1] * len(requested)
    for served in stack.use_cases:
        other = next(name for name in ("flights", RENTALS) if name != served.name)
        finished = httpx.get(served.component("trainer").url + "/metrics").text
        assert f'model="{served.name}"' in finished
        assert f'model="{other}"' not in finished


def test_second_use_case_has_own_outbox_ports_and_environment_file(stack: Stack, rentals: ServedUseCase) -> None:
    first = stack.use_cases[0]
    assert {served.environment["DRIFTLOOP_PREDICTOR__DATA_DIR"] for served in stack.use_cases} == {
        str(stack.folder / "predictor" / name) for name in ("flights", RENTALS)
    }
    for service in ("predictor", "trainer"):
        assert rentals.component(service).port != first.component(service).port
    file = (stack.folder / rentals.environment_file).read_text()
    assert f"export DRIFTLOOP_REGISTRY__MODEL={RENTALS}\n" in file
    assert f"export DRIFTLOOP_PRODUCER__PREDICTOR_URL={rentals.component('predictor').url}\n" in file
    assert (Path(rentals.environment["DRIFTLOOP_PREDICTOR__DATA_DIR"]) / "outbox.sqlite").exists()
