"""Options and fixtures for the tests of every folder."""

import os
import random
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from driftloop.settings import StorageSettings
from tests.support.ports import reserve_ports

if TYPE_CHECKING:
    from stack.component import Component

BUCKET = "driftloop"

# A slow machine is no failure.
hypothesis_settings.register_profile("driftloop", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("driftloop")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--seed``."""
    parser.addoption("--seed", type=int, help="repeat the random choices of an earlier run, which printed its seed")


def pytest_report_header(config: pytest.Config) -> str:
    """Show the seed of this run."""
    return f"seed: {_seed(config)} (repeat with --seed)"


def _seed(config: pytest.Config) -> int:
    if config.option.seed is None:
        config.option.seed = secrets.randbelow(2**32)
    return int(config.option.seed)


@pytest.fixture
def random_source(request: pytest.FixtureRequest) -> random.Random:
    """Random choices of this test, from the seed of the run; printed, so that a failure can be repeated."""
    seed = _seed(request.config)
    print(f"seed {seed}: repeat with --seed {seed}")
    return random.Random(f"{seed} {request.node.name}")


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageSettings]:
    """A real server that speaks GCS's protocol, with an empty bucket; started for the first test that needs it."""
    from stack import gcs  # noqa: PLC0415  # unit tests need not import the stack

    folder = tmp_path_factory.mktemp("gcs")
    with _running(gcs.gcs_component(folder, reserve_ports(1)[0], BUCKET), folder.parent / "gcs.log") as url:
        yield StorageSettings(bucket=BUCKET, endpoint=url)


@pytest.fixture(scope="session")
def mlflow_url(storage: StorageSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server with its artifacts in the bucket; started for the first test that needs it."""
    from stack import mlflow  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("mlflow-server")
    component = mlflow.mlflow_component(folder, reserve_ports(1)[0], BUCKET, str(storage.endpoint))
    with _running(component, folder.parent / "mlflow.log") as url:
        yield url


@contextmanager
def _running(component: "Component", log_file: Path) -> Iterator[str]:
    """Run a component of the stack in the block; yield its URL."""
    from mirakuru import HTTPExecutor  # noqa: PLC0415  # unit tests need not import the stack
    from mirakuru.exceptions import ProcessFinishedWithError  # noqa: PLC0415

    component.prepare()
    with log_file.open("w") as log:
        server = HTTPExecutor(
            component.command,
            component.url + str(component.ready_path),
            method="GET",
            timeout=120,
            stdout=log,
            stderr=log,
            envvars={**os.environ, **component.environment},
        )
        server.start()
        yield component.url
        with suppress(ProcessFinishedWithError):
            server.stop()
