"""Retrain of a use case with a numeric target: the gate compares RMSE."""

from datetime import date
from pathlib import Path

import pytest

from driftloop.events import DataSelection, RetrainRequest
from driftloop.registry.model_registry import ModelRegistry
from driftloop.settings import RegistrySettings
from driftloop.storage import dvc
from stack.running import Stack
from tests.support import regression_usecase
from tests.support.running_stack import run_command


def test_driftloop_train_promotes_regression_model_with_lower_rmse(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "hourly.parquet"
    regression_usecase.load_rows().to_parquet(data, index=False)
    pointer = tmp_path / "hourly.parquet.dvc"
    pointer.write_text(dvc.push(stack.storage, data))
    settings = {
        "DRIFTLOOP_USE_CASE": "tests.support.regression_usecase:usecase",
        "DRIFTLOOP_REGISTRY__MODEL": regression_usecase.usecase.name,
        "DRIFTLOOP_WINDOW__ROWS": "48",
        "DRIFTLOOP_GATE__HOLDOUT_DAYS": "14",
        regression_usecase.POINTER_VARIABLE: str(pointer),
    }
    for name, value in settings.items():
        monkeypatch.setitem(stack.environment, name, value)
    for reason, end in (("the first", date(2026, 3, 1)), ("it grows", None)):
        request = RetrainRequest(reason=reason, requested_by="a test", data=DataSelection(base_end=end, archive=False))
        done = run_command(stack, "driftloop-train", "--request", request.model_dump_json())
        assert done.returncode == 0, done.stdout + done.stderr

    registry = ModelRegistry(
        RegistrySettings(uri=stack.environment["DRIFTLOOP_REGISTRY__URI"], model=regression_usecase.usecase.name)
    )
    assert registry.champion() == "2"
    version = registry.client.get_model_version(regression_usecase.usecase.name, "2")
    metrics = registry.client.get_run(version.run_id).data.metrics
    assert "RMSE" in version.description
    assert 0 < metrics["challenger_rmse"] < metrics["champion_rmse"]
    assert registry.load("2").predict_fn == "predict"
