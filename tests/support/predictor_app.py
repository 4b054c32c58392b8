"""A version that serves, and what its outbox holds."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import Model, infer_signature
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_wine
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from driftloop.events import Event
from driftloop.kafka.codec import decode, to_message
from driftloop.registry.loading import LoadedModel
from driftloop.telemetry.health import Health
from predictor.outbox.outbox import Outbox
from predictor.serving.model_cache import ModelCache
from predictor.serving.model_manager import ModelManager, ServingModel
from predictor.serving.schema import build_schema
from predictor.settings import ServingSettings

FRAME = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "n": [1, 2, 3, 4]})


def serving(
    estimator: Any, frame: pd.DataFrame = FRAME, method: str = "predict_proba", version: str = "7", max_rows: int = 3
) -> ServingModel:
    """A version in service, of a fitted estimator."""
    signature = infer_signature(frame)
    description = Model(signature=signature, flavors={"python_function": {"predict_fn": method}})
    stored = LoadedModel(estimator, description, frame.head(1))
    return ServingModel(version, build_schema(signature, frame.head(1), max_rows), stored)


class Always:
    """Stands in for the champion: one version that is never swapped."""

    source, refusal = "alias", None

    def __init__(self) -> None:
        self.serving: ServingModel | None = serving(LogisticRegression().fit(FRAME, [0, 0, 1, 1]))


def wines() -> tuple[Any, pd.DataFrame]:
    """A fitted classifier of three kinds of wine, and its rows: numbers, some of them missing, integers and words."""
    wine = load_wine(as_frame=True)
    frame = wine.data[["alcohol", "malic_acid"]].copy()
    frame.loc[::7, "malic_acid"] = np.nan
    frame["proline"] = wine.data["proline"].astype("int64")
    frame["hue"] = pd.cut(wine.data["hue"], 3, labels=["rot", "rosé", "weiß"]).astype(object)
    words = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    prepared = make_column_transformer((words, ["hue"]), remainder="passthrough")
    estimator = make_pipeline(prepared, HistGradientBoostingClassifier(max_iter=10, random_state=0))
    return estimator.fit(frame, wine.target), frame


def saved(
    folder: Path, estimator: Any, example: pd.DataFrame | np.ndarray[Any, Any], method: str = "predict", **options: Any
) -> Path:
    """A fitted estimator as MLflow saves it, in skops' format; the signature is that of the example."""
    mlflow.sklearn.save_model(
        estimator,
        folder,
        signature=options.pop("signature", None) or infer_signature(example),
        input_example=example[:2],
        serialization_format="skops",
        pyfunc_predict_fn=method,
        pip_requirements=["scikit-learn", "skops", "pandas"],
        **{"skops_trusted_types": list(ServingSettings().trusted_types), **options},
    )
    return folder


class OneVersion:
    """Stands in for the registry: one version, whose files lie in a folder."""

    model, alias = "m", "champion"

    def __init__(self, folder: Path, version: str) -> None:
        self._folder, self._version = folder, version

    def champion(self) -> str:
        """The only one."""
        return self._version

    def fetch(self, version: str, into: Path) -> Path:
        """A copy."""
        return Path(shutil.copytree(self._folder, into / version))


def taken(folder: Path, version: str = "7", **changed: Any) -> ServingModel:
    """A saved version as the predictor takes it into service: read, checked, tried."""
    registry: Any = OneVersion(folder, version)
    with tempfile.TemporaryDirectory() as disk:
        champion = ModelManager(registry, ModelCache(Path(disk), registry.fetch), ServingSettings(**changed), Health())
        champion.refresh()
    assert champion.serving is not None, champion.rejected
    return champion.serving


def events(outbox: Outbox) -> list[Event]:
    """What is in the outbox, as its readers will see it."""
    messages = [to_message(event, "predictor") for _, event in outbox.read_after(0, 100_000)]
    return [decode(message.value, message.headers) for message in messages]
