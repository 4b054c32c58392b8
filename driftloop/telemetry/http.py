"""The operational HTTP routes of every service, and a server for services whose main thread runs a loop."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import ASGIApp

from driftloop.telemetry.health import Health
from driftloop.telemetry.multiprocess import metrics_registry


def operational_routes(health: Health, before_scrape: Callable[[], None] = lambda: None) -> APIRouter:
    """Return the routes ``/metrics``, ``/healthz`` and ``/readyz``.

    ``before_scrape`` is called on each request for ``/metrics`` and sets gauges that are computed only on demand.
    """
    router = APIRouter(tags=["operation"])

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    def metrics() -> Response:
        before_scrape()
        return Response(generate_latest(metrics_registry()), media_type=CONTENT_TYPE_LATEST)

    @router.get("/healthz", summary="Liveness: the service makes progress")
    def healthz() -> JSONResponse:
        reason = health.stalled_reason
        return JSONResponse({"alive": reason is None, "reason": reason}, 200 if reason is None else 503)

    @router.get("/readyz", summary="Readiness: the service can do its work")
    def readyz() -> JSONResponse:
        unavailable = health.unavailable
        body = {"ready": not unavailable, "unavailable": unavailable, "warnings": health.warnings}
        return JSONResponse(body, 503 if unavailable else 200)

    return router


@contextmanager
def serve_in_thread(app: ASGIApp, host: str, port: int) -> Iterator[None]:
    """Serve ``app`` from another thread until the block ends, so that the main thread is free for a consumer loop.

    Raises:
        OSError: the server cannot listen on the port.
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
