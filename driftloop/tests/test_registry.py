"""Only skops is loaded, and only with types that the reader trusts."""

from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from driftloop.registry.model_registry import Refused, read
from driftloop.settings import TRUSTED_TYPES

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


def test_a_skops_model_of_trusted_types_is_loaded(tmp_path: Path) -> None:
    stored = read(save(tmp_path, HistGradientBoostingClassifier().fit(FRAME, OUTCOMES)), TRUSTED_TYPES)
    assert stored.estimator.predict_proba(FRAME).shape == (40, 2)
    assert stored.signature.inputs.input_names() == ["x"]


@pytest.mark.parametrize("serialization_format", ["pickle", "cloudpickle"])
def test_a_pickle_is_never_loaded(tmp_path: Path, serialization_format: str) -> None:
    folder = save(tmp_path, LogisticRegression().fit(FRAME, OUTCOMES), serialization_format)
    with pytest.raises(Refused, match="skops"):
        read(folder, TRUSTED_TYPES)


def test_a_type_that_only_the_models_author_trusts_is_refused_by_name(tmp_path: Path) -> None:
    folder = save(tmp_path, HistGradientBoostingClassifier().fit(FRAME, OUTCOMES))
    with pytest.raises(Refused, match=r"TreePredictor[\s\S]*DRIFTLOOP_PREDICTOR__TRUSTED_TYPES"):
        read(folder, [])


def test_a_model_without_a_signature_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, LogisticRegression().fit(FRAME, OUTCOMES), signature=False)
    with pytest.raises(Refused, match="signature"):
        read(folder, TRUSTED_TYPES)


@pytest.mark.parametrize("file", ["model.skops", "MLmodel", "input_example.json"])
def test_a_broken_file_is_refused(tmp_path: Path, file: str) -> None:
    folder = save(tmp_path, LogisticRegression().fit(FRAME, OUTCOMES))
    (folder / file).write_bytes((folder / file).read_bytes()[:60] + b"\x00{")
    with pytest.raises(Refused, match="cannot be loaded"):
        read(folder, TRUSTED_TYPES)
