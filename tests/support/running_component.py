"""A component of the stack that a test runs by itself."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stack.component import Component


@contextmanager
def running_component(component: "Component", log_file: Path) -> Iterator[str]:
    """Run a component in the block; yield its URL."""
    from mirakuru import HTTPExecutor, TCPExecutor  # noqa: PLC0415  # unit tests need not import the stack
    from mirakuru.exceptions import ProcessFinishedWithError  # noqa: PLC0415

    component.prepare()
    with log_file.open("w") as log:
        common: dict[str, Any] = {
            "timeout": 300,  # moto's imports alone have taken a minute on a busy machine
            "stdout": log,
            "stderr": log,
            "envvars": {**os.environ, **component.environment},
        }
        server = (
            HTTPExecutor(component.command, component.url + component.ready_path, method="GET", **common)
            if component.ready_path
            else TCPExecutor(component.command, "127.0.0.1", component.port, **common)
        )
        server.start()
        yield component.url
        with suppress(ProcessFinishedWithError):
            server.stop()
