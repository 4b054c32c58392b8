"""The services, and the settings by which they find each other on this machine."""

import sys
from collections.abc import Mapping

from stack.component import Component
from stack.settings import StackSettings

NAMES = ("trainer", "drift_worker", "predictor")
"""Services that run all the time; the producer is a command."""
BUCKET = "driftloop"
MODEL = "flights"
USE_CASE = "usecases.flights:usecase"
API_KEY = "only-for-this-machine"  # the stack listens on the loopback address only


def environment(settings: StackSettings) -> dict[str, str]:
    """Return the environment variables that services and commands need to reach the stack."""
    ours = settings.stack
    return {
        "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{ours.kafka_port}",
        "DRIFTLOOP_STORAGE__BUCKET": BUCKET,
        "DRIFTLOOP_STORAGE__ENDPOINT": f"http://127.0.0.1:{ours.gcs_port}",
        "DRIFTLOOP_REGISTRY__URI": f"http://127.0.0.1:{ours.mlflow_port}",
        "DRIFTLOOP_REGISTRY__MODEL": MODEL,
        "DRIFTLOOP_USE_CASE": USE_CASE,
        "DRIFTLOOP_PREDICTOR__PORT": str(settings.predictor.port),
        "DRIFTLOOP_PREDICTOR__DATA_DIR": str(ours.data_dir.resolve() / "predictor"),
        "DRIFTLOOP_DRIFT_WORKER__PORT": str(settings.drift_worker.port),
        "DRIFTLOOP_DRIFT_WORKER__MLFLOW_URL": f"http://127.0.0.1:{ours.mlflow_port}",
        "DRIFTLOOP_TRAINER__PORT": str(settings.trainer.port),
        "DRIFTLOOP_TRAINER__API_KEY": API_KEY,
        "DRIFTLOOP_PRODUCER__PREDICTOR_URL": f"http://127.0.0.1:{settings.predictor.port}",
    }


def service_components(settings: StackSettings, environment: Mapping[str, str]) -> dict[str, Component]:
    """Describe the services. The predictor counts as started before a version has the alias."""
    return {
        name: Component(
            name=name.replace("_", " "),
            command=[sys.executable, "-m", f"{name}.main"],
            port=getattr(settings, name).port,
            port_setting=f"DRIFTLOOP_{name.upper()}__PORT",
            ready_path="/readyz" if name != "predictor" else "/healthz",
            environment=environment,
        )
        for name in NAMES
    }
