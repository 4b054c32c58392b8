"""What tests of every folder may use."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from driftloop.settings import Storage

BUCKET = "driftloop"
APART = ("test_operator", "test_exactly_once", "test_trainer_faults", "test_worker_faults")
"""The files of ``tests`` that have a stack of their own."""


class ByStack(LoadScopeScheduling):
    """Hands out tests to processes: all that share the running stack to one, of others a file at a time."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        shared = file.startswith("tests/") and not file.removesuffix(".py").endswith(APART)
        return "tests" if shared else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Who hands out the tests where they run in several processes."""
    return ByStack(config, log)


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """A real server that speaks GCS's protocol, with an empty bucket; started for the first test that wants it."""
    from mirakuru import HTTPExecutor  # noqa: PLC0415  # not for those that do not
    from mirakuru.exceptions import ProcessFinishedWithError  # noqa: PLC0415

    from stack import gcs  # noqa: PLC0415

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("gcs")
    part = gcs.part(folder, port, BUCKET)
    part.prepare()
    with (folder.parent / "gcs.log").open("w") as log:
        server = HTTPExecutor(
            part.command,
            part.url + part.ready_path,
            method="GET",
            timeout=30,
            stdout=log,
            stderr=log,
            envvars=dict(os.environ),
        )
        server.start()
        yield Storage(bucket=BUCKET, endpoint=part.url)
        with suppress(ProcessFinishedWithError):
            server.stop()
