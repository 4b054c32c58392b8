"""Every name that the setting of the model accepts works in a real MLflow server and in the bucket."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from driftloop.events import Evaluation, ModelStateChanged
from driftloop.registry.loading import ModelRejected
from driftloop.registry.model_registry import ModelRegistry
from driftloop.registry.rollback import roll_back
from driftloop.settings import RegistrySettings
from driftloop.storage import reference_store
from driftloop.storage.object_store import ObjectStore
from stack.running import Stack
from tests.support.model_names import USABLE_NAMES


def register(client: MlflowClient, name: str, folder: Path) -> str:
    """Log the files of a folder in a run of the model's experiment; return MLflow's address of them."""
    experiment = client.get_experiment_by_name(name)
    run = client.create_run(experiment.experiment_id if experiment else client.create_experiment(name))
    client.log_artifacts(run.info.run_id, str(folder), "model")
    return f"runs:/{run.info.run_id}/model"


@pytest.fixture
def uri(stack: Stack) -> Iterator[str]:
    yield stack.environment["DRIFTLOOP_REGISTRY__URI"]
    mlflow.set_tracking_uri(stack.environment["DRIFTLOOP_REGISTRY__URI"])


@pytest.mark.parametrize("name", USABLE_NAMES)
def test_versions_of_a_model_with_this_name_are_found_fetched_promoted_and_rolled_back(
    uri: str, name: str, tmp_path: Path
) -> None:
    registry = ModelRegistry(RegistrySettings(uri=uri, model=name))
    (tmp_path / "logged").mkdir()
    (tmp_path / "logged" / "MLmodel").write_text("content")
    for retrain_id in ("first", "second"):
        version = registry.create_version(register(registry.client, name, tmp_path / "logged"), retrain_id, {})
        registry.promote(version)
        change = ModelStateChanged(
            retrain_id=retrain_id, model=name, version=version, state="promoted", explanation="it is better"
        )
        registry.record_result(version, change)
        assert registry.recorded_result(retrain_id) == change
        registry.delete_unfinished(retrain_id)
    assert registry.versions() == ["1", "2"]
    assert (registry.fetch("2", tmp_path) / "MLmodel").read_text() == "content"
    with pytest.raises(ModelRejected, match="does not have it"):
        registry.fetch("3", tmp_path)
    rolled_back = roll_back(registry, "a test")
    assert registry.champion() == rolled_back.version == "1"
    assert registry.recorded_rollbacks() == [rolled_back]


@pytest.mark.parametrize("name", USABLE_NAMES)
def test_reference_of_a_model_with_this_name_is_one_folder_of_the_bucket(stack: Stack, name: str) -> None:
    store = ObjectStore(stack.storage)
    evaluation = Evaluation(rows=1, days=1, resampling_unit="days", metrics={})
    reference_store.save_gate_evaluation(store, name, "1", evaluation)
    assert reference_store.load_gate_evaluation(store, name, "1") == evaluation
    assert reference_store.load_gate_evaluation(store, name, "2") is None
