"""A use case for tests that make their own rows: it has columns, but neither data nor a pipeline."""

from pathlib import Path

import pandas as pd

from driftloop.usecase import UseCase


def make_use_case(
    numeric_features: tuple[str, ...] = ("x",),
    categorical_features: tuple[str, ...] = (),
    timezone: str = "America/New_York",
) -> UseCase:
    """Return a use case of the model ``m`` with the binary target ``y`` and the timestamp ``at``."""
    return UseCase(
        name="m",
        numeric_features=numeric_features,
        categorical_features=categorical_features,
        target="y",
        timestamp="at",
        timezone=timezone,
        make_pipeline=object,
        dvc_file=Path("m.dvc"),
        load_rows=pd.DataFrame,
    )
