"""Run a service that consumes events: its consume loop and its HTTP endpoints, until SIGTERM."""

import os
import signal
from threading import Event, Timer

import structlog
from starlette.types import ASGIApp

from driftloop.asgi import answer_head, refuse_foreign_pages
from driftloop.kafka.consumer_loop import ConsumerLoop
from driftloop.settings import ServerSettings
from driftloop.telemetry.health import Health, start_watchdog
from driftloop.telemetry.http import serve_in_thread

GRACE_SECONDS = 20  # supervisors kill after 30 s or more


def run_service(loop: ConsumerLoop, app: ASGIApp, server: ServerSettings, health: Health) -> None:
    """Run ``loop`` in the main thread and serve ``app`` from another one, until SIGTERM or SIGINT.

    When the loop ends or raises, the HTTP server stops first, then the loop is closed. A watchdog ends the process if
    the loop makes no progress, so that its supervisor restarts it. A loop that has not ended :data:`GRACE_SECONDS`
    after the signal, because it waits for something that does not answer, is ended with the process, as by a kill.

    Args:
        loop: The loop to run; its exceptions are raised here.
        app: The service's HTTP endpoints.
        server: Where to listen.
        health: The health that ``loop`` sends heartbeats to.
    """
    start_watchdog(health)
    stop = Event()
    forced_exit = Timer(GRACE_SECONDS, _exit_now)
    forced_exit.daemon = True

    def end(*_: object) -> None:
        if not stop.is_set():
            stop.set()
            forced_exit.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        with serve_in_thread(answer_head(refuse_foreign_pages(app)), server.host, server.port):
            health.mark_started()
            loop.run(stop)
    finally:
        loop.close()
        forced_exit.cancel()


def _exit_now() -> None:
    structlog.get_logger(__name__).warning("service.stop_forced", grace_seconds=GRACE_SECONDS)
    os._exit(0)
