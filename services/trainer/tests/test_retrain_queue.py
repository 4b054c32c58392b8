"""The life of retrain events: in order, one training at a time, one final state each, whatever is killed."""

from collections.abc import Callable
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from driftloop.events import DataSelection, Event, ModelChange, Retrain
from driftloop.kafka.consumer_loop import Final, NotNow, Received
from trainer.retrain.queue import TRIES, Retrains
from trainer.retrain.subprocess_job import Ended, Told

MODEL = "m"


class Work:
    """A child that ends when it is told to."""

    def __init__(self, retrain: Retrain) -> None:
        self.retrain = retrain
        self.says: list[Told] = []
        self.end: Ended | None = None
        self.was_killed = False

    def told(self) -> list[Told]:
        says, self.says = self.says, []
        return says

    def ended(self) -> Ended | None:
        return self.end

    def kill(self) -> None:
        self.was_killed = True

    def ends(self, state: str, version: str | None = None) -> None:
        """With a final state."""
        change = changed(self.retrain.id, state, version)
        self.end = Ended("done", change.model_dump_json())


class Versions:
    """A registry that remembers what was promoted."""

    def __init__(self) -> None:
        self.recorded: dict[str, ModelChange] = {}
        self.promoted: list[str] = []
        self.away = False

    def outcome_of(self, retrain_id: str) -> ModelChange | None:
        return self.recorded.get(retrain_id)

    def promote(self, version: str) -> None:
        if self.away:
            raise MlflowException("away")
        self.promoted.append(version)


class Hears:
    """A publisher whose events stay here."""

    def __init__(self) -> None:
        self.heard: list[Event] = []

    def publish(self, event: Event) -> None:
        self.heard.append(event)


class World:
    """What a trainer finds: registry, topic and children; it outlives a trainer that is killed."""

    def __init__(self) -> None:
        self.versions, self.hears = Versions(), Hears()
        self.children: list[Work] = []
        self.ended: dict[str, ModelChange] = {}
        self.trainer = self.new()

    def new(self) -> Retrains:
        """Another trainer."""

        def begin(retrain: Retrain) -> Any:
            self.children.append(Work(retrain))
            return self.children[-1]

        self.trainer = Retrains(MODEL, self.versions, self.hears, lambda: self.ended, begin)  # type: ignore[arg-type]
        return self.trainer

    def deliver(self, *events: Event, first: int = 0) -> list[Final]:
        """The events one after the other, from an offset on."""
        return [
            final
            for offset, event in enumerate(events, first)
            for final in self.trainer.handle(Received("retrain", 0, offset, event, offset))
        ]

    def idle(self) -> list[Final]:
        """What a look brings."""
        return list(self.trainer.idle())


def changed(retrain_id: str, state: str, version: str | None = None) -> ModelChange:
    return ModelChange.model_validate(
        {"retrain_id": retrain_id, "model": MODEL, "state": state, "version": version, "why": "so"}
    )


def asked(name: str, *, model: str = MODEL, last_day: str | None = None) -> Retrain:
    data = DataSelection.model_validate({"end": last_day})
    return Retrain(id=name, model=model, trigger="manual", reason="why not", asked_by="me", data=data)


def states(finals: list[Final]) -> list[tuple[str, str]]:
    """The final states that are published, by retrain."""
    return [(event.retrain_id, event.state) for final in finals for event in final.events]  # type: ignore[attr-defined]


@pytest.fixture
def world() -> World:
    return World()


def test_an_event_is_final_when_its_training_has_ended(world: World) -> None:
    assert world.deliver(asked("a")) == []
    assert world.idle() == []
    world.children[0].ends("promoted", "2")
    (final,) = world.idle()
    assert (final.offset, states([final]), world.versions.promoted) == (1, [("a", "promoted")], ["2"])


def test_what_it_is_at_is_told_on_the_way(world: World) -> None:
    world.deliver(asked("a"))
    world.children[0].says.append(Told("training", "on 9 rows"))
    world.idle()
    assert [event.why for event in world.hears.heard if isinstance(event, ModelChange)] == [
        "asked for by me: why not",
        "on 9 rows",
    ]


