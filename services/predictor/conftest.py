"""The application as the tests start it: real, except for the registry."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from driftloop.telemetry import Health
from predictor import api, settings
from predictor.batching import Batcher
from predictor.front import Front
from predictor.outbox import Outbox
from predictor.protocols import paths
from predictor_stand_in import Always

Start = Callable[..., AbstractContextManager[TestClient]]


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
        mine = settings.Predictor(**{"max_rows": 3, **changed})
        health = Health()
        health.started()
        batcher = Batcher("m", box, mine.max_batch_rows, mine.max_queued_rows)

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            yield
            batcher.close()

        app = api.create("m", champion, batcher, box, health, lifespan)  # type: ignore[arg-type]  # a stand-in
        front = Front(app, paths("m"), champion, batcher, "m", mine)  # type: ignore[arg-type]
        with TestClient(front) as client:
            yield client

    return start


@pytest.fixture
def client(client_of: Start) -> Iterator[TestClient]:
    with client_of() as client:
        yield client
