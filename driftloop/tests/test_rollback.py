"""Promotions and rollbacks, in a local MLflow registry."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import mlflow
import pytest

from driftloop import settings
from driftloop.events import ModelStateChanged
from driftloop.registry.model_registry import (
    ALIAS_CHALLENGER,
    PARAM_TRAINED_THROUGH,
    TAG_RESULT,
    TAG_RETRAIN_ID,
    TAG_ROLLED_BACK,
    AliasMissing,
    ModelRegistry,
)
from driftloop.registry.rollback import RollbackNotPossible, roll_back, unpublished_rollbacks

pytest_plugins = "tests.support.registry_file"

pytestmark = pytest.mark.integration


@pytest.fixture
def registry(registry_uri: str, tmp_path: Path) -> ModelRegistry:
    """Three versions, no alias."""
    registry = ModelRegistry(settings.RegistrySettings(uri=registry_uri, model=tmp_path.name))
    registry.client.create_registered_model(registry.model)
    experiment = mlflow.set_experiment("m").experiment_id
    for number in (1, 2, 3):
        run = registry.client.create_run(experiment).info.run_id
        if number < 3:
            registry.client.log_param(run, PARAM_TRAINED_THROUGH, f"2013-0{number}-28 23:00:00+00:00")
        registry.client.create_model_version(
            registry.model, str(tmp_path), run, tags={TAG_RETRAIN_ID: f"retrain-{number}"}
        )
    return registry


def test_promote_sets_previous_to_the_replaced_version(registry: ModelRegistry) -> None:
    assert (registry.champion(), registry.previous()) == (None, None)
    registry.promote("1")
    assert (registry.champion(), registry.previous()) == ("1", None)
    registry.promote("3")
    assert (registry.champion(), registry.previous()) == ("3", "1")
    registry.promote("3")
    assert (registry.champion(), registry.previous()) == ("3", "1")


def test_roll_back_restores_the_previous_version_once(registry: ModelRegistry) -> None:
    registry.promote("2")
    registry.promote("3")
    registry.client.update_model_version(registry.model, "3", "promoted: it is better")
    change = roll_back(registry, "wrong units")
    assert (registry.champion(), registry.previous()) == ("2", None)
    assert (change.state, change.version, change.retrain_id) == ("rolled_back", "2", "retrain-3")
    assert change.explanation == "version 2 serves again instead of version 3: wrong units"
    assert f"{change.trained_through:%Y-%m-%d %H:%M}" == "2013-02-28 23:00"
    rolled_back = registry.client.get_model_version(registry.model, "3")
    assert rolled_back.description == f"promoted: it is better\n\nrolled_back: {change.explanation}"
    assert rolled_back.tags[TAG_ROLLED_BACK] == change.model_dump_json()
    assert rolled_back.tags[TAG_RESULT] == "rolled_back"
    with pytest.raises(RollbackNotPossible, match="no version to roll back to"):
        roll_back(registry, "again")
    registry.promote("1")
    assert roll_back(registry, "and back").version == "2"


def test_promote_takes_the_challengers_alias_away(registry: ModelRegistry) -> None:
    registry.client.set_registered_model_alias(registry.model, ALIAS_CHALLENGER, "3")
    registry.promote("2")
    assert registry.version_for_alias(ALIAS_CHALLENGER) == "3"
    registry.promote("3")
    assert registry.version_for_alias(ALIAS_CHALLENGER) is None


@pytest.mark.parametrize("way", ["rolled back to", "promoted"])
def test_version_in_service_again_no_longer_says_that_it_was_rolled_back(registry: ModelRegistry, way: str) -> None:
    registry.promote("1")
    registry.promote("2")
    roll_back(registry, "it was slow")
    if way == "promoted":
        registry.promote("2")
    else:
        roll_back(registry, "it was not", to="2")
    version = registry.client.get_model_version(registry.model, "2")
    assert registry.champion() == "2"
    assert "it was slow" in version.description
    assert "again" in version.description.splitlines()[-1]
    assert (version.tags[TAG_RESULT], TAG_ROLLED_BACK in version.tags) == ("promoted", False)


def test_tags_for_programs_stand_behind_those_for_people(registry: ModelRegistry) -> None:
    state = ModelStateChanged(retrain_id="retrain-2", model=registry.model, state="promoted", explanation="better")
    registry.client.set_model_version_tag(registry.model, "2", "reason", "it is summer")
    registry.record_result("2", state)
    registry.promote("1")
    registry.promote("2")
    roll_back(registry, "it was slow")
    tags = registry.client.get_model_version(registry.model, "2").tags
    is_json = [tags[name].startswith("{") for name in sorted(tags)]
    assert is_json == [False, False, False, False, True, True]
    assert registry.recorded_result("retrain-2") == state


def test_registry_knows_which_models_exist(registry: ModelRegistry, registry_uri: str) -> None:
    other = ModelRegistry(settings.RegistrySettings(uri=registry_uri, model=f"{registry.model}-other"))
    assert (registry.exists(), other.exists()) == (True, False)
    assert registry.model in registry.model_names()
    assert other.model not in registry.model_names()


def test_roll_back_to_a_named_version(registry: ModelRegistry) -> None:
    registry.promote("1")
    registry.promote("2")
    change = roll_back(registry, "that was the best", to="3")
    assert (registry.champion(), change.version, change.trained_through) == ("3", "3", None)


@pytest.mark.parametrize(
    ("promoted", "to", "message"),
    [
        ([], None, "no version of .* has the alias champion: name the one to serve with --to$"),
        (["1"], None, "no version to roll back to"),
        (["1", "2"], "2", "version 2 is already in service"),
        (["1", "2"], "9", "has no version 9; its versions are 1, 2, 3"),
        (["1", "2"], "x", "has no version x; its versions are 1, 2, 3"),
    ],
)
def test_roll_back_without_a_target_changes_nothing(
    registry: ModelRegistry, promoted: list[str], to: str | None, message: str
) -> None:
    for version in promoted:
        registry.promote(version)
    before = registry.champion(), registry.previous()
    with pytest.raises(RollbackNotPossible, match=message):
        roll_back(registry, "test", to)
    assert (registry.champion(), registry.previous()) == before


def lose_alias(registry: ModelRegistry, way: str) -> None:
    """Make no version have the alias, as people do in MLflow."""
    if way == "alias deleted":
        registry.client.delete_registered_model_alias(registry.model, registry.alias)
    else:
        registry.client.delete_model_version(registry.model, "3")


@pytest.mark.parametrize("way", ["alias deleted", "version deleted"])
def test_model_that_has_lost_its_alias_has_no_first_version_again(registry: ModelRegistry, way: str) -> None:
    assert registry.champion_unless_first() is None
    registry.promote("1")
    registry.promote("3")
    assert registry.champion_unless_first() == "3"
    lose_alias(registry, way)
    assert (registry.champion(), registry.last_champion()) == (None, "3")
    with pytest.raises(AliasMissing, match=f"rollback --to {'3' if way == 'alias deleted' else 'VERSION'} "):
        registry.champion_unless_first()
    with pytest.raises(RollbackNotPossible, match="version 3 had it last"):
        roll_back(registry, "which one?")
    change = roll_back(registry, "somebody deleted it", to="1")
    assert (registry.champion(), registry.previous(), change.version) == ("1", None, "1")
    assert change.explanation == "version 1 serves again after no version had the alias champion: somebody deleted it"
    assert unpublished_rollbacks(registry, [change]) == []


def test_alias_that_is_set_again_keeps_the_version_before(registry: ModelRegistry) -> None:
    registry.promote("1")
    registry.promote("2")
    lose_alias(registry, "alias deleted")
    roll_back(registry, "somebody deleted it", to="2")
    assert (registry.champion(), registry.previous()) == ("2", "1")


def test_version_that_people_have_given_the_alias_is_noted(registry: ModelRegistry) -> None:
    registry.client.set_registered_model_alias(registry.model, registry.alias, "2")
    registry.note_champion("2")  # as the trainer's poll does
    lose_alias(registry, "alias deleted")
    assert registry.last_champion() == "2"


def test_model_that_was_deleted_and_made_again_has_no_champion_of_before(registry: ModelRegistry) -> None:
    registry.promote("2")
    registry.client.delete_registered_model(registry.model)
    assert registry.champion_unless_first() is None
    registry.client.create_registered_model(registry.model)
    assert registry.champion_unless_first() is None


@pytest.mark.parametrize("to", [None, "1"])
def test_of_rollbacks_at_once_one_moves_the_alias(registry: ModelRegistry, to: str | None) -> None:
    registry.promote("1")
    registry.promote("3")
    start = Barrier(8)

    def attempt(_: int) -> str:
        start.wait()
        try:
            return str(roll_back(registry, "all at once", to).explanation)
        except RollbackNotPossible:
            return ""

    with ThreadPoolExecutor(8) as threads:
        done = [explanation for explanation in threads.map(attempt, range(8)) if explanation]
    assert done == ["version 1 serves again instead of version 3: all at once"]
    assert registry.champion() == "1"
    assert registry.client.get_model_version(registry.model, "3").description.count("rolled_back:") == 1


def test_rollback_says_what_it_has_replaced(registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.promote("1")
    registry.promote("3")
    find = registry.trained_through

    def overtaken(version: str) -> object:  # another process moves the alias meanwhile
        registry.client.set_registered_model_alias(registry.model, registry.alias, "2")
        return find(version)

    monkeypatch.setattr(registry, "trained_through", overtaken)
    with pytest.raises(RollbackNotPossible, match="has moved to 2"):
        roll_back(registry, "of 3", to="1")
    assert registry.champion() == "2"


def test_unpublished_rollbacks_finds_a_rollback_that_was_not_published(registry: ModelRegistry) -> None:
    assert unpublished_rollbacks(registry, []) == []
    registry.promote("1")
    registry.promote("2")
    change = roll_back(registry, "killed before it was published")
    assert unpublished_rollbacks(registry, []) == [change]
    assert unpublished_rollbacks(registry, [change]) == []
    registry.promote("3")
    assert unpublished_rollbacks(registry, []) == []


def test_unpublished_rollbacks_ignores_a_rollback_killed_before_the_alias_moved(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise InterruptedError

    registry.promote("1")
    registry.promote("2")
    monkeypatch.setattr(registry.client, "set_registered_model_alias", killed)
    with pytest.raises(InterruptedError):
        roll_back(registry, "killed before the alias moved")
    monkeypatch.undo()
    assert (registry.champion(), unpublished_rollbacks(registry, [])) == ("2", [])
    change = roll_back(registry, "again")
    assert (registry.champion(), unpublished_rollbacks(registry, [])) == ("1", [change])


def test_description_links_to_the_pages_of_the_versions_drift(registry: ModelRegistry, registry_uri: str) -> None:
    pages = "http://drift.example.com:8001/"
    linking = ModelRegistry(settings.RegistrySettings(uri=registry_uri, model=registry.model, drift_pages_url=pages))
    linking.record_result(
        "2", ModelStateChanged(retrain_id="r", model=registry.model, state="rejected", explanation="worse")
    )
    description = linking.client.get_model_version(linking.model, "2").description
    assert f"(http://drift.example.com:8001/?model={registry.model}&version=2)" in description
