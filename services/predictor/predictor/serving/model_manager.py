"""The version in service: load, check, warm up, swap."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import cycle, islice
from time import perf_counter, sleep
from typing import Any, Literal, NamedTuple

import numpy.typing as npt
import pandas as pd
import structlog
from mlflow.exceptions import MlflowException
from threadpoolctl import threadpool_limits

from driftloop.events import now
from driftloop.registry.model_registry import Refused, Registry, StoredModel, read
from driftloop.telemetry import tracing
from driftloop.telemetry.health import Health
from predictor import metrics
from predictor.serving.model_cache import Versions
from predictor.serving.model_output import Output
from predictor.serving.schema import Columns, Schema, schema
from predictor.settings import Predictor

log = structlog.get_logger(__name__)

METHODS = ("predict", "predict_proba", "predict_log_proba")
WARM_UP_ROWS = (1, 8, 64, 512)
# How a version is loaded while another one answers: for a third of the time. With all of it, p99 doubles meanwhile.
RUN_SECONDS, PAUSE_SECONDS = 0.002, 0.004
SWITCH_SECONDS = 0.0005  # a tenth of Python's own


class Unscorable(Exception):
    """The model cannot answer for these rows; says why."""


@dataclass(frozen=True, eq=False)
class Serving:
    """A version that can answer."""

    version: str
    schema: Schema
    stored: StoredModel
    sample: Output | None = None
    """What it answers for the first row of its input example."""
    loaded_at: datetime = field(default_factory=now)

    def predict(self, columns: Columns) -> Output:
        """What the estimator's method, as the model's MLflow description names it, returns for the rows.

        Raises :class:`Unscorable` where it is no finite number, and whatever the estimator raises.
        """
        method = self.stored.predict_fn
        output = Output.of(getattr(self.stored.estimator, method)(self.schema.frame(columns)), method)
        if not output.finite:
            raise Unscorable("the model's answer is not a finite number")
        return output


class Refusal(NamedTuple):
    """A version that was not taken into service."""

    version: str
    why: str
    at: datetime


class Champion:
    """Follows the alias. ``serving`` is the one reference that a request reads: a swap is its assignment.

    A version that cannot be loaded, has no usable signature, would break today's requests or does not answer its own
    example is refused; the one before it goes on serving. The last good one also serves where the registry is away.
    """

    def __init__(self, registry: Registry, versions: Versions, settings: Predictor, health: Health) -> None:
        """Nothing is loaded before :meth:`start`."""
        self.serving: Serving | None = None
        self.refusal: Refusal | None = None
        self.source: Literal["alias", "setting", "disk"] = "setting" if settings.version else "alias"
        """What names the version in service; the disk, while the registry has not been reached yet."""
        self._registry = registry
        self._versions = versions
        self._settings = settings
        self._health = health
        self._one_at_a_time = threading.Lock()
        health.lacks("model", "the alias has not been looked up yet")

    def start(self) -> None:
        """Takes the last good version from the disk, which needs no registry; without one, looks the alias up.

        Returns when a version serves, or when it is known why none does.
        """
        with self._one_at_a_time:
            self._restore()
        if self.serving is None:
            self.refresh()

    def refresh(self) -> None:
        """Looks the alias up and swaps where it names another version. Takes as long as fetching and loading."""
        with self._one_at_a_time:
            try:
                self._follow()
            except (MlflowException, OSError) as error:
                why = f"the registry is out of reach: {error}"
                log.warning("registry out of reach", error=str(error))
                self._health.warns("registry", why)
                if self.serving is None:
                    self._health.lacks("model", why)
            if self.serving is not None:
                self._health.has("model")

    def _follow(self) -> None:
        version = self._settings.version or self._registry.champion()
        if version is None:
            self._health.heeds("registry")
            if self.serving is None:
                self._health.lacks(
                    "model", f"no version of {self._registry.model} has the alias {self._registry.alias} yet"
                )
            return
        if self.serving is not None and version == self.serving.version:
            self._refused(None)
        elif self.refusal is None or version != self.refusal.version:
            made = self._registry.traceparent(version) if tracing.on() else None
            with tracing.span("swap", of=[made], version=version):
                self._swap(version)
        self._health.heeds("registry")
        self.source = "setting" if self._settings.version else "alias"

    def _restore(self) -> None:
        """Today's requests fit the last good version."""
        version = self._versions.last_good()
        if version is None or self._settings.version not in (None, version):
            return
        try:
            self._take(self._checked(version))
        except (Refused, MlflowException, OSError) as error:
            log.warning("the version on disk cannot serve", version=version, why=str(error))
        else:
            self.source = "disk"
            self._health.has("model")

    def _swap(self, version: str) -> None:
        try:
            new = self._checked(version)
        except Refused as error:
            tracing.tell(refused=str(error))
            self._refused(Refusal(version, str(error), now()))
            return
        self._take(new)
        self._versions.keep(version)
        self._refused(None)

    def _take(self, new: Serving) -> None:
        old, self.serving = self.serving, new
        metrics.SWAPS.inc()
        if old is not None:
            metrics.IN_SERVICE.labels(self._registry.model, old.version).set(0)
        metrics.IN_SERVICE.labels(self._registry.model, new.version).set(1)
        log.info("version in service", version=new.version, before=old and old.version)

    def _refused(self, refusal: Refusal | None) -> None:
        self.refusal = refusal
        metrics.REFUSED.set(refusal is not None)
        if refusal is None:
            self._health.heeds("version")
            return
        metrics.REFUSALS.inc()
        log.error("version refused", version=refusal.version, why=refusal.why)
        why = f"version {refusal.version} is refused: {refusal.why}"
        self._health.warns("version", why)
        if self.serving is None:
            self._health.lacks("model", why)

    def _checked(self, version: str) -> Serving:
        """A version that has passed every check. Raises :class:`Refused`."""
        with _in_the_background() if self.serving else nullcontext():
            return self._loaded(version)

    def _loaded(self, version: str) -> Serving:
        stored = read(self._versions.fetch(version), self._settings.trusted_types)
        if stored.predict_fn not in METHODS or not hasattr(stored.estimator, stored.predict_fn):
            raise Refused(f"its answers come from {stored.predict_fn}, and only {', '.join(METHODS)} are served")
        example = stored.example if isinstance(stored.example, pd.DataFrame) else None
        serving = Serving(version, schema(stored.signature, example, self._settings.max_rows), stored)
        if self.serving is not None and (broken := self.serving.schema.breaks(serving.schema)):
            reasons = f"today's requests would fail: {'; '.join(broken)}"
            if self._settings.signature_changes == "refuse":
                raise Refused(f"{reasons} (DRIFTLOOP_PREDICTOR__SIGNATURE_CHANGES=accept takes it all the same)")
            log.warning("the signature changes", version=version, why=reasons)
        return serving if stored.example is None else replace(serving, sample=_warmed_up(serving, stored.example))


