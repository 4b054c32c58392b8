"""The real stack for benchmarks, and the parts of it that a predictor needs: broker, storage, registry."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from driftloop.kafka import topics
from predictor.settings import ServingSettings
from stack.running import Stack, leftovers
from tests.support.flights_model import MODEL, Saved
from tests.support.processes import Server
from tests.support.running_stack import isolated_settings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".stack" / "benchmark"


@contextmanager
def running(tell: Callable[[str], None]) -> Iterator[Stack]:
    """Kafka, GCS and MLflow, empty at the start and stopped at the end, with the topics made."""
    stack = Stack(isolated_settings(FOLDER), tell)
    for process in leftovers(stack.folder):
        process.kill()
    shutil.rmtree(FOLDER, ignore_errors=True)
    try:
        for name in ("kafka", "gcs", "mlflow"):
            stack.start(name)
        topics.create(stack.kafka, stack.topics)
        yield stack
    finally:
        stack.stop()


def register(stack: Stack, saved: Saved) -> str:
    """Puts a saved model into the registry as it is; returns the number of its version, which no alias names yet."""
    registry = stack.registry
    mlflow.set_experiment(MODEL)
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(saved.folder), "model")
    try:
        registry.client.create_registered_model(MODEL)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = registry.client.create_model_version(MODEL, f"{run.info.artifact_uri}/model", run_id=str(run.info.run_id))
    return str(version.version)


def predictor(stack: Stack) -> Server:
    """The predictor on these parts, not started. It keeps what it keeps from one start to the next."""
    part = stack.parts["predictor"]
    environment = dict(part.environment)
    if "folder" in ServingSettings.model_fields:
        environment["DRIFTLOOP_PREDICTOR__DATA_DIR"] = str(stack.folder / "predictor")
    return Server(
        "driftloop", part.command, environment, f"{part.url}/readyz", stack.folder / "logs" / "predictor.log", ROOT
    )
