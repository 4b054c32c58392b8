"""Models that MLflow's server keeps in S3 or Azure, as the stack configures it: logged, registered and loaded."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from driftloop.registry.model_logging import log_model
from driftloop.registry.model_registry import ModelRegistry
from driftloop.settings import RegistrySettings, StorageSettings
from driftloop.storage.object_store import ObjectStore
from stack.mlflow import mlflow_component
from tests.support.ports import reserve_ports
from tests.support.running_component import running_component

pytestmark = pytest.mark.integration


@pytest.fixture(params=["s3_storage", "azure_storage"])
def storage(request: pytest.FixtureRequest) -> StorageSettings:
    settings: StorageSettings = request.getfixturevalue(request.param)
    return settings


@pytest.fixture
def registry(storage: StorageSettings, tmp_path: Path) -> Iterator[ModelRegistry]:
    """The registry of an MLflow server with its artifacts in the store."""
    component = mlflow_component(tmp_path / "mlflow", reserve_ports(1)[0], storage)
    before = mlflow.get_tracking_uri()
    with running_component(component, tmp_path / "mlflow.log") as url:
        mlflow.set_tracking_uri(url)
        yield ModelRegistry(RegistrySettings(uri=url, model="loans"))
    mlflow.set_tracking_uri(before)


def test_model_in_the_store_is_loaded_as_the_predictor_loads_it(
    storage: StorageSettings, registry: ModelRegistry
) -> None:
    features = pd.DataFrame({"x": np.linspace(-1, 1, 50), "y": np.linspace(0, 2, 50)})
    estimator = LogisticRegression().fit(features, features["x"] > 0)
    mlflow.set_experiment("loans")
    with mlflow.start_run():
        uri = log_model(estimator, features, "predict_proba")
    version = registry.create_version(uri, "retrain", {})
    loaded = registry.load(version)
    assert loaded.predict_fn == "predict_proba"
    np.testing.assert_array_equal(loaded.estimator.predict_proba(features), estimator.predict_proba(features))
    stored = {Path(found.path).name: found.size for found in ObjectStore(storage).list_objects("mlflow/")}
    assert stored["model.skops"] > 0
    assert "MLmodel" in stored
