"""The version that the alias names, as a metric, independent of who moved the alias."""

from collections.abc import Callable

from driftloop.registry.model_registry import ModelRegistry
from trainer import metrics

TASK = "alias_metric"
POLL_INTERVAL_SECONDS = 10  # a poll costs the registry 10 ms


class AliasMetric:
    """Shows the version that the alias names as the only champion, or none, and notes it in the registry.

    Noted, it is known after the alias has been deleted, also if people have set it by hand.
    """

    def __init__(self, registry: ModelRegistry) -> None:
        """Show nothing yet."""
        self._registry = registry
        self._shown: str | None = None

    def update(self, report_progress: Callable[[], None]) -> None:
        """Look the alias up, and show its version if it is another one.

        Raises:
            RegistryUnavailable: The metric keeps its last value.
            RegistryRefused: Likewise.
        """
        version = self._registry.champion()
        report_progress()
        if version != self._shown:
            metrics.CHAMPION.clear()
            if version is not None:
                metrics.CHAMPION.labels(self._registry.model, version).set(1)
                self._registry.note_champion(version)
        self._shown = version
