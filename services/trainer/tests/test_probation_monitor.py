"""When a version on probation is judged, and what comes of it."""

from datetime import UTC, datetime
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from driftloop.events import ModelChange, Quality, Window
from trainer.probation.probation import Verdict
from trainer.probation.probation_monitor import OnProbation
from trainer.retrain.subprocess_job import Ended


class Judges:
    """A child that ends when it is told to."""

    def __init__(self) -> None:
        self.end: Ended | None = None

    def told(self) -> list[Any]:
        return []

    def ended(self) -> Ended | None:
        return self.end

    def kill(self) -> None:
        self.end = None


class World:
    """A trainer's probation, and what comes of it."""

    def __init__(self) -> None:
        self.children: list[Judges] = []
        self.said: list[ModelChange] = []
        self.untold: list[ModelChange] = []
        self.away: Exception | None = None
        begin: Any = self._begin
        self.probation = OnProbation("m", begin, self._end, self.said.append, self._untold)

    def _begin(self) -> Judges:
        self.children.append(Judges())
        return self.children[-1]

    def _end(self, verdict: Verdict) -> ModelChange | None:
        if verdict.what != "goes":
            return None
        return ModelChange(retrain_id="r", model="m", version=verdict.previous, state="rolled_back", why=verdict.why)

    def _untold(self) -> list[ModelChange]:
        if self.away is not None:
            raise self.away
        return self.untold

    def outcomes(self, version: str, model: str = "m") -> None:
        """Some have come."""
        at = datetime(2013, 7, 1, tzinfo=UTC)
        window = Window(topic="outcomes", partition=0, first_offset=0, last_offset=9)
        self.probation.hear(
            Quality(
                **{"window": window, "windows": 1, "model": model, "version": version, "rows": 9, "unmatched": 0},
                **{"starts": at, "ends": at, "verdict": "unjudged", "why": ""},
            )
        )
        self.probation.look()

    def found(self, what: str) -> None:
        """The judgement under way ends."""
        verdict = {"what": what, "why": "so", "version": "2", "previous": "1"}
        self.children[-1].end = Ended("done", Verdict.model_validate(verdict).model_dump_json())
        self.probation.look()


@pytest.fixture
def world() -> World:
    return World()


def test_each_time_outcomes_come_a_version_is_judged_until_it_stays(world: World) -> None:
    for number, what in enumerate(("waits", "stays"), 1):
        world.outcomes("2")
        world.probation.look()  # one at a time
        assert len(world.children) == number
        world.found(what)
    world.outcomes("2")
    assert (len(world.children), world.said) == (2, [])


def test_a_version_that_has_to_go_goes_and_it_is_said(world: World) -> None:
    world.outcomes("2")
    world.found("goes")
    assert [(change.version, change.state) for change in world.said] == [("1", "rolled_back")]


def test_a_judgement_that_failed_is_made_again_with_the_next_outcomes(world: World) -> None:
    world.outcomes("2")
    world.children[-1].end = Ended("again", "the bucket is away")
    world.probation.look()
    world.outcomes("2")
    assert len(world.children) == 2


def test_outcomes_of_another_model_are_none_of_its_business(world: World) -> None:
    world.outcomes("2", model="another")
    assert world.children == []


def test_a_way_back_that_was_never_told_is_told_once_when_registry_and_broker_answer(world: World) -> None:
    way_back = ModelChange(retrain_id="r", model="m", version="1", state="rolled_back", why="killed before it was told")
    world.untold, world.away = [way_back], MlflowException("away")
    world.probation.look()
    assert world.said == []
    world.away = None
    world.probation.look()
    world.probation.look()
    assert world.said == [way_back]
