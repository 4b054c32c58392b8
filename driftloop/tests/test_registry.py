"""The registry's client: its configuration, and which answers mean that it is unavailable."""

import os
from pathlib import Path

import mlflow
import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    REQUEST_LIMIT_EXCEEDED,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
)

from driftloop.errors import RegistryRefused, RegistryUnavailable
from driftloop.registry.client import configure_environment, translate_errors
from driftloop.registry.model_registry import ModelRegistry
from driftloop.settings import RegistrySettings
from tests.support.ports import reserve_ports


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MlflowException("API request failed with exception ConnectionError"), RegistryUnavailable),
        (MlflowException("busy", TEMPORARILY_UNAVAILABLE), RegistryUnavailable),
        (MlflowException("slow down", REQUEST_LIMIT_EXCEEDED), RegistryUnavailable),
        (MlflowException("who are you", PERMISSION_DENIED), RegistryRefused),
        (requests.ConnectionError("refused"), RegistryUnavailable),
        (MlflowException("no such run", RESOURCE_DOES_NOT_EXIST), RegistryRefused),
        (MlflowException("no such field", INVALID_PARAMETER_VALUE), RegistryRefused),
        (ValueError("a bug"), ValueError),
    ],
)
def test_translate_errors_tells_a_refusal_from_no_answer(error: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected) as raised, translate_errors():
        raise error
    if expected is not ValueError:
        assert str(error) in str(raised.value)
        assert "DRIFTLOOP_REGISTRY__URI" in str(raised.value)
        assert raised.value.__cause__ is error
    else:
        assert raised.value is error


def test_registry_raises_registry_unavailable_if_nothing_listens() -> None:
    (port,) = reserve_ports(1)
    before = mlflow.get_tracking_uri()
    try:
        registry = ModelRegistry(RegistrySettings(uri=f"http://127.0.0.1:{port}", model="m"))
        with pytest.raises(RegistryUnavailable, match=f"127.0.0.1:{port} "):
            registry.champion()
        with pytest.raises(RegistryUnavailable):
            registry.fetch("1", Path())
    finally:
        mlflow.set_tracking_uri(before)
        mlflow.set_registry_uri(None)


def test_configure_environment_keeps_variables_that_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    configure_environment()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "3"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"
