"""Models, and doubles of the registry and the model manager, for tests of the predictor's application."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import skops.io
from mlflow.models import Model, infer_signature
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_wine
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from driftloop.events import Event
from driftloop.kafka.codec import decode, to_message
from driftloop.registry.labelling import choose_labelling
from driftloop.registry.loading import LoadedModel
from driftloop.registry.model_output import describe_output
from driftloop.registry.model_registry import RegisteredVersion
from driftloop.telemetry.health import Health
from predictor.outbox.outbox import Outbox
from predictor.serving.model_cache import ModelCache
from predictor.serving.model_manager import ModelManager, RejectedVersion, VersionSource
from predictor.serving.schema import build_schema
from predictor.serving.serving_model import ServingModel
from predictor.settings import ServingSettings

FRAME = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "n": [1, 2, 3, 4]})


def serving_model(
    estimator: Any, frame: pd.DataFrame = FRAME, method: str = "predict_proba", version: str = "7", max_rows: int = 3
) -> ServingModel:
    """Return a version in service with a fitted estimator; its signature is inferred from ``frame``."""
    signature = infer_signature(frame)
    description = Model(signature=signature, flavors={"python_function": {"predict_fn": method}})
    loaded = LoadedModel(estimator, description, frame.head(1))
    schema = build_schema(signature, max_rows)
    model = ServingModel(version, schema, loaded)
    try:
        example_output = model.predict(schema.frame_to_columns(frame.head(1)))
    except Exception:  # noqa: BLE001  # an estimator that a test makes fail
        return model
    output = describe_output(estimator, method, example_output)
    labelling = choose_labelling(estimator, method, output.classes, frame)
    return replace(model, output=output, labelling=labelling, example_output=example_output)


class StaticModelManager:
    """A model manager whose version changes only when a test assigns ``serving``."""

    source: VersionSource = "alias"
    rejected: RejectedVersion | None = None
    alias_version: str | None = "7"

    def __init__(self) -> None:
        self.serving: ServingModel | None = serving_model(LogisticRegression().fit(FRAME, [0, 0, 1, 1]))


def wine_model() -> tuple[Any, pd.DataFrame]:
    """Return a fitted classifier of three classes, and its rows: numbers, some of them missing, integers, strings."""
    wine = load_wine(as_frame=True)
    frame = wine.data[["alcohol", "malic_acid"]].copy()
    frame.loc[::7, "malic_acid"] = np.nan
    frame["proline"] = wine.data["proline"].astype("int64")
    frame["hue"] = pd.cut(wine.data["hue"], 3, labels=["rot", "rosé", "weiß"]).astype(object)
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    transformer = make_column_transformer((encoder, ["hue"]), remainder="passthrough")
    estimator = make_pipeline(transformer, HistGradientBoostingClassifier(max_iter=10, random_state=0))
    return estimator.fit(frame, wine.target), frame


def save_model(
    folder: Path, estimator: Any, example: pd.DataFrame | np.ndarray[Any, Any], method: str = "predict", **options: Any
) -> Path:
    """Save a fitted estimator with MLflow in skops' format; the signature is inferred from ``example``."""
    mlflow.sklearn.save_model(
        estimator,
        folder,
        signature=options.pop("signature", None) or infer_signature(example),
        input_example=example[:2],
        serialization_format="skops",
        pyfunc_predict_fn=method,
        pip_requirements=["scikit-learn", "skops", "pandas"],
        skops_trusted_types=skops.io.get_untrusted_types(data=skops.io.dumps(estimator)),
        **options,
    )
    return folder


def save_files(folder: Path, estimator: Any, frame: pd.DataFrame, method: str) -> Path:
    """Write what the loading of a model reads, in a fraction of the time that MLflow takes."""
    flavors = {
        "sklearn": {"pickled_model": "model.skops", "serialization_format": "skops"},
        "python_function": {"predict_fn": method},
    }
    Model(signature=infer_signature(frame), flavors=flavors).save(str(folder / "MLmodel"))
    skops.io.dump(estimator, folder / "model.skops")
    return folder


class FakeRegistry:
    """A model registry with one version, whose files are in a folder."""

    model, alias, trusted_types = "m", "champion", ()

    def __init__(self, folder: Path, version: str) -> None:
        self._folder, self._version = folder, version

    def identified_champion(self) -> RegisteredVersion:
        """Return the only version."""
        return RegisteredVersion(self._version, "run")

    def version_tags(self, version: str) -> dict[str, str]:  # noqa: ARG002
        """Return no tags, as of a version whose features are all kept."""
        return {}

    def fetch(self, version: str, into: Path) -> Path:
        """Copy the version's files."""
        return Path(shutil.copytree(self._folder, into / version))


def load_through_manager(folder: Path, version: str = "7", **settings: Any) -> ServingModel:
    """Load a saved model as the predictor does: with all checks and the warm-up."""
    registry: Any = FakeRegistry(folder, version)
    with tempfile.TemporaryDirectory() as cache:
        manager = ModelManager(registry, ModelCache(Path(cache), registry.fetch), ServingSettings(**settings), Health())
        manager.refresh()
    assert manager.serving is not None, manager.rejected
    return manager.serving


def outbox_events(outbox: Outbox, count: int = 100_000) -> list[Event]:
    """Return the first ``count`` events in the outbox as consumers will see them."""
    messages = [to_message(event, "predictor") for _, event in outbox.read_after(0, count)]
    return [decode(message.value, message.headers) for message in messages]
