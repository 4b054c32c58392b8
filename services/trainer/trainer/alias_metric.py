"""The version that the alias names, as a metric: whoever moved it, and in whatever way."""

import threading
import time

import structlog
from mlflow.exceptions import MlflowException

from driftloop.registry.model_registry import Registry
from trainer import metrics

log = structlog.get_logger(__name__)

SECONDS = 10  # between two looks, which cost the registry 10 ms each


def follow(registry: Registry) -> None:
    """Looks again and again, in a thread that ends with the process; what was seen last stays while nobody answers."""

    def run() -> None:
        before = None
        while True:
            try:
                version = registry.champion()
            except MlflowException as error:
                log.warning("the alias cannot be looked up for now", error=str(error))
            else:
                if version != before:
                    show(registry.model, version)
                before = version
            time.sleep(SECONDS)

    threading.Thread(target=run, name="champion", daemon=True).start()


def show(model: str, version: str | None) -> None:
    """This version, and no other one."""
    metrics.CHAMPION.clear()
    if version is not None:
        metrics.CHAMPION.labels(model, version).set(1)
