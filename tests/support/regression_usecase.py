"""A regression use case: the number of bicycles rented in an hour, which grows from month to month."""

import os
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor

from driftloop.events import DataSelection
from driftloop.usecase import UseCase

POINTER_VARIABLE = "HOURLY_POINTER"  # names the environment variable with the path of its DVC pointer
DAYS = 120
FIRST_END = date(2026, 3, 1)
"""The day after the last one of a first version."""


def load_rows() -> pd.DataFrame:
    """Return ``DAYS`` days of hourly rows."""
    random = np.random.default_rng(0)
    times = pd.date_range("2026-01-01", periods=24 * DAYS, freq="h", tz="UTC", unit="ns")
    hour, temperature = times.hour.to_numpy(), random.normal(15, 8, len(times))
    growth = 1 + np.arange(len(times)) / len(times)
    rented = growth * (100 + 60 * np.sin(hour / 24 * 2 * np.pi) + 3 * temperature) + random.normal(0, 10, len(times))
    return pd.DataFrame({"at": times, "hour": hour, "temperature": temperature, "rented": rented})


usecase = UseCase(
    name="hourly",
    feature_kinds={"hour": "number", "temperature": "number"},
    target="rented",
    timestamp="at",
    timezone="UTC",
    make_pipeline=partial(HistGradientBoostingRegressor, random_state=0),
    dvc_file=Path(os.environ.get(POINTER_VARIABLE, "hourly.parquet.dvc")),
    load_rows=load_rows,
)

# The same under another name, beside the flights on one stack.
rentals = replace(usecase, name="rentals", first_version=DataSelection(base_end=FIRST_END))
