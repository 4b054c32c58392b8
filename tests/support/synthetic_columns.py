"""Synthetic columns for tests of drift statistics: two numbers and a category, with days that differ."""

import numpy as np
import pandas as pd

from driftloop.drift.distances import ColumnType

COLUMN_TYPES: dict[str, ColumnType] = {"level": "number", "sensor": "number", "color": "category"}
WINDOW_ROWS = 200
ROWS_PER_DAY = 100


def make_rows(count: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    """Return rows in days of 100; ``level`` has a random offset per day, and ``shift`` is added to it."""
    random = np.random.default_rng(seed)
    day = days_of(count)
    level = random.normal(size=day.max() + 1)[day] + random.normal(size=count) + shift
    colors = random.choice(["red", "green", "blue"], size=count, p=[0.5, 0.3, 0.2])
    return pd.DataFrame({"level": level, "sensor": random.normal(size=count), "color": colors})


def days_of(count: int) -> np.ndarray:
    """Return the day number of each of ``count`` rows."""
    return np.arange(count) // ROWS_PER_DAY
