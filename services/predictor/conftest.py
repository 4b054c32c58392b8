"""The application as the tests start it: real, except for the registry."""

import os
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from driftloop.telemetry.health import Health
from predictor import settings
from predictor.http import admin
from predictor.http.gateway import Front
from predictor.http.protocols import paths
from predictor.outbox.outbox import Outbox
from predictor.serving.batching import Batcher
from tests.support.peer_environments import NoInstaller, environment
from tests.support.predictor_app import Always

Start = Callable[..., AbstractContextManager[TestClient]]
Serve = Callable[..., AbstractContextManager[str]]


def application(champion: Always, outbox: Outbox, **changed: Any) -> Front:
    """The application with other settings than the defaults."""
    mine = settings.Predictor(**{"max_rows": 3, **changed})
    health = Health(stale_seconds=float("inf"))  # nothing beats here: the loop that looks the alias up does it
    health.started()
    batcher = Batcher("m", outbox, mine.max_batch_rows, mine.max_queued_rows)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        batcher.close()

    app = admin.create("m", champion, batcher, outbox, health, lifespan)  # type: ignore[arg-type]  # a stand-in
    return Front(app, paths("m"), champion, batcher, "m", mine)  # type: ignore[arg-type]


@pytest.fixture
def champion() -> Always:
    return Always()


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path, settings.Outbox())
    yield outbox
    outbox.close()


@pytest.fixture
def client_of(champion: Always, outbox: Outbox) -> Start:
    """Starts the application with other settings than the defaults; ``box`` may be another outbox."""

    @contextmanager
    def start(box: Outbox = outbox, **changed: Any) -> Iterator[TestClient]:
        with TestClient(application(champion, box, **changed)) as client:
            yield client

    return start


@pytest.fixture
def client(client_of: Start) -> Iterator[TestClient]:
    with client_of() as client:
        yield client


@pytest.fixture(scope="session")
def serve() -> Serve:
    """Serves the application as ``predictor.main`` does, on a port of its own; gives its address."""

    @contextmanager
    def serve(champion: Always, outbox: Outbox, **changed: Any) -> Iterator[str]:
        front = application(champion, outbox, **{"max_rows": 100, **changed})
        server = uvicorn.Server(uvicorn.Config(front, port=0, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, name="http", daemon=True)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server ended while it started"
                thread.join(0.01)
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive(), "the server did not end"

    return serve


@pytest.fixture
def server(serve: Serve, champion: Always, outbox: Outbox) -> Iterator[str]:
    with serve(champion, outbox) as url:
        yield url


@pytest.fixture(scope="session")
def programs_of() -> Callable[[str], Path]:
    """The programs of a peer, installed where that has not been done yet; without a network there may be none."""

    def programs(peer: str) -> Path:
        try:
            return environment(peer)
        except (NoInstaller, subprocess.CalledProcessError) as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"{peer} cannot be installed: {error}")

    return programs
