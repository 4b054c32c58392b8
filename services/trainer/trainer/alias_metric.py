"""The version that the alias names, as a metric, independent of who moved the alias."""

import threading
import time

import structlog

from driftloop.errors import RegistryUnavailable
from driftloop.registry.model_registry import ModelRegistry
from trainer import metrics

log = structlog.get_logger(__name__)

POLL_INTERVAL_SECONDS = 10  # a poll costs the registry 10 ms


def start_polling(registry: ModelRegistry) -> None:
    """Poll the alias in a daemon thread. While the registry is unavailable, the metric keeps its last value."""

    def run() -> None:
        shown_version = None
        while True:
            try:
                version = registry.champion()
            except RegistryUnavailable as error:
                log.warning("alias_metric.registry_unavailable", error=str(error))
            else:
                if version != shown_version:
                    set_champion(registry.model, version)
                shown_version = version
            time.sleep(POLL_INTERVAL_SECONDS)

    threading.Thread(target=run, name="alias-metric", daemon=True).start()


def set_champion(model: str, version: str | None) -> None:
    """Show ``version`` as the only champion, or none."""
    metrics.CHAMPION.clear()
    if version is not None:
        metrics.CHAMPION.labels(model, version).set(1)
