"""The model in service: it follows the alias, and loads, validates, warms up and swaps versions."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import cycle, islice
from time import perf_counter, sleep
from typing import Any, Literal

import numpy.typing as npt
import pandas as pd
import structlog
from mlflow.exceptions import MlflowException
from threadpoolctl import threadpool_limits

from driftloop.errors import DependencyUnavailable, InvalidInput
from driftloop.events import now
from driftloop.registry.loading import LoadedModel, ModelRejected, load_model
from driftloop.registry.model_registry import ModelRegistry
from driftloop.telemetry import tracing
from driftloop.telemetry.health import Health
from predictor import metrics
from predictor.serving.model_cache import ModelCache
from predictor.serving.model_output import ModelOutput
from predictor.serving.schema import Columns, Schema, build_schema
from predictor.settings import ServingSettings

log = structlog.get_logger(__name__)

VersionSource = Literal["alias", "setting", "cache"]

WARM_UP_ROWS = (1, 8, 64, 512)
# A version is loaded for a third of the time while another one serves. Unthrottled, requests' p99 is four times as
# high meanwhile; throttled, 1.2 times (docs/adr/0006-throttled-model-loading.md).
RUN_SECONDS, PAUSE_SECONDS = 0.002, 0.004
SWITCH_INTERVAL_SECONDS = 0.0005  # a tenth of Python's default


class PredictionFailed(InvalidInput):
    """The model cannot score these rows; the message says why."""


@dataclass(frozen=True, eq=False)
class ServingModel:
    """A loaded model version that can serve."""

    version: str
    schema: Schema
    loaded: LoadedModel
    example_output: ModelOutput | None = None
    """The output for the first row of the model's input example."""
    loaded_at: datetime = field(default_factory=now)

    def predict(self, columns: Columns) -> ModelOutput:
        """Call the estimator's method that the model's MLflow description names.

        Raises:
            PredictionFailed: A prediction is not a finite number. Exceptions of the estimator pass through.
        """
        method = self.loaded.predict_fn
        returned = getattr(self.loaded.estimator, method)(self.schema.columns_to_frame(columns))
        output = ModelOutput.from_model(returned, method)
        if not output.is_finite:
            raise PredictionFailed("the model's prediction is not a finite number")
        return output


@dataclass(frozen=True)
class RejectedVersion:
    """A version that the alias names and that cannot be served."""

    version: str
    reason: str
    rejected_at: datetime


