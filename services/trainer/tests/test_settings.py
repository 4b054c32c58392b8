"""The trainer's settings must fit together."""

import pytest

from driftloop.settings import load
from trainer.settings import TrainerSettings


def test_a_use_case_of_another_model_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRIFTLOOP_USE_CASE", "usecases.flights:usecase")
    monkeypatch.setenv("DRIFTLOOP_REGISTRY__MODEL", "bikes")
    monkeypatch.setenv("DRIFTLOOP_TRAINER__API_KEY", "open sesame")
    with pytest.raises(SystemExit):
        load(TrainerSettings)
    assert "DRIFTLOOP_REGISTRY__MODEL is bikes, but DRIFTLOOP_USE_CASE is about flights" in capsys.readouterr().err
