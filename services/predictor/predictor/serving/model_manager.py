"""The model in service: it follows the alias, and loads, validates, warms up and swaps versions."""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from time import perf_counter, sleep
from typing import Literal

import structlog
from threadpoolctl import threadpool_limits

from driftloop.errors import DependencyUnavailable, InvalidInput, RegistryRefused, RegistryUnavailable
from driftloop.events import now
from driftloop.privacy import NO_PRIVACY, Privacy
from driftloop.registry.loading import ModelFilesUnreadable, ModelRejected, load_model
from driftloop.registry.model_registry import ModelRegistry, RegisteredVersion
from driftloop.telemetry import tracing
from driftloop.telemetry.health import Health
from predictor import metrics
from predictor.serving.model_cache import ModelCache
from predictor.serving.privacy_record import PrivacyRecordCheck
from predictor.serving.schema import build_schema
from predictor.serving.serving_model import ServingModel
from predictor.serving.trial import try_model
from predictor.settings import ServingSettings

log = structlog.get_logger(__name__)

VersionSource = Literal["alias", "setting", "cache", "nothing"]

# A version whose files cannot be read is tried again: its upload may not be complete, or a right may be missing.
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 5, 300
# A version is loaded for a third of the time while another one serves. Unthrottled, requests' p99 is four times as
# high meanwhile; throttled, 1.2 times (docs/adr/0006-throttled-model-loading.md).
RUN_SECONDS, PAUSE_SECONDS = 0.002, 0.004
SWITCH_INTERVAL_SECONDS = 0.0005  # a tenth of Python's default


@dataclass(frozen=True)
class RejectedVersion:
    """A version that the alias names and that cannot be served."""

    version: str
    reason: str
    rejected_at: datetime
    retry_at: datetime | None = None
    """When it is tried again: only if its files could not be read."""
    run_id: str = ""
    """The run that logged it."""