class ModelManager:
    """Keeps the version that the alias names in service.

    ``serving`` is the only reference that a request reads, so a swap is one assignment. A version is rejected if it
    cannot be loaded, has no usable signature, would break the requests that clients send today, or fails on its own
    input example; the version before it keeps serving. While the registry is unavailable, the cached version serves.
    """

    def __init__(self, registry: ModelRegistry, cache: ModelCache, settings: ServingSettings, health: Health) -> None:
        """Create the manager; :meth:`start` loads the first version."""
        self.serving: ServingModel | None = None
        self.rejected: RejectedVersion | None = None
        self.source: VersionSource = "setting" if settings.pinned_version else "alias"
        """What names the version in service; ``cache`` until the registry has been reached for the first time."""
        self._registry = registry
        self._cache = cache
        self._settings = settings
        self._health = health
        self._refresh_lock = threading.Lock()
        health.mark_unavailable("model", "the alias has not been looked up yet")

    def start(self) -> None:
        """Serve the cached version, which needs no registry; without one, look the alias up.

        When it returns, either a version serves or the reason why none does is recorded in the health.
        """
        with self._refresh_lock:
            self._restore_cached()
        if self.serving is None:
            self.refresh()

    def refresh(self) -> None:
        """Look the alias up, and swap if it names another version. Blocks while that is downloaded and loaded."""
        with self._refresh_lock:
            try:
                self._sync_with_alias()
            # An unexpected answer of MLflow must not end the polling either: the version in service stays.
            except (DependencyUnavailable, MlflowException, OSError) as error:
                reason = f"the registry is unavailable: {error}"
                log.warning("model.registry_unavailable", error=str(error))
                self._health.add_warning("registry", reason)
                if self.serving is None:
                    self._health.mark_unavailable("model", reason)
            if self.serving is not None:
                self._health.mark_available("model")

    def _sync_with_alias(self) -> None:
        version = self._settings.pinned_version or self._registry.champion()
        if version is None:
            self._health.clear_warning("registry")
            if self.serving is None:
                self._health.mark_unavailable(
                    "model", f"no version of {self._registry.model} has the alias {self._registry.alias} yet"
                )
            return
        if self.serving is not None and version == self.serving.version:
            self._set_rejected(None)
        elif self.rejected is None or version != self.rejected.version:
            retrain_traceparent = self._registry.traceparent(version) if tracing.is_enabled() else None
            with tracing.span("swap", parents=[retrain_traceparent], version=version):
                self._swap(version)
        self._health.clear_warning("registry")
        self.source = "setting" if self._settings.pinned_version else "alias"

    def _restore_cached(self) -> None:
        """Serve the cached version: its schema matches what clients send today."""
        version = self._cache.last_served()
        if version is None or self._settings.pinned_version not in (None, version):
            return
        try:
            self._activate(self._load_throttled(version))
        except (ModelRejected, DependencyUnavailable, OSError) as error:
            log.warning("model.cached_version_unusable", version=version, reason=str(error))
        else:
            self.source = "cache"
            self._health.mark_available("model")

    def _swap(self, version: str) -> None:
        try:
            model = self._load_throttled(version)
        except ModelRejected as error:
            tracing.set_attributes(rejection=str(error))
            self._set_rejected(RejectedVersion(version, str(error), now()))
            return
        self._activate(model)
        self._cache.mark_served(version)
        self._set_rejected(None)

    def _activate(self, model: ServingModel) -> None:
        previous, self.serving = self.serving, model
        metrics.MODEL_SWAPS.inc()
        if previous is not None:
            metrics.SERVING_VERSION.labels(self._registry.model, previous.version).set(0)
        metrics.SERVING_VERSION.labels(self._registry.model, model.version).set(1)
        log.info("model.swapped", version=model.version, previous_version=previous and previous.version)

    def _set_rejected(self, rejected: RejectedVersion | None) -> None:
        self.rejected = rejected
        metrics.ALIAS_REJECTED.set(rejected is not None)
        if rejected is None:
            self._health.clear_warning("version")
            return
        metrics.REJECTIONS.inc()
        log.error("model.version_rejected", version=rejected.version, reason=rejected.reason)
        warning = f"version {rejected.version} is rejected: {rejected.reason}"
        self._health.add_warning("version", warning)
        if self.serving is None:
            self._health.mark_unavailable("model", warning)

    def _load_throttled(self, version: str) -> ServingModel:
        """Load and validate a version; throttled if another version serves meanwhile.

        Raises:
            ModelRejected: The version fails a check.
        """
        with _throttled() if self.serving else nullcontext():
            return self._load_and_validate(version)

    def _load_and_validate(self, version: str) -> ServingModel:
        loaded = load_model(self._cache.fetch(version), self._registry.trusted_types)
        example = loaded.example if isinstance(loaded.example, pd.DataFrame) else None
        model = ServingModel(version, build_schema(loaded.signature, example, self._settings.max_rows), loaded)
        if self.serving is not None:
            self._check_compatibility(self.serving, model)
        return model if loaded.example is None else replace(model, example_output=_warm_up(model, loaded.example))

    def _check_compatibility(self, current: ServingModel, model: ServingModel) -> None:
        incompatibilities = current.schema.incompatibilities_with(model.schema)
        if not incompatibilities:
            return
        reason = f"today's requests would fail: {'; '.join(incompatibilities)}"
        if self._settings.on_signature_change == "reject":
            raise ModelRejected(f"{reason} (DRIFTLOOP_PREDICTOR__ON_SIGNATURE_CHANGE=accept allows it)")
        log.warning("model.signature_changed", version=model.version, reason=reason)


@contextmanager
def _throttled() -> Iterator[None]:
    """Run the block in this thread for a third of the time, so that requests get Python's interpreter lock.

    The lock knows no priorities. So a profile hook, which Python calls at each function call of this thread, sleeps
    after every :data:`RUN_SECONDS`, and other threads that find the lock taken wait for a tenth of the usual switch
    interval. One OpenMP thread is used, because several would wait for one another after each tree.
    """
    pause_at = perf_counter() + RUN_SECONDS

    def pause(*_: object) -> None:
        nonlocal pause_at
        if perf_counter() > pause_at:
            sleep(PAUSE_SECONDS)
            pause_at = perf_counter() + RUN_SECONDS

    switch_interval, profiler = sys.getswitchinterval(), sys.getprofile()
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    sys.setprofile(pause)
    try:
        with threadpool_limits(1):
            yield
    finally:
        sys.setprofile(profiler)
        sys.setswitchinterval(switch_interval)


def _warm_up(model: ServingModel, example: pd.DataFrame | npt.NDArray[Any]) -> ModelOutput:
    """Score the model's input example in batches of several sizes; return the output for its first row.

    Raises:
        ModelRejected: The model fails on its own example.
    """
    try:
        columns = model.schema.frame_to_columns(example)
        for row_count in WARM_UP_ROWS:
            model.predict({name: list(islice(cycle(cells), row_count)) for name, cells in columns.items()})
        return model.predict({name: cells[:1] for name, cells in columns.items()})
    except Exception as error:  # an estimator is user code and may raise anything
        raise ModelRejected(
            f"it fails on its own input example: {type(error).__name__}: {error}{model.loaded.version_note}"
        ) from error
