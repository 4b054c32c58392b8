"""The version in service: load, check, warm up, swap."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from mlflow.exceptions import MlflowException

from driftloop.events import Cell, as_columns
from driftloop.registry import Refused, Registry, StoredModel
from driftloop.telemetry import Health
from predictor import metrics
from predictor.schema import Schema, schema

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Serving:
    """A version that can answer."""

    version: str
    schema: Schema
    estimator: Any

    def score(self, columns: dict[str, list[Cell]]) -> list[float]:
        """One prediction a row: a binary classifier's probability of the second class, else what it predicts."""
        frame = self.schema.frame(columns)
        if hasattr(self.estimator, "predict_proba"):
            return np.asarray(self.estimator.predict_proba(frame))[:, 1].tolist()  # type: ignore[no-any-return]
        return np.asarray(self.estimator.predict(frame), dtype=float).tolist()  # type: ignore[no-any-return]


class Champion:
    """Follows the alias. ``serving`` is the one reference that a request reads: a swap is its assignment.

    A version that cannot be loaded, has no usable signature or does not answer its own example is refused; the one
    before it goes on serving.
    """

    def __init__(self, registry: Registry, trusted: Sequence[str], max_rows: int, health: Health) -> None:
        """Nothing is loaded before the first :meth:`refresh`."""
        self.serving: Serving | None = None
        self.refusal: str | None = None
        self._registry = registry
        self._trusted = trusted
        self._max_rows = max_rows
        self._health = health
        self._refused: str | None = None  # not fetched again, until the alias names another
        self._one_at_a_time = threading.Lock()
        health.lacks("model", "the alias has not been looked up yet")

    def refresh(self) -> None:
        """Looks the alias up and swaps where it names another version. Takes as long as fetching and loading."""
        with self._one_at_a_time:
            try:
                version = self._registry.champion()
                if version is None:
                    self._lacks(f"no version of {self._registry.model} has the alias {self._registry.alias} yet")
                elif version not in (self._refused, self.serving and self.serving.version):
                    self._swap(version)
            except (MlflowException, OSError) as error:
                log.warning("registry out of reach", error=str(error))
                self._lacks(f"the registry is out of reach: {error}")

    def _swap(self, version: str) -> None:
        try:
            new = self._checked(version, self._registry.load(version, self._trusted))
        except Refused as error:
            self._refused, self.refusal = version, f"version {version}: {error}"
            metrics.REFUSALS.inc()
            log.error("version refused", version=version, why=str(error))
            self._lacks(self.refusal)
            return
        old, self.serving = self.serving, new
        self._refused = self.refusal = None
        self._health.has("model")
        metrics.SWAPS.inc()
        metrics.IN_SERVICE.clear()
        metrics.IN_SERVICE.labels(self._registry.model, version).set(1)
        log.info("version in service", version=version, before=old and old.version)

    def _checked(self, version: str, stored: StoredModel) -> Serving:
        serving = Serving(version, schema(stored.signature, stored.example, self._max_rows), stored.estimator)
        if stored.example is not None:
            try:
                serving.score(as_columns(stored.example[list(serving.schema.dtypes)]))
            except Exception as error:  # an estimator is somebody else's code
                raise Refused(f"it does not answer its own input example: {type(error).__name__}: {error}") from error
        return serving

    def _lacks(self, why: str) -> None:
        if self.serving is None:
            self._health.lacks("model", why)