class ModelManager:
    """Keeps the version that the alias names in service.

    ``serving`` is the only reference that a request reads, so a swap is one assignment. A version is rejected if it
    cannot be loaded, has no usable signature, would break the requests that clients send today, or cannot predict in a
    trial; the version before it keeps serving. While the registry is unavailable, the cached version serves.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        cache: ModelCache,
        settings: ServingSettings,
        health: Health,
        privacy: Privacy = NO_PRIVACY,
    ) -> None:
        """Create the manager; :meth:`restore_cached` and :meth:`refresh` load the first version."""
        self.serving: ServingModel | None = None
        self.rejected: RejectedVersion | None = None
        self.alias_version: str | None = None
        """The version that the alias, or the setting that pins one, named at the last look-up."""
        self.source: VersionSource = "setting" if settings.pinned_version else "alias"
        """What names the version in service; ``cache`` until the registry has been reached for the first time, and
        ``nothing`` while no version has the alias."""
        self._previous: ServingModel | None = None  # until the version in service has answered a request
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._registry = registry
        self._cache = cache
        self._settings = settings
        self._health = health
        self._privacy = privacy
        self._privacy_record = PrivacyRecordCheck(registry, privacy, health)
        self._refresh_lock = threading.Lock()
        health.mark_unavailable(
            "model", "the registry has not said yet which version has the alias (DRIFTLOOP_REGISTRY__URI)"
        )

    def restore_cached(self) -> None:
        """Serve the cached version, if there is one: its schema matches what clients send today.

        It needs no registry. Otherwise the first :meth:`refresh` loads a version.
        """
        with self._refresh_lock:
            self._restore_cached()

    def refresh(self) -> None:
        """Look the alias up, and swap if it names another version. Blocks while that is downloaded and loaded.

        Does not raise: what follows the alias must go on after any error.
        """
        with self._refresh_lock:
            try:
                self._replace_failing_version()
                self._sync_with_alias()
            except Exception as error:  # see above
                expected = isinstance(error, DependencyUnavailable | RegistryRefused | ModelRejected | OSError)
                reason = f"{error}" if expected else f"{type(error).__name__}: {error}"
                log.warning("model.registry_unavailable", error=reason, exc_info=not expected)
                reason = f"the registry is unavailable: {reason}"
                self._health.add_warning("registry", reason)
                if self.serving is None:
                    self._health.mark_unavailable("model", reason)
            if self.serving is not None:
                self._health.mark_available("model")

    def _sync_with_alias(self) -> None:
        version = self._named_version()
        self.alias_version = None if version is None else version.number
        self._report_alias(self.alias_version)
        if version is None:
            self._health.clear_warning("registry")
            self.source = "nothing"
            return
        self._report_served(version)  # before a swap, which may fail or take long
        if self.serving is not None and version == self.serving.identity:
            self._set_rejected(None)
        elif self._is_due(version):
            traceparent = self._registry.traceparent(version.number) if tracing.is_enabled() else None
            with tracing.span("swap", parents=[traceparent], version=version.number):
                self._swap(version)
        self._report_served(version)
        if self.serving is not None:
            self._privacy_record.check(self.serving.identity)
        self._health.clear_warning("registry")
        self.source = "setting" if self._settings.pinned_version else "alias"

    def _named_version(self) -> RegisteredVersion | None:
        """Return the version that the alias or the setting names; one that is pinned and serves needs no registry."""
        pinned = self._settings.pinned_version
        if pinned is None:
            return self._registry.identified_champion()
        try:
            return self._registry.identified(pinned)
        except RegistryUnavailable:
            if self.serving is None or self.serving.version != pinned:
                raise
            return self.serving.identity

    def _report_served(self, version: RegisteredVersion) -> None:
        metrics.ALIAS_NOT_SERVED.set(self.serving is not None and version != self.serving.identity)

    def _report_alias(self, version: str | None) -> None:
        """Warn if the alias, the version that it named or the whole model has been deleted."""
        metrics.ALIAS_MISSING.set(version is None)
        if version is None:
            metrics.ALIAS_NOT_SERVED.set(0)
        if version is not None:
            self._health.clear_warning("alias")
            return
        reason = f"no version of {self._registry.model} has the alias {self._registry.alias}"
        if self.serving is None:
            self._health.mark_unavailable("model", f"{reason} yet")
        elif "alias" not in self._health.warnings:
            log.warning("model.alias_missing", alias=self._registry.alias, version=self.serving.version)
            self._health.add_warning("alias", f"{reason} any more; version {self.serving.version} keeps serving")

    def _is_due(self, version: RegisteredVersion) -> bool:
        """Return whether a version is to be loaded: it has not been rejected, or it is time to try it again."""
        if self.rejected is None or version != (self.rejected.version, self.rejected.run_id):
            self._retry_seconds = FIRST_RETRY_SECONDS
            return True
        return self.rejected.retry_at is not None and now() >= self.rejected.retry_at

    def _restore_cached(self) -> None:
        version = self._cache.last_served()
        if version is None or self._settings.pinned_version not in (None, version.number):
            return
        try:
            model = self._load_throttled(version, has_served=True)
        except Exception as error:  # noqa: BLE001  # the registry may have it in better shape
            log.warning("model.cached_version_unusable", version=version.number, reason=str(error))
        else:
            self._activate(model)
            self.source = "cache"
            self._health.mark_available("model")

    def _swap(self, version: RegisteredVersion) -> None:
        try:
            model = self._load_throttled(version, has_served=False)
        except ModelRejected as error:
            tracing.set_attributes(rejection=str(error))
            retry_at = None
            if isinstance(error, ModelFilesUnreadable):
                self._cache.discard(version)
                retry_at = now() + timedelta(seconds=self._retry_seconds)
                self._retry_seconds = min(2 * self._retry_seconds, MAX_RETRY_SECONDS)
            self._set_rejected(RejectedVersion(version.number, str(error), now(), retry_at, version.run_id))
            return
        self._previous = self.serving
        self._activate(model)
        self._set_rejected(None)

    def _activate(self, model: ServingModel) -> None:
        previous, self.serving = self.serving, model
        metrics.MODEL_SWAPS.inc()
        if previous is not None:
            metrics.SERVING_VERSION.labels(self._registry.model, previous.version).set(0)
        metrics.SERVING_VERSION.labels(self._registry.model, model.version).set(1)
        log.info(
            "model.swapped",
            version=model.version,
            run_id=model.run_id,
            previous_version=previous and previous.version,
        )
        self._cache.mark_served(model.identity)

    def _set_rejected(self, rejected: RejectedVersion | None) -> None:
        is_new = rejected is not None and (
            self.rejected is None
            or (rejected.version, rejected.run_id) != (self.rejected.version, self.rejected.run_id)
        )
        self.rejected = rejected
        metrics.ALIAS_REJECTED.set(rejected is not None)
        if rejected is None:
            self._health.clear_warning("version")
            return
        if is_new:
            metrics.REJECTIONS.inc()
        log.error(
            "model.version_rejected", version=rejected.version, reason=rejected.reason, retry_at=rejected.retry_at
        )
        warning = f"version {rejected.version} is rejected: {rejected.reason}"
        self._health.add_warning("version", warning)
        if self.serving is None:
            self._health.mark_unavailable("model", warning)

    def _replace_failing_version(self) -> None:
        """Warn if the version in service fails for all its last requests; serve the one before if it always has."""
        serving = self.serving
        if serving is None:
            return
        if serving.record.has_succeeded:
            self._previous = None
        failing = serving.record.consecutive_failures >= self._settings.max_consecutive_failures
        metrics.VERSION_FAILING.set(failing)
        if not failing:
            self._health.clear_warning("predictions")
            return
        reason = (
            f"version {serving.version} has answered none of its last {serving.record.consecutive_failures} requests: "
            f"{serving.record.last_error}"
        )
        if self._previous is None or not self._settings.restore_previous:
            if "predictions" not in self._health.warnings:
                log.error("model.version_failing", version=serving.version, reason=reason)
            self._health.add_warning("predictions", reason)
            return
        previous, self._previous = self._previous, None
        log.error("model.previous_version_restored", version=previous.version, reason=reason)
        self._activate(previous)
        metrics.VERSION_FAILING.set(False)
        self._set_rejected(RejectedVersion(serving.version, reason, now(), run_id=serving.identity.run_id))

    def _load_throttled(self, version: RegisteredVersion, *, has_served: bool) -> ServingModel:
        """Load and try a version; throttled if another version serves meanwhile.

        Raises:
            ModelRejected: The version fails a check.
        """
        with _throttled() if self.serving else nullcontext():
            folder = self._cache.fetch(version)
            try:
                return self._load_and_try(version, folder, has_served=has_served)
            except ModelRejected:
                raise
            except Exception as error:
                reason = self._privacy.describe_error(error)
                log.warning(
                    "model.load_failed",
                    version=version.number,
                    error=reason,
                    exc_info=not self._privacy.has_private_features,
                )
                raise ModelRejected(f"it cannot be served: {reason}") from error

    def _load_and_try(self, version: RegisteredVersion, folder: Path, *, has_served: bool) -> ServingModel:
        loaded = load_model(folder, self._registry.trusted_types)
        schema = build_schema(loaded.signature, self._settings.max_rows)
        try:
            self._privacy.require_features(schema.columns, f"version {version.number}")
        except InvalidInput as error:
            raise ModelRejected(str(error)) from error
        if self.serving is not None:
            self._check_compatibility(version.number, self.serving.schema.incompatibilities_with(schema))
        model = try_model(
            ServingModel(version.number, schema, loaded, run_id=version.run_id or None),
            self.serving,
            self._settings.missing_values,
            has_served=has_served,
            privacy=self._privacy,
        )
        if self.serving is not None:
            self._check_compatibility(version.number, self.serving.output.incompatibilities_with(model.output))
        return model

    def _check_compatibility(self, version: str, incompatibilities: Sequence[str]) -> None:
        if not incompatibilities:
            return
        reason = f"today's clients would fail: {'; '.join(incompatibilities)}"
        if self._settings.on_signature_change == "reject":
            raise ModelRejected(f"{reason} (DRIFTLOOP_PREDICTOR__ON_SIGNATURE_CHANGE=accept allows it)")
        log.warning("model.signature_changed", version=version, reason=reason)


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
