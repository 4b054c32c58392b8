"""The trainer's settings must fit together."""

import pytest

from driftloop.settings import load
from trainer.settings import TrainerSettings


@pytest.mark.parametrize(
    ("methods", "why"),
    [
        ('{"price": "psi"}', "DRIFTLOOP_CALIBRATION__DISTANCES names price, and the columns are sched_dep_time"),
        ('{"carrier": "wasserstein"}', "wants wasserstein for carrier, which is a category: there is jensenshannon"),
        ('{"carrier": "ks"}', "DRIFTLOOP_CALIBRATION__DISTANCES__CARRIER"),
    ],
)
def test_a_distance_that_does_not_fit_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], methods: str, why: str
) -> None:
    monkeypatch.setenv("DRIFTLOOP_USE_CASE", "usecases.flights:usecase")
    monkeypatch.setenv("DRIFTLOOP_REGISTRY__MODEL", "flights")
    monkeypatch.setenv("DRIFTLOOP_TRAINER__API_KEY", "open sesame")
    monkeypatch.setenv("DRIFTLOOP_CALIBRATION__DISTANCES", methods)
    with pytest.raises(SystemExit):
        load(TrainerSettings)
    assert why in capsys.readouterr().err


def test_a_use_case_of_another_model_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRIFTLOOP_USE_CASE", "usecases.flights:usecase")
    monkeypatch.setenv("DRIFTLOOP_REGISTRY__MODEL", "bikes")
    monkeypatch.setenv("DRIFTLOOP_TRAINER__API_KEY", "open sesame")
    with pytest.raises(SystemExit):
        load(TrainerSettings)
    assert "DRIFTLOOP_REGISTRY__MODEL is bikes, but DRIFTLOOP_USE_CASE is about flights" in capsys.readouterr().err
