"""Run a service that consumes events: its consume loop and its HTTP endpoints, until SIGTERM."""

import signal
from threading import Event

from starlette.types import ASGIApp

from driftloop.asgi import answer_head, refuse_foreign_pages
from driftloop.kafka.consumer_loop import ConsumerLoop
from driftloop.settings import ServerSettings
from driftloop.telemetry.health import Health, start_watchdog
from driftloop.telemetry.http import serve_in_thread


def run_service(loop: ConsumerLoop, app: ASGIApp, server: ServerSettings, health: Health) -> None:
    """Run ``loop`` in the main thread and serve ``app`` from another one, until SIGTERM or SIGINT.

    When the loop ends or raises, the HTTP server stops first, then the loop is closed. A watchdog ends the process if
    the loop makes no progress, so that its supervisor restarts it.

    Args:
        loop: The loop to run; its exceptions are raised here.
        app: The service's HTTP endpoints.
        server: Where to listen.
        health: The health that ``loop`` sends heartbeats to.
    """
    start_watchdog(health)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with serve_in_thread(answer_head(refuse_foreign_pages(app)), server.host, server.port):
            health.mark_started()
            loop.run(stop)
    finally:
        loop.close()
