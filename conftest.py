"""What tests of every folder may use."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from driftloop.settings import Storage

BUCKET = "driftloop"


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
