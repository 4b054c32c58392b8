"""Options and fixtures for the tests of every folder."""

import random
import secrets
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from driftloop.settings import StorageSettings
from tests.support.ports import reserve_ports
from tests.support.running_component import running_component

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
    with running_component(gcs.gcs_component(folder, reserve_ports(1)[0], BUCKET), folder.parent / "gcs.log") as url:
        yield StorageSettings(url=f"gs://{BUCKET}", endpoint=url)


@pytest.fixture(scope="session")
def mlflow_url(storage: StorageSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server with its artifacts in the bucket; started for the first test that needs it."""
    from stack import mlflow  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("mlflow-server")
    component = mlflow.mlflow_component(folder, reserve_ports(1)[0], storage)
    with running_component(component, folder.parent / "mlflow.log") as url:
        yield url


@pytest.fixture(scope="session")
def s3_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageSettings]:
    """A server that speaks S3's protocol, with an empty bucket; its credentials are in the environment."""
    from tests.support import store_servers  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("s3")
    with (
        pytest.MonkeyPatch.context() as patch,
        running_component(store_servers.s3_component(reserve_ports(1)[0]), folder / "moto.log") as url,
    ):
        for name, value in store_servers.AWS_ENVIRONMENT.items():
            patch.setenv(name, value)
        storage = StorageSettings(url=f"s3://{BUCKET}", endpoint=url)
        store_servers.create_bucket(storage)
        yield storage


@pytest.fixture(scope="session")
def azure_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageSettings]:
    """Azurite with an empty container; its account is in the environment. Skips if Azurite is not installed."""
    from tests.support import store_servers  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("azurite")
    account, key = store_servers.new_azure_account()
    component = store_servers.azurite_component(folder, reserve_ports(1)[0], account, key)
    with pytest.MonkeyPatch.context() as patch, running_component(component, folder / "azurite.log") as url:
        patch.setenv("AZURE_STORAGE_ACCOUNT_NAME", account)
        patch.setenv("AZURE_STORAGE_ACCOUNT_KEY", key)
        storage = StorageSettings(url=f"az://{BUCKET}", endpoint=f"{url}/{account}")
        store_servers.create_bucket(storage)
        yield storage
