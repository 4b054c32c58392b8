"""Waiting for a service, against a real HTTP server."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stack import readiness
from stack.readiness import wait_until_ready

NOT_READY = json.dumps({"ready": False, "unavailable": {"model": "no version is in service"}}).encode()


class FakeService(ThreadingHTTPServer):
    """Is not ready for some requests; the first ones get the bodies that a test has queued, with a 503."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = service.bodies.pop(0) if service.bodies else None
                self.send_response(200 if body is None else 503)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    monkeypatch.setattr(readiness, "POLL_SECONDS", 0)
    with FakeService() as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        yield service
        service.shutdown()


def test_wait_ends_with_the_first_answer_of_a_service_that_is_ready(service: FakeService) -> None:
    service.bodies = [NOT_READY, NOT_READY]
    assert wait_until_ready(service.url, 600) is None
    assert service.bodies == []


@pytest.mark.parametrize(
    ("body", "answer"),
    [(NOT_READY, "503 model: no version is in service"), (b"a proxy's page", "503 a proxy's page")],
    ids=["own answer", "of something else"],
)
def test_wait_that_takes_too_long_returns_the_last_answer(service: FakeService, body: bytes, answer: str) -> None:
    service.bodies = [body]
    assert wait_until_ready(service.url, 0) == answer


def test_wait_names_the_error_if_nothing_answers() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and does not listen
        assert "ConnectError" in (wait_until_ready(f"http://127.0.0.1:{silent.getsockname()[1]}", 0) or "")


def test_wait_ends_if_the_check_fails(service: FakeService) -> None:
    class EndedError(Exception):
        pass

    def check() -> None:
        raise EndedError

    with pytest.raises(EndedError):
        wait_until_ready(service.url, 600, check)
