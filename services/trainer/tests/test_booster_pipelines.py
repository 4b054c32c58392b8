"""Pipelines with a booster of another library: trained, logged, loaded as services do, with a reference."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from driftloop.drift.settings import WindowSettings
from driftloop.events import RetrainRequested
from driftloop.registry.loading import download_model, load_model
from driftloop.registry.model_registry import ModelRegistry
from driftloop.settings import RegistrySettings
from tests.support.estimator_catalogue import PREPARED
from tests.support.synthetic_usecase import make_use_case
from trainer.retrain import training

pytestmark = pytest.mark.integration

ROWS, WINDOW_ROWS = 400, 20
PIPELINES = tuple(name for name in PREPARED if name.endswith(", in a pipeline"))


@pytest.fixture(scope="module", autouse=True)
def _registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = mlflow.get_tracking_uri()
    folder = tmp_path_factory.mktemp("mlflow")
    ModelRegistry(RegistrySettings(uri=f"sqlite:///{folder}/mlflow.db", model="m"))
    mlflow.create_experiment("m", artifact_location=(folder / "artifacts").as_uri())
    yield
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(None)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    random = np.random.default_rng(0)
    a = random.normal(size=ROWS)
    return pd.DataFrame(
        {
            "at": pd.Timestamp("2013-04-01", tz="UTC") + pd.to_timedelta(np.arange(ROWS) // 20, unit="D"),
            "a": np.where(random.random(ROWS) < 0.1, np.nan, a),
            "b": random.normal(size=ROWS),
            "kind": random.choice(["x", "y", "z"], ROWS),
            "y": (a + random.normal(size=ROWS) > 0).astype(float),
        }
    )


@pytest.mark.parametrize("name", PIPELINES)
def test_retrain_of_a_booster_pipeline_gives_a_version_that_is_loaded_and_watched(
    name: str, rows: pd.DataFrame, tmp_path: Path
) -> None:
    make_pipeline: Callable[[], Any] = PREPARED[name][1]
    pytest.importorskip(type(make_pipeline()[-1]).__module__.partition(".")[0])
    use_case = replace(make_use_case(("a", "b"), ("kind",), "UTC"), classes=(0, 1), make_pipeline=make_pipeline)
    estimator, labelled = training.train(use_case, rows)
    assert labelled == ROWS
    request = RetrainRequested(model="m", trigger="manual", reason="test", requested_by="a test")
    logged = training.log_run(use_case, request, "", estimator, rows, {}, {})
    loaded = load_model(download_model(logged.uri, tmp_path))
    np.testing.assert_array_equal(
        loaded.estimator.predict_proba(rows[use_case.features]), estimator.predict_proba(rows[use_case.features])
    )
    importance = training.feature_importance(use_case, estimator, rows)
    assert max(importance, key=importance.__getitem__) == "a"
    reference = training.build_reference(
        use_case, estimator, rows, WindowSettings(rows=WINDOW_ROWS), importance=importance
    )
    assert len(reference.rows) == ROWS
    assert reference.profile.importance == importance
