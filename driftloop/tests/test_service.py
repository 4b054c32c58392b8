"""A service runs its loop and its endpoints until a signal, and closes both in any case."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from driftloop import service
from driftloop.service import run_service
from driftloop.settings import ServerSettings
from driftloop.telemetry.health import Health
from tests.support.ports import reserve_ports

APP = Starlette(routes=[Route("/", lambda _: PlainTextResponse("here"))])


class FakeLoop:
    """A loop that calls ``during`` once and then waits for its stop."""

    def __init__(self, url: str, error: Exception | None = None) -> None:
        self.url, self.error = url, error
        self.body = ""
        self.closed = False

    def run(self, stop: threading.Event) -> None:
        if self.error is not None:
            raise self.error
        self.body = httpx.get(self.url).text
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(10)

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(service, "start_watchdog", lambda _: None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def server() -> ServerSettings:
    return ServerSettings(host="127.0.0.1", port=reserve_ports(1)[0])


def test_run_service_serves_until_sigterm(server: ServerSettings) -> None:
    loop, health = FakeLoop(f"http://127.0.0.1:{server.port}/"), Health()
    run_service(loop, APP, server, health)  # type: ignore[arg-type]
    assert loop.body == "here"
    assert loop.closed
    assert health.unavailable == {}


def test_run_service_closes_loop_that_raises(server: ServerSettings) -> None:
    loop = FakeLoop("", RuntimeError("disk full"))
    with pytest.raises(RuntimeError, match="disk full"):
        run_service(loop, APP, server, Health())  # type: ignore[arg-type]
    assert loop.closed
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            httpx.get(f"http://127.0.0.1:{server.port}/")
        except httpx.TransportError:
            return
        time.sleep(0.05)
    pytest.fail("the server still answers")


def test_run_service_ends_a_loop_that_waits_for_something_that_does_not_answer(server: ServerSettings) -> None:
    script = f"""
import time
from starlette.applications import Starlette
from driftloop import service
from driftloop.settings import ServerSettings
from driftloop.telemetry.health import Health

class Loop:
    def run(self, stop):
        print("waits", flush=True)
        time.sleep(3600)

    def close(self):
        raise SystemExit("not reached")

service.GRACE_SECONDS = 0.2
service.run_service(Loop(), Starlette(), ServerSettings(host="127.0.0.1", port={server.port}), Health())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        process.terminate()
        output = process.stdout.read()
    assert (process.returncode, "service.stop_forced" in output) == (0, True)
