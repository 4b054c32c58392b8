"""Which version an alias names, through promotions and back, in a registry of MLflow's own in a folder."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from driftloop import settings
from driftloop.registry.model_registry import LEARNED_UNTIL, RETRAIN, ROLLED_BACK, Registry
from driftloop.registry.rollback import CannotRollBack, roll_back, untold


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    before = mlflow.get_tracking_uri()
    yield f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(None)


@pytest.fixture
def registry(uri: str, tmp_path: Path) -> Registry:
    """Three versions, no alias."""
    made = Registry(settings.Registry(uri=uri, model=tmp_path.name))
    made.client.create_registered_model(made.model)
    experiment = mlflow.set_experiment("m").experiment_id
    for number in (1, 2, 3):
        run = made.client.create_run(experiment).info.run_id
        if number < 3:
            made.client.log_param(run, LEARNED_UNTIL, f"2013-0{number}-28 23:00:00+00:00")
        made.client.create_model_version(made.model, str(tmp_path), run, tags={RETRAIN: f"retrain-{number}"})
    return made


def test_a_promotion_names_the_version_that_it_replaces(registry: Registry) -> None:
    assert (registry.champion(), registry.previous()) == (None, None)
    registry.promote("1")
    assert (registry.champion(), registry.previous()) == ("1", None)
    registry.promote("3")
    assert (registry.champion(), registry.previous()) == ("3", "1")
    registry.promote("3")
    assert (registry.champion(), registry.previous()) == ("3", "1")


def test_going_back_leads_to_the_version_before_and_nowhere_else(registry: Registry) -> None:
    registry.promote("2")
    registry.promote("3")
    registry.client.update_model_version(registry.model, "3", "promoted: it is better")
    change = roll_back(registry, "wrong units")
    assert (registry.champion(), registry.previous()) == ("2", None)
    assert (change.state, change.version, change.retrain_id) == ("rolled_back", "2", "retrain-3")
    assert change.why == "version 2 serves again instead of version 3: wrong units"
    assert f"{change.learned_until:%Y-%m-%d %H:%M}" == "2013-02-28 23:00"
    withdrawn = registry.client.get_model_version(registry.model, "3")
    assert withdrawn.description == f"promoted: it is better\n\nrolled_back: {change.why}"
    assert withdrawn.tags[ROLLED_BACK] == change.model_dump_json()
    with pytest.raises(CannotRollBack, match="nothing to go back to"):
        roll_back(registry, "again")
    registry.promote("1")
    assert roll_back(registry, "and back").version == "2"


def test_going_back_to_a_version_by_its_number(registry: Registry) -> None:
    registry.promote("1")
    registry.promote("2")
    change = roll_back(registry, "that was the best", to="3")
    assert (registry.champion(), change.version, change.learned_until) == ("3", "3", None)


@pytest.mark.parametrize(
    ("promoted", "to", "why"),
    [
        ([], None, "no version of .* is in service"),
        ([], "1", "no version of .* is in service"),
        (["1"], None, "nothing to go back to"),
        (["1", "2"], "2", "version 2 is in service already"),
        (["1", "2"], "9", "there is no version 9 of .*; there are 1, 2, 3"),
        (["1", "2"], "x", "there is no version x of .*; there are 1, 2, 3"),
    ],
)
def test_where_there_is_no_way_back_nothing_changes(
    registry: Registry, promoted: list[str], to: str | None, why: str
) -> None:
    for version in promoted:
        registry.promote(version)
    before = registry.champion(), registry.previous()
    with pytest.raises(CannotRollBack, match=why):
        roll_back(registry, "why not", to)
    assert (registry.champion(), registry.previous()) == before


def test_a_way_back_that_nobody_was_told_of_is_found_again(registry: Registry) -> None:
    assert untold(registry, []) == []
    registry.promote("1")
    registry.promote("2")
    change = roll_back(registry, "killed before it was published")
    assert untold(registry, []) == [change]
    assert untold(registry, [change]) == []
    registry.promote("3")
    assert untold(registry, []) == []


def test_a_way_back_that_was_killed_before_it_was_taken_is_none(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise InterruptedError

    registry.promote("1")
    registry.promote("2")
    monkeypatch.setattr(registry.client, "set_registered_model_alias", killed)
    with pytest.raises(InterruptedError):
        roll_back(registry, "killed before the alias moved")
    monkeypatch.undo()
    assert (registry.champion(), untold(registry, [])) == ("2", [])
    change = roll_back(registry, "again")
    assert (registry.champion(), untold(registry, [])) == ("1", [change])
