"""A use case for tests that make their own rows: it has columns, but neither data nor a pipeline."""

from pathlib import Path

import pandas as pd

from driftloop.drift.comparable_columns import FeatureKind
from driftloop.usecase import UseCase


def make_use_case(
    numeric_features: tuple[str, ...] = ("x",),
    categorical_features: tuple[str, ...] = (),
    timezone: str = "America/New_York",
) -> UseCase:
    """Return a use case of the model ``m`` with the binary target ``y`` and the timestamp ``at``."""
    return UseCase(
        name="m",
        feature_kinds=kinds_of(numeric_features, categorical_features),
        target="y",
        classes=(0, 1),
        timestamp="at",
        timezone=timezone,
        make_pipeline=object,
        dvc_file=Path("m.dvc"),
        load_rows=pd.DataFrame,
    )


def kinds_of(numbers: tuple[str, ...], categories: tuple[str, ...] = ()) -> dict[str, FeatureKind]:
    """Return the kinds of features that are numbers or categories."""
    return {**dict.fromkeys(numbers, "number"), **dict.fromkeys(categories, "category")}