def test_one_training_runs_at_a_time_and_those_that_wait_for_the_same_are_trained_for_once(world: World) -> None:
    assert world.deliver(asked("a"), asked("b"), asked("c"), asked("d", last_day="2013-07-01")) == []
    assert len(world.children) == 1
    world.children[0].ends("promoted", "2")
    assert states(world.idle()) == [("a", "promoted")]
    assert [child.retrain.id for child in world.children] == ["a", "b"]
    world.children[1].ends("rejected", "3")
    (final,) = world.idle()
    assert (final.offset, states([final])) == (3, [("b", "rejected"), ("c", "rejected")])
    assert "together with retrain b" in final.events[1].why  # type: ignore[attr-defined]
    assert world.children[2].retrain.id == "d"


def test_the_same_id_twice_is_one_training(world: World) -> None:
    world.deliver(asked("a"), asked("a"))
    world.children[0].ends("failed")
    first, second = world.idle()
    assert (states([first]), states([second]), second.offset) == ([("a", "failed")], [], 2)
    assert len(world.children) == 1
    world.ended["b"] = changed("b", "failed")  # by an earlier trainer
    world.new()
    (final,) = world.deliver(asked("b"))
    assert (states([final]), len(world.children)) == ([], 1)


def test_other_models_and_unreadable_messages_pass_in_their_order(world: World) -> None:
    (final,) = world.deliver(asked("x", model="another"))
    assert (final.offset, final.events) == (1, [])
    world.deliver(asked("a"), first=1)
    assert list(world.trainer.handle(Received("retrain", 0, 2, None, 2))) == []
    world.children[0].ends("promoted", "2")
    assert [final.offset for final in world.idle()] == [2, 3]


def killed_at_once(world: World) -> None:
    """The trainer is killed while the child runs."""


def killed_after_the_outcome_was_recorded(world: World) -> None:
    """The child has ended, and nobody has looked."""
    world.versions.recorded["a"] = changed("a", "promoted", "2")
    world.children[0].ends("promoted", "2")


def killed_after_the_alias_moved(world: World) -> None:
    """The state was not published any more."""
    killed_after_the_outcome_was_recorded(world)
    world.idle()


@pytest.mark.parametrize(
    ("moment", "trainings"),
    [(killed_at_once, 2), (killed_after_the_outcome_was_recorded, 1), (killed_after_the_alias_moved, 1)],
)
def test_a_killed_trainers_event_ends_once_under_the_next(
    world: World, moment: Callable[[World], None], trainings: int
) -> None:
    world.deliver(asked("a"))
    moment(world)
    world.new()
    finals = world.deliver(asked("a"))
    if trainings == 2:
        world.children[1].ends("promoted", "2")
        finals += world.idle()
    assert states(finals) == [("a", "promoted")]
    assert world.versions.promoted[-1] == "2"
    assert len(world.children) == trainings


def test_what_is_away_is_waited_for(world: World) -> None:
    world.deliver(asked("a"))
    world.children[0].end = Ended("again", "the bucket is away")
    with pytest.raises(NotNow, match="the bucket is away"):
        world.idle()
    world.trainer.revoked([("retrain", 0)])  # as the loop does before it begins anew
    world.deliver(asked("a"))
    world.children[1].ends("promoted", "2")
    world.versions.away = True
    with pytest.raises(NotNow, match="registry"):
        world.idle()


def test_a_training_that_is_killed_again_and_again_fails(world: World) -> None:
    for _ in range(TRIES - 1):
        world.deliver(asked("a"))
        world.children[-1].end = Ended("killed", "its process ended with code -9")
        with pytest.raises(NotNow):
            world.idle()
        world.trainer.revoked([("retrain", 0)])
    world.deliver(asked("a"))
    world.children[-1].end = Ended("killed", "its process ended with code -9")
    assert states(world.idle()) == [("a", "failed")]


def test_partitions_that_move_end_the_training(world: World) -> None:
    world.deliver(asked("a"))
    world.trainer.revoked([("retrain", 0)])
    assert world.children[0].was_killed
    assert world.idle() == []
