"""Stretches: find the rows of a reference at which its columns changed abruptly.

A reference that mixes rows before and after such a change is like no window of either. So it is cut there, and windows
are compared with each stretch. A change is where two neighbouring blocks of windows are far more different than any
other neighbouring blocks of the reference; seasons, which change everywhere a bit, are not cut.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from driftloop.drift.distances import FloatArray, IntArray
from driftloop.drift.tails import TAIL_SCALES, fit_gumbel, largest_values, widen
from driftloop.drift.window_counts import CountedColumn, missing_rate_changes

BLOCK_WINDOWS = (5, 10)  # least and most windows of a block, and so of a stretch
BLOCKS_PER_REFERENCE = 8  # of this many blocks in short references
MIN_SCORE = 2 * TAIL_SCALES  # of a change: blocks twice as different as any others
MAX_CHANGES = 3  # of a reference: the rows between them become few
STEPS_PER_WINDOW = 2  # candidate rows are half a window apart,
FINE_STEPS_PER_WINDOW = 10  # and those near a change a tenth
MARGIN_STEPS = 2  # of these around a change, whose rows may lie on its other side
MAX_POSITIONS = 1_000
MIN_SCALES = (0.001, 0.005)  # of the distance and of the change of the missing rate, where they never vary


class Change(NamedTuple):
    """A row at which a statistic changed abruptly."""

    row: int
    score: float
    """The difference between the blocks before and after it, standardized by those elsewhere."""
    column: str
    statistic: int
    """0: the distance, 1: the change of the missing rate."""


def find_changes(columns: Mapping[str, CountedColumn], rows: int, window_rows: int) -> list[int]:
    """Return the rows at which the reference changed abruptly, the clearest first; none if it is too short to tell.

    Args:
        columns: The reference's columns.
        rows: The number of rows.
        window_rows: Rows of a window.
    """
    windows = rows / window_rows
    low, high = BLOCK_WINDOWS
    block_windows = min(int(windows / BLOCKS_PER_REFERENCE), high)
    if block_windows < low:
        return []
    step = max(window_rows // STEPS_PER_WINDOW, rows // MAX_POSITIONS, 1)
    steps_per_block = round(block_windows * window_rows / step)
    block = steps_per_block * step
    positions = np.arange(block, rows - block + 1, step)
    changes = [
        change
        for name, column in columns.items()
        for statistic, curve in enumerate(_differences(column, positions, block).T)
        for change in _peaks(name, statistic, curve, positions, steps_per_block)
    ]
    chosen: list[int] = []
    for change in sorted(changes, key=lambda change: change.score, reverse=True):
        if len(chosen) < MAX_CHANGES and all(abs(change.row - row) >= block for row in chosen):
            chosen.append(_refine(change, columns[change.column], block, step, window_rows))
    return chosen


def cut(rows: int, changes: Sequence[int], window_rows: int) -> list[tuple[int, int]]:
    """Return the first and end rows of the stretches between changes.

    Rows so near to a change that they may lie on its other side belong to none.
    """
    margin = MARGIN_STEPS * window_rows // FINE_STEPS_PER_WINDOW
    firsts = [0, *(row + margin for row in sorted(changes))]
    ends = [*(row - margin for row in sorted(changes)), rows]
    return list(zip(firsts, ends, strict=True))


def _differences(column: CountedColumn, positions: IntArray, block: int) -> FloatArray:
    """Return the distance, and the change of the missing rate, between the blocks before and after each position."""
    before = column.counts_between(np.column_stack([positions - block, positions]))
    after = column.counts_between(np.column_stack([positions, positions + block]))
    # From both blocks together: a column that is constant in one block has no scale there.
    distances = column.distances(after[:, 1:], (before + after)[:, 1:])
    return np.column_stack([distances, missing_rate_changes(after, before)])


def _peaks(name: str, statistic: int, curve: FloatArray, positions: IntArray, steps_per_block: int) -> list[Change]:
    """Return the peaks of a curve of differences that stand out from the rest of it.

    Several changes would hide one another, so the highest peaks are compared together with what is left without them.
    """
    heights = np.nan_to_num(curve, nan=0.0)
    outside = np.ones(len(curve), dtype=bool)
    peaks: list[Change] = []
    standing_out: list[Change] = []
    for _ in range(MAX_CHANGES):
        peak = int(np.argmax(np.where(outside, heights, -np.inf)))
        outside &= np.abs(np.arange(len(curve)) - peak) > steps_per_block
        rest = heights[outside][:, None]
        if len(rest) < steps_per_block:
            break
        location, scale = fit_gumbel(rest, np.array(MIN_SCALES[statistic : statistic + 1]))
        score = float(((heights[peak] - location) / widen(location, scale, largest_values(rest)))[0])
        peaks.append(Change(int(positions[peak]), score, name, statistic))
        if score >= MIN_SCORE:
            standing_out = list(peaks)
    return standing_out


def _refine(change: Change, column: CountedColumn, block: int, step: int, window_rows: int) -> int:
    """Return the row near a change at which the blocks before and after differ most."""
    first, last = max(change.row - step, block), min(change.row + step, len(column.codes) - block)
    positions = np.arange(first, last + 1, max(window_rows // FINE_STEPS_PER_WINDOW, 1))
    return int(positions[np.nanargmax(_differences(column, positions, block)[:, change.statistic])])
