"""The registry's client, and loading of models: only skops, and only with types that the reader trusts."""

import os
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    REQUEST_LIMIT_EXCEEDED,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
)
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from driftloop.errors import RegistryUnavailable
from driftloop.registry.client import configure_environment, translate_errors
from driftloop.registry.loading import ModelRejected, load_model
from driftloop.registry.model_registry import ModelRegistry
from driftloop.registry.trusted_types import TRUSTED_TYPES
from driftloop.settings import RegistrySettings
from tests.support.ports import reserve_ports

FRAME = pd.DataFrame({"x": [float(n) for n in range(40)]})
OUTCOMES = [0, 1] * 20


def save(folder: Path, estimator: object, serialization_format: str = "skops", *, signature: bool = True) -> Path:
    mlflow.sklearn.save_model(
        estimator,
        folder / "model",
        serialization_format=serialization_format,
        signature=infer_signature(FRAME) if signature else None,
        skops_trusted_types=list(TRUSTED_TYPES) if serialization_format == "skops" else None,
        input_example=FRAME.head(2) if signature else None,  # MLflow infers a signature from it
        pip_requirements=["scikit-learn"],
    )
    return folder / "model"


def test_load_model_accepts_skops_file_of_trusted_types(tmp_path: Path) -> None:
    stored = load_model(save(tmp_path, HistGradientBoostingClassifier().fit(FRAME, OUTCOMES)), TRUSTED_TYPES)
    assert stored.estimator.predict_proba(FRAME).shape == (40, 2)
    assert stored.signature.inputs.input_names() == ["x"]


@pytest.mark.parametrize("serialization_format", ["pickle", "cloudpickle"])
def test_load_model_rejects_pickle(tmp_path: Path, serialization_format: str) -> None:
    folder = save(tmp_path, LogisticRegression().fit(FRAME, OUTCOMES), serialization_format)
    with pytest.raises(ModelRejected, match="skops"):
        load_model(folder, TRUSTED_TYPES)


def test_load_model_rejects_type_that_only_its_author_trusts(tmp_path: Path) -> None:
    folder = save(tmp_path, HistGradientBoostingClassifier().fit(FRAME, OUTCOMES))
    with pytest.raises(ModelRejected, match=r"TreePredictor[\s\S]*DRIFTLOOP_PREDICTOR__TRUSTED_TYPES"):
        load_model(folder, [])


def test_load_model_rejects_model_without_signature(tmp_path: Path) -> None:
    folder = save(tmp_path, LogisticRegression().fit(FRAME, OUTCOMES), signature=False)
    with pytest.raises(ModelRejected, match="signature"):
        load_model(folder, TRUSTED_TYPES)


@pytest.mark.parametrize("file", ["model.skops", "MLmodel", "input_example.json"])
def test_load_model_rejects_broken_file(tmp_path: Path, file: str) -> None:
    folder = save(tmp_path, LogisticRegression().fit(FRAME, OUTCOMES))
    (folder / file).write_bytes((folder / file).read_bytes()[:60] + b"\x00{")
    with pytest.raises(ModelRejected, match="cannot be loaded"):
        load_model(folder, TRUSTED_TYPES)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MlflowException("API request failed with exception ConnectionError"), RegistryUnavailable),
        (MlflowException("busy", TEMPORARILY_UNAVAILABLE), RegistryUnavailable),
        (MlflowException("slow down", REQUEST_LIMIT_EXCEEDED), RegistryUnavailable),
        (MlflowException("who are you", PERMISSION_DENIED), RegistryUnavailable),
        (requests.ConnectionError("refused"), RegistryUnavailable),
        (MlflowException("no such run", RESOURCE_DOES_NOT_EXIST), MlflowException),
        (MlflowException("no such field", INVALID_PARAMETER_VALUE), MlflowException),
        (ValueError("a bug"), ValueError),
    ],
)
def test_translate_errors_hides_no_answer_of_a_working_server(error: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected) as raised, translate_errors():
        raise error
    if expected is RegistryUnavailable:
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
