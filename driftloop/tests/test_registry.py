"""The registry's client, and loading of models: only skops, and only with types that the reader trusts."""

from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from driftloop.registry.loading import ModelRejected, load_model
from driftloop.registry.trusted_types import TRUSTED_TYPES

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
