"""The runbooks of the alerts about versions and retrains, tried on the real stack."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support import regression_usecase
from tests.support.rentals_model import register_by_hand
from tests.support.waiting import wait_until
from tests.support.watched_stack import SPARE, WatchedStack, drill_of

pytestmark = [pytest.mark.integration, pytest.mark.drill, pytest.mark.timeout(900)]

MORNING = range(12)


@drill_of("VersionRejected")
def test_version_with_a_new_column_is_rejected_until_the_alias_is_moved_back(
    watched: WatchedStack, tmp_path: Path
) -> None:
    version = register_by_hand(watched.registry, tmp_path, extra=True)
    watched.registry.promote(version)
    watched.wait_until_fires("VersionRejected", instance=watched.instance("predictor"), severity="warning")
    models = watched.models("predictor")
    assert models["rejected"]["version"] == version
    watched.perform("VersionRejected", "driftloop rollback")
    watched.wait_until_ends()
    assert watched.served_version() == watched.first_version


@drill_of("VersionFailing")
def test_version_that_fails_for_every_request_is_rolled_back(watched: WatchedStack, tmp_path: Path) -> None:
    version = register_by_hand(watched.registry, tmp_path, known_hours=MORNING)
    watched.clients.hours = MORNING
    watched.registry.promote(version)
    wait_until(lambda: watched.metric(f'driftloop_predictor_rows_total{{version="{version}"}} > 0'), "it has answered")
    watched.clients.hours = range(12, 24)
    watched.wait_until_fires("VersionFailing", instance=watched.instance("predictor"), severity="critical")
    assert "predictions" in watched.readiness("predictor")["warnings"]
    watched.perform("VersionFailing", "driftloop rollback")
    watched.wait_until_ends()
    assert watched.served_version() == watched.first_version


@drill_of("AliasMissing")
def test_deleted_alias_is_missing_until_a_rollback_sets_it_again(watched: WatchedStack) -> None:
    first = watched.first_version
    wait_until(lambda: watched.registry.last_champion() == first or None, "the trainer has noted the champion")
    watched.registry.client.delete_registered_model_alias(watched.registry.model, watched.registry.alias)
    watched.wait_until_fires("AliasMissing", instance=watched.instance("predictor"), severity="warning")
    last = watched.registry.client.get_registered_model(watched.registry.model).tags["last_champion"]
    watched.perform("AliasMissing", "driftloop rollback --to VERSION", VERSION=last)
    watched.wait_until_ends()
    assert watched.registry.champion() == last == watched.first_version


@drill_of("AliasNotServed")
def test_predictor_without_registry_serves_another_version_than_the_alias_names_until_it_is_back(
    watched: WatchedStack, tmp_path: Path
) -> None:
    version = register_by_hand(watched.registry, tmp_path)
    with watched.proxies["mlflow"].trouble("cut"):
        watched.registry.promote(version)
        watched.wait_until_fires("AliasNotServed", model=watched.registry.model, version=version, severity="warning")
        assert "registry" in watched.readiness("predictor")["warnings"]
        status = json.loads(watched.perform("AliasNotServed", "driftloop status", "--json"))
        (model,) = status["models"]
        assert model["version"] == version
    watched.wait_until_ends()
    watched.wait_until_serves(version)


@drill_of("VersionSkew")
def test_pinned_predictor_serves_another_version_until_the_pin_is_removed(
    watched: WatchedStack, tmp_path: Path
) -> None:
    with watched.spare_predictor(PREDICTOR__PINNED_VERSION=watched.first_version):
        version = register_by_hand(watched.registry, tmp_path)
        watched.registry.promote(version)
        watched.wait_until_fires("VersionSkew", model=watched.registry.model, severity="warning")
        behind = watched.models(SPARE)
        assert (behind["version"], behind["version_source"]) == (watched.first_version, "setting")
    with watched.spare_predictor():
        watched.wait_until_serves(version, SPARE)
        watched.wait_until_ends()


@drill_of("QualityDegraded")
def test_version_that_outcomes_show_to_be_worse_is_rolled_back(watched: WatchedStack) -> None:
    result = watched.retrain("newer days", regression_usecase.FIRST_END + timedelta(days=20))
    assert result.state == "promoted", result.explanation
    version = str(result.version)
    watched.wait_until_serves(version)
    watched.clients.rows, watched.clients.outcomes, watched.clients.wrong_of = 25, "wrong", version
    watched.wait_until_fires(
        "QualityDegraded", model=watched.registry.model, version=version, metric="rmse", severity="critical"
    )
    watched.perform("QualityDegraded", "driftloop rollback")
    watched.wait_until_ends()
    assert watched.served_version() == watched.first_version


@drill_of("RetrainFailed", "RetrainsNotPromoting")
def test_three_retrains_fail_until_one_on_other_days_is_promoted(watched: WatchedStack) -> None:
    trainer = watched.instance("trainer")
    watched.fail_retrain()
    watched.wait_until_fires("RetrainFailed", instance=trainer, severity="warning")
    (model,) = json.loads(watched.perform("RetrainFailed", "driftloop status", "--json"))["models"]
    assert model["retrains"][-1]["state"] == "failed"
    watched.wait_until_fires("RetrainsNotPromoting", watched.fail_retrain, instance=trainer, severity="warning")
    watched.perform(
        "RetrainsNotPromoting",
        "driftloop retrain --reason WHY --from START --to END",
        *("--wait", "--no-archive"),
        WHY="other days",
        START="2026-01-01",
        END=str(regression_usecase.FIRST_END + timedelta(days=30)),
    )
    watched.wait_until_ends()
