"""What a service tells of itself: structured logs, metrics, whether it is alive and whether it can work."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version

import structlog
import uvicorn
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, disable_created_metrics, generate_latest
from starlette.types import ASGIApp

from driftloop.settings import Log
from driftloop.telemetry import tracing
from driftloop.telemetry.multiprocess import registry

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody reads

BUILD = Gauge("driftloop_build_info", "1: what runs.", ["service", "version"], multiprocess_mode="livemax")


def configure_logging(service: str, settings: Log) -> None:
    """One line an event on standard error, from this service and from the libraries it uses."""

    def name_service(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {"service": service, **event, **tracing.ids()}

    shared: list[structlog.typing.Processor] = [
        name_service,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    human = settings.format == "human" or (settings.format is None and sys.stderr.isatty())
    last: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if human
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *last,
            ],
        )
    )
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for library in ("kafka", "httpx"):  # their connections are of interest only when they fail
        logging.getLogger(library).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def name_build(service: str) -> None:
    """Says in the metrics which version of a service runs; once, by the process that the others end with."""
    BUILD.labels(service, version(f"driftloop-{service.replace('_', '-')}")).set(1)


class Health:
    """Liveness is progress, beaten by the loop itself; readiness is "I can do my work now". Both say why not."""

    def __init__(self, stale_seconds: float = 60) -> None:
        """``stale_seconds`` without a beat count as stuck."""
        self._stale_seconds = stale_seconds
        self._last_beat = time.monotonic()
        self._missing: dict[str, str] = {"start": "starting"}
        self._warnings: dict[str, str] = {}

    def beat(self) -> None:
        """The loop made progress."""
        self._last_beat = time.monotonic()

    def started(self) -> None:
        """Everything is wired; from here on only what :meth:`lacks` names is in the way."""
        self._missing.pop("start", None)

    def lacks(self, part: str, why: str) -> None:
        """The service cannot work without ``part``."""
        self._missing[part] = why

    def has(self, part: str) -> None:
        """``part`` is there."""
        self._missing.pop(part, None)

    def warns(self, part: str, why: str) -> None:
        """The service works, and somebody should look at ``part``."""
        self._warnings[part] = why

    def heeds(self, part: str) -> None:
        """What :meth:`warns` said of ``part`` is over."""
        self._warnings.pop(part, None)

    @property
    def stuck(self) -> str | None:
        """Why the service does not count as alive."""
        silent = time.monotonic() - self._last_beat
        return f"no progress for {silent:.0f} s" if silent > self._stale_seconds else None

    @property
    def missing(self) -> dict[str, str]:
        """Why the service cannot work, by part; empty when it can."""
        return dict(self._missing)

    @property
    def warnings(self) -> dict[str, str]:
        """What somebody should look at, by part."""
        return dict(self._warnings)


def end_when_stuck(health: Health) -> None:
    """Ends this process once it counts as stuck: kafka-python may wait for ever after a broker's restart."""

    def watch() -> None:
        while (why := health.stuck) is None:
            time.sleep(1)
        structlog.get_logger(__name__).error("stuck, so this process ends and another may begin", why=why)
        os._exit(1)

    threading.Thread(target=watch, name="watch", daemon=True).start()


def operational_routes(health: Health, measure: Callable[[], None] = lambda: None) -> APIRouter:
    """``/metrics``, ``/healthz`` and ``/readyz``: the same for every service.

    ``measure`` sets what is measured when it is asked for.
    """
    router = APIRouter(tags=["operation"])

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    def metrics() -> Response:
        measure()
        return Response(generate_latest(registry()), media_type=CONTENT_TYPE_LATEST)

    @router.get("/healthz", summary="Alive: makes progress")
    def healthz() -> JSONResponse:
        stuck = health.stuck
        return JSONResponse({"alive": stuck is None, "why": stuck}, 200 if stuck is None else 503)

    @router.get("/readyz", summary="Ready: can do its work")
    def readyz() -> JSONResponse:
        missing = health.missing
        body = {"ready": not missing, "missing": missing, "warnings": health.warnings}
        return JSONResponse(body, 503 if missing else 200)

    return router


@contextmanager
def served(app: ASGIApp, host: str, port: int) -> Iterator[None]:
    """Serves ``app`` beside a loop that owns the main thread, until the block ends.

    Raises :class:`OSError` where it cannot listen.
    """
    server = uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, name="http", daemon=True)
    thread.start()
    while not server.started:
        thread.join(timeout=0.05)
        if not thread.is_alive():
            raise OSError(f"cannot listen on {host}:{port}: is the port in use? (the setting DRIFTLOOP_…__PORT)")
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=5)