@contextmanager
def _in_the_background() -> Iterator[None]:
    """Leaves Python's lock to the requests that are answered meanwhile: this thread pauses for most of the time.

    Its priority would not help, since the lock knows none. So it looks at the clock whenever it calls a function, and
    the others wait for a fraction of the usual interval where they find the lock taken. One OpenMP thread, because
    those of several trees wait for one another.
    """
    until = perf_counter() + RUN_SECONDS

    def pause(*_: object) -> None:
        nonlocal until
        if perf_counter() > until:
            sleep(PAUSE_SECONDS)
            until = perf_counter() + RUN_SECONDS

    usual = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    sys.setprofile(pause)
    try:
        with threadpool_limits(1):
            yield
    finally:
        sys.setprofile(None)
        sys.setswitchinterval(usual)


def _warmed_up(serving: Serving, example: pd.DataFrame | npt.NDArray[Any]) -> Output:
    """What a version answers to its own example, after batches of several sizes."""
    try:
        columns = serving.schema.given(example)
        for size in WARM_UP_ROWS:
            serving.predict({name: list(islice(cycle(cells), size)) for name, cells in columns.items()})
        return serving.predict({name: cells[:1] for name, cells in columns.items()})
    except Exception as error:  # an estimator is somebody else's code
        raise Refused(f"it does not answer its own input example: {type(error).__name__}: {error}") from error
