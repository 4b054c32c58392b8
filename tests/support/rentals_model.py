"""Models of the rentals that somebody has registered by hand: without a gate, and without a reference."""

from pathlib import Path

import mlflow
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from driftloop.registry.model_registry import ModelRegistry
from tests.support import regression_usecase
from tests.support.predictor_app import save_model
from tests.support.stack_fixture import register_folder

FEATURES = ["hour", "temperature"]
ROWS = 1_000


def register_by_hand(
    registry: ModelRegistry, folder: Path, *, known_hours: range = range(24), extra: bool = False
) -> str:
    """Fit, save and register a model that fails for hours that it does not know; return its version without an alias.

    Args:
        registry: Where it is registered.
        folder: Where it is saved before.
        known_hours: The hours that it is fitted on.
        extra: Whether it needs a column that no client sends.
    """
    rows = regression_usecase.load_rows().head(ROWS).assign(humidity=0.5)
    rows = rows[rows["hour"].isin(known_hours)]
    features = rows[[*FEATURES, "humidity"] if extra else FEATURES]
    encoder = make_column_transformer((OneHotEncoder(handle_unknown="error"), ["hour"]), remainder="passthrough")
    estimator = make_pipeline(encoder, LinearRegression()).fit(features, rows["rented"])
    mlflow.set_tracking_uri(registry.client.tracking_uri)
    return register_folder(registry, save_model(folder / "model", estimator, features))
