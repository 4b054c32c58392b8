"""The predictor's application for tests: real, except for the registry."""

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
from starlette.types import ASGIApp

from driftloop.privacy import NO_PRIVACY, Privacy
from driftloop.telemetry.health import Health
from predictor.http.application import create_application
from predictor.http.dependencies import ApiDependencies
from predictor.outbox.outbox import Outbox
from predictor.serving.batching import Batcher
from predictor.settings import OutboxSettings, ServingSettings
from tests.support.peer_environments import UvNotInstalled, ensure_environment
from tests.support.predictor_app import StaticModelManager

MakeClient = Callable[..., AbstractContextManager[TestClient]]
Serve = Callable[..., AbstractContextManager[str]]


def create_test_application(
    manager: StaticModelManager,
    outbox: Outbox,
    model_name: str = "m",
    privacy: Privacy = NO_PRIVACY,
    **changed: Any,
) -> ASGIApp:
    """Create the application of a model with some settings changed from the defaults."""
    settings = ServingSettings(**{"max_rows": 3, **changed})
    health = Health(stall_seconds=float("inf"))  # no heartbeats here: the loop that polls the alias sends them
    health.mark_started()
    batcher = Batcher(model_name, outbox, settings.max_batch_rows, settings.max_queued_rows, privacy)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        batcher.close()

    double: Any = manager
    accepts_unknown_labels = settings.unknown_labels == "accept"
    dependencies = ApiDependencies(model_name, double, batcher, outbox, health, accepts_unknown_labels, privacy)
    return create_application(dependencies, settings, lifespan)


@pytest.fixture
def manager() -> StaticModelManager:
    return StaticModelManager()


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path, OutboxSettings())
    yield outbox
    outbox.close()


@pytest.fixture
def make_client(manager: StaticModelManager, outbox: Outbox) -> MakeClient:
    """Return a context manager that starts the application, with another outbox or other settings if given."""

    @contextmanager
    def start(outbox: Outbox = outbox, **changed: Any) -> Iterator[TestClient]:
        with TestClient(create_test_application(manager, outbox, **changed)) as client:
            yield client

    return start


@pytest.fixture
def client(make_client: MakeClient) -> Iterator[TestClient]:
    with make_client() as client:
        yield client


@pytest.fixture(scope="session")
def serve() -> Serve:
    """Return a context manager that serves the application on a port of its own and yields its URL."""

    @contextmanager
    def serve(manager: StaticModelManager, outbox: Outbox, **changed: Any) -> Iterator[str]:
        application = create_test_application(manager, outbox, **{"max_rows": 100, **changed})
        server = uvicorn.Server(uvicorn.Config(application, port=0, log_config=None, access_log=False))
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
def server(serve: Serve, manager: StaticModelManager, outbox: Outbox) -> Iterator[str]:
    with serve(manager, outbox) as url:
        yield url


@pytest.fixture(scope="session")
def peer_executables() -> Callable[[str], Path]:
    """Return a function that installs a peer if needed and returns the folder of its executables."""

    def executables(peer: str) -> Path:
        try:
            return ensure_environment(peer)
        except (UvNotInstalled, subprocess.CalledProcessError) as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"{peer} cannot be installed: {error}")

    return executables
