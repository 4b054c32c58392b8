"""How a model is logged: which of its columns may be missing."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import Model
from sklearn.ensemble import HistGradientBoostingClassifier

from driftloop.registry.loading import download_model
from driftloop.registry.model_logging import log_model
from driftloop.registry.model_registry import ModelRegistry
from driftloop.settings import RegistrySettings

pytestmark = pytest.mark.integration

ROWS = pd.DataFrame({"temp": [1.0, 2.0, np.nan, 4.0] * 10, "distance": range(40)})


@pytest.fixture(scope="module", autouse=True)
def _registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = mlflow.get_tracking_uri()
    folder = tmp_path_factory.mktemp("mlflow")
    ModelRegistry(RegistrySettings(uri=f"sqlite:///{folder}/mlflow.db", model="m"))
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("m", artifact_location=(folder / "files").as_uri()))
    yield
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(None)


@pytest.mark.parametrize(
    ("rows", "optional", "required"),
    [
        (ROWS, None, ["distance"]),
        (ROWS.dropna(), None, ["temp", "distance"]),
        (ROWS.dropna(), ["temp"], ["distance"]),
        (ROWS.dropna(), [], ["temp", "distance"]),
    ],
    ids=["as the rows", "as other rows", "by its word", "by its word none"],
)
def test_signature_has_the_columns_that_may_be_missing(
    tmp_path: Path, rows: pd.DataFrame, optional: Sequence[str] | None, required: list[str]
) -> None:
    estimator = HistGradientBoostingClassifier(max_iter=2).fit(rows, np.arange(len(rows)) % 2)
    with mlflow.start_run():
        uri = log_model(estimator, rows, "predict_proba", optional=optional)
    columns = Model.load(str(download_model(uri, tmp_path))).signature.inputs
    assert [column.name for column in columns if column.required] == required
    assert columns.input_names() == ["temp", "distance"]
