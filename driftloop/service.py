"""The frame of a service that consumes events: its pages beside its loop, until SIGTERM."""

import signal
from threading import Event

from starlette.types import ASGIApp

from driftloop.kafka.consumer_loop import ConsumerLoop
from driftloop.settings import ServerSettings
from driftloop.telemetry.health import Health, start_watchdog
from driftloop.telemetry.http import serve_in_thread


def run_service(loop: ConsumerLoop, app: ASGIApp, server: ServerSettings, health: Health) -> None:
    """Runs the loop in this thread, which must be the main one, and serves ``app`` beside it.

    Returns on SIGTERM or SIGINT; raises what the loop raises. Either way the pages end first, and the loop is closed.
    A loop that makes no progress ends the process, so that whoever started it starts another.
    """
    start_watchdog(health)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with serve_in_thread(app, server.host, server.port):
            health.mark_started()
            loop.run(stop)
    finally:
        loop.close()
