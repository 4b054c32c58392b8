"""The components of the real stack that a predictor needs, for benchmarks: broker, storage and registry."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from driftloop.kafka import topics
from driftloop.registry.model_registry import ModelRegistry
from stack.running import Stack, orphans
from tests.support.flights_model import SavedModel
from tests.support.processes import Server
from tests.support.running_stack import isolated_settings

ROOT = Path(__file__).resolve().parents[2]
STACK_DIR = ROOT / ".stack" / "benchmark"


@contextmanager
def benchmark_stack(log_line: Callable[[str], None]) -> Iterator[Stack]:
    """Run Kafka, GCS and MLflow, empty except for the topics; stop them at the end of the block."""
    stack = Stack(isolated_settings(STACK_DIR), log_line)
    for process in orphans(stack.folder):
        process.kill()
    shutil.rmtree(STACK_DIR, ignore_errors=True)
    try:
        for name in ("kafka", "gcs", "mlflow"):
            stack.start(name)
        topics.create(stack.kafka, stack.topics)
        yield stack
    finally:
        stack.stop()


def register_model(stack: Stack, saved: SavedModel) -> str:
    """Register a saved model; return its version, which has no alias yet."""
    return register_folder(stack.registry, saved.folder)


def register_folder(registry: ModelRegistry, folder: Path) -> str:
    """Register the files of a folder as a model; return its version, which has no alias yet."""
    mlflow.set_experiment(registry.model)
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(folder), "model")
    try:
        registry.client.create_registered_model(registry.model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{run.info.artifact_uri}/model"
    return str(registry.client.create_model_version(registry.model, source, run_id=str(run.info.run_id)).version)


def predictor_server(stack: Stack) -> Server:
    """Return the predictor of the stack, not started. Its data directory is the same for every start."""
    component = stack.components["predictor"]
    log = stack.folder / "logs" / "predictor.log"
    return Server("driftloop", component.command, component.environment, f"{component.url}/readyz", log, ROOT)
