"""The frame of a service that consumes events: its pages beside its loop, until SIGTERM."""

import signal
from threading import Event

from starlette.types import ASGIApp

from driftloop.kafka.consumer_loop import Loop
from driftloop.settings import Server
from driftloop.telemetry.health import Health, end_when_stuck, served


def run(loop: Loop, app: ASGIApp, server: Server, health: Health) -> None:
    """Runs the loop in this thread, which must be the main one, and serves ``app`` beside it.

    Returns on SIGTERM or SIGINT; raises what the loop raises. Either way the pages end first, and the loop is closed.
    A loop that makes no progress ends the process, so that whoever started it starts another.
    """
    end_when_stuck(health)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with served(app, server.host, server.port):
            health.started()
            loop.run(stop)
    finally:
        loop.close()
