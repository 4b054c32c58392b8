"""Statistics of a reference's own windows, from counts: the same as those of a window that is judged."""

import numpy as np
import pandas as pd
import pytest

from driftloop.drift.distances import DISTANCES, ColumnType, DistanceName
from driftloop.drift.statistics import prepare_reference, window_statistics
from driftloop.drift.window_counts import MAX_GRID, count_column, statistics_by_window

WINDOW_ROWS = 200
VALUES = {
    "ten values": lambda random, size: random.integers(0, 10, size) / 10,
    "many values": lambda random, size: random.integers(0, MAX_GRID // 2, size) / MAX_GRID,
    "as many as rows": lambda random, size: random.normal(size=size),
    "a long tail": lambda random, size: random.lognormal(0, 2, size),
}


@pytest.mark.parametrize("distance", DISTANCES["number"])
@pytest.mark.parametrize("values", VALUES)
def test_statistics_from_counts_are_those_of_windows(values: str, distance: DistanceName) -> None:
    """Calibration counts values by level, scoring sorts them: both must compute the same statistics."""
    frame = pd.DataFrame({"x": VALUES[values](np.random.default_rng(3), 8_000)})
    column_types: dict[str, ColumnType] = {"x": "number"}
    starts = np.arange(0, len(frame) - WINDOW_ROWS + 1, WINDOW_ROWS // 10)
    nothing_embargoed = np.column_stack([starts, starts])
    column = count_column(frame["x"], "number", distance, WINDOW_ROWS)
    computed = statistics_by_window(column, starts, WINDOW_ROWS, nothing_embargoed)
    prepared = prepare_reference(column_types, frame, {"x": distance})
    windows = (frame.iloc[start : start + WINDOW_ROWS] for start in starts)
    expected = np.array([list(window_statistics(prepared, window).values()) for window in windows])
    assert computed.mean(axis=0) == pytest.approx(expected.mean(axis=0), rel=0.01, abs=1e-4)


def test_window_is_not_compared_with_embargoed_rows() -> None:
    """Without its own rows, the reference of the only window with missing values has none."""
    column = pd.Series(np.where(np.arange(2_000) // WINDOW_ROWS == 4, np.nan, 1.0))
    starts = np.arange(0, 2_000, WINDOW_ROWS)
    own_rows = np.column_stack([starts, starts + WINDOW_ROWS])
    statistics = statistics_by_window(
        count_column(column, "number", "wasserstein", WINDOW_ROWS), starts, WINDOW_ROWS, own_rows
    )
    expected = np.where(starts == 4 * WINDOW_ROWS, 1.0, 1 / 9)
    assert statistics[:, 1] == pytest.approx(expected)
