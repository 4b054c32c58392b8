"""The trainer's settings must fit together."""

import dataclasses

import pytest

import usecases.flights
from driftloop.settings import InvalidSettings, load_settings
from tests.support.synthetic_usecase import kinds_of
from trainer.settings import TrainerSettings
from usecases.flights import usecase


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_USE_CASE", "usecases.flights:usecase")
    monkeypatch.setenv("DRIFTLOOP_REGISTRY__MODEL", "flights")
    monkeypatch.setenv("DRIFTLOOP_TRAINER__API_KEY", "open sesame")


@pytest.mark.parametrize(
    ("distances", "message"),
    [
        ('{"price": "psi"}', "DRIFTLOOP_CALIBRATION__DISTANCES has no such column: price; the columns are sched_dep"),
        ('{"carrier": "wasserstein"}', "has wasserstein for carrier, which is a category: use jensenshannon"),
        ('{"carrier": "ks"}', "DRIFTLOOP_CALIBRATION__DISTANCES__CARRIER"),
    ],
)
def test_trainer_settings_reject_distance_that_does_not_fit_its_column(
    monkeypatch: pytest.MonkeyPatch, distances: str, message: str
) -> None:
    monkeypatch.setenv("DRIFTLOOP_CALIBRATION__DISTANCES", distances)
    with pytest.raises(InvalidSettings) as error:
        load_settings(TrainerSettings)
    assert message in str(error.value)


def test_trainer_settings_have_the_drift_workers_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_DRIFT_WORKER__GROUP", "night_workers")
    monkeypatch.setenv("DRIFTLOOP_DRIFT_WORKER__PORT", "9001")  # of the same section; the trainer does not need it
    assert load_settings(TrainerSettings).drift_worker.group == "night_workers"


def test_trainer_settings_reject_model_of_another_use_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_REGISTRY__MODEL", "bikes")
    with pytest.raises(InvalidSettings) as error:
        load_settings(TrainerSettings)
    assert "DRIFTLOOP_REGISTRY__MODEL is bikes, but the model of DRIFTLOOP_USE_CASE is flights" in str(error.value)


def test_trainer_settings_reject_features_with_names_of_the_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {**usecase.feature_kinds, **kinds_of(("_time", "_id", "time"))}
    monkeypatch.setattr(usecases.flights, "usecase", dataclasses.replace(usecase, feature_kinds=kinds))
    with pytest.raises(InvalidSettings, match=r"DRIFTLOOP_USE_CASE.*the use case has columns named _id, _time, "):
        load_settings(TrainerSettings)


def test_trainer_settings_reject_more_alarms_than_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_POLICY__MIN_ALARMS", "11")
    with pytest.raises(InvalidSettings, match=r"DRIFTLOOP_POLICY: MIN_ALARMS \(11\) must not be greater"):
        load_settings(TrainerSettings)
