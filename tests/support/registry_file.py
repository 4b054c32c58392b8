"""A registry in a file, for tests that need MLflow's answers and no server."""

from collections.abc import Iterator

import mlflow
import pytest


@pytest.fixture(scope="module")
def registry_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an empty registry; MLflow's own settings are afterwards what they were."""
    before = mlflow.get_tracking_uri()
    yield f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(None)
