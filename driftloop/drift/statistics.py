"""How far a window's columns lie from the reference's.

The distances are evidently's, with its norm and its way with missing values; a reference is prepared once, so that a
window costs the same whatever the reference's size. Tests hold both equal, for numbers with a fraction: numpy, and so
evidently, makes other bins of integers, which a single missing cell turns into floats.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from driftloop.drift.distances import DISTANCES, OF_SHARES, Distance, Floats, Kind, by_level, counts_between, edges

Method = Distance | Literal["missing_share", "commonest_share"]

# evidently drops nulls from both sides before it compares: hence missing_share. A frozen sensor can stay close in
# distance: hence commonest_share, for numbers.
SHARES: dict[Kind, tuple[Method, ...]] = {
    "number": ("missing_share", "commonest_share"),
    "category": ("missing_share",),
}
LEAST_SD = 0.001  # evidently's, for a reference that is constant
NAN = float("nan")


class Check(NamedTuple):
    """One statistic of one column."""

    column: str
    method: Method


def distance_of(column: str, kinds: Mapping[str, Kind], methods: Mapping[str, Distance]) -> Distance:
    """The distance that was chosen for a column, or its kind's default."""
    return methods.get(column, DISTANCES[kinds[column]][0])


def checks(kinds: Mapping[str, Kind], methods: Mapping[str, Distance] = {}) -> list[Check]:
    """All statistics of the columns, in a fixed order: of each the distance first."""
    return [
        Check(column, method)
        for column, kind in kinds.items()
        for method in (distance_of(column, kinds, methods), *SHARES[kind])
    ]


def numbers(column: pd.Series) -> Floats:
    """A column of numbers, missing ones as NaN."""
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


class Numbers:
    """A reference's column of numbers, prepared for distances."""

    def __init__(self, column: pd.Series, method: Distance = "wasserstein") -> None:
        """Sorts it; missing values count for their share alone."""
        self.method = method
        values = numbers(column)
        present = np.sort(values[~np.isnan(values)])
        self.missing_share = 1 - len(present) / len(values) if len(values) else NAN
        self.low, self.high = (float(present[0]), float(present[-1])) if len(present) else (NAN, NAN)
        with np.errstate(over="ignore"):
            self._norm = max(float(np.std(column.dropna())), LEAST_SD) if len(present) else NAN
        # Sums of values far from 0 would swallow their differences.
        self._centre = float(np.median(present)) if method == "wasserstein" and len(present) else 0.0
        self._sorted = present - self._centre

    @cached_property
    def _areas(self) -> Floats:
        """The integral of the distribution function from below up to each value: sums of nothing but positive steps."""
        steps = np.diff(self._sorted) * np.arange(1, len(self._sorted)) / len(self._sorted)
        return np.concatenate([[0.0], np.cumsum(steps, dtype=np.longdouble)]).astype(np.float64)

    @cached_property
    def _mean(self) -> float:
        return float(np.mean(self._sorted, dtype=np.longdouble))

    @cached_property
    def _levels(self) -> Floats:
        return np.unique(self._sorted)

    def distance(self, ordered: Floats) -> float:
        """The chosen distance, for a window's sorted values; NaN where there are none, or an infinite one."""
        if not len(self._sorted) or not len(ordered):
            return NAN
        if self.method == "wasserstein":
            return self.wasserstein(ordered)
        bounds = self._bounds(ordered)
        if bounds is None:
            return NAN
        reference, window = (counts_between(side, bounds) / len(side) for side in (self._sorted, ordered))
        return OF_SHARES[self.method](reference, window)

    def _bounds(self, ordered: Floats) -> Floats | None:
        """Of bins that hold both sides, or of a bin for each value where the reference has few."""
        if by_level(self.method, len(self._levels)):
            levels = np.union1d(self._levels, ordered)
            return np.append(levels, levels[-1])
        size = len(self._sorted) + len(ordered)
        if self.method == "hellinger":  # it counts a value once
            different = np.unique(ordered)
            at = np.minimum(np.searchsorted(self._levels, different), len(self._levels) - 1)
            size = len(self._levels) + int((self._levels[at] != different).sum())
        return edges(min(self.low, float(ordered[0])), max(self.high, float(ordered[-1])), size)

    def wasserstein(self, ordered: Floats) -> float:
        """W1 / max(sd of the reference, 0.001), for a window's sorted values; NaN where there are none.

        W1 is the area between the two distribution functions. Between two neighbouring values of the window its own is
        constant and the reference's crosses it at most once, at a quantile: the area on both sides of it is a
        difference of the prepared integral.
        """
        n, m = len(self._sorted), len(ordered)
        if not n or not m:
            return NAN
        window = ordered - self._centre
        left, right = window[:-1], window[1:]
        level = np.arange(1, m)
        crossing = np.clip(self._sorted[(level * n + m - 1) // m - 1], left, right)
        at = self._integral(np.concatenate([window, crossing]))
        at_left, at_right, at_crossing = at[: m - 1], at[1:m], at[m:]
        share = level / m
        between = share * (2 * crossing - left - right) + at_left + at_right - 2 * at_crossing
        above = at[m - 1] - window[-1] + self._mean
        return float((at[0] + between.sum() + above) / self._norm)

    def _integral(self, upto: Floats) -> Floats:
        """The integral of the reference's distribution function from below up to each point."""
        below = np.searchsorted(self._sorted, upto, side="right")
        last = np.maximum(below - 1, 0)
        return np.asarray(
            self._areas[last] + (upto - self._sorted[last]) * (below / len(self._sorted)), dtype=np.float64
        )


class Categories:
    """A reference's column of categories, prepared for distances."""

    def __init__(self, column: pd.Series, distance: Distance = "jensenshannon") -> None:
        """Counts its levels; missing values count for their share alone."""
        self.method = distance
        counts = column.value_counts()
        total = int(counts.sum())
        self.missing_share = 1 - total / len(column) if len(column) else NAN
        self.levels = pd.Index(counts.index)
        self._shares = counts.to_numpy() / total if total else np.empty(0)

    def distance(self, counts: pd.Series) -> float:
        """The chosen distance, for a window's counts by level; NaN where there are none."""
        total = counts.sum()
        if not total or not len(self.levels):
            return NAN
        shares = counts.to_numpy() / total
        place = self.levels.get_indexer(counts.index)
        unseen = shares[place < 0]
        window = np.concatenate([np.zeros(len(self.levels)), unseen])
        window[place[place >= 0]] = shares[place >= 0]
        return OF_SHARES[self.method](np.concatenate([self._shares, np.zeros(len(unseen))]), window)


Prepared = Mapping[str, Numbers | Categories]


def prepared(kinds: Mapping[str, Kind], reference: pd.DataFrame, methods: Mapping[str, Distance] = {}) -> Prepared:
    """A reference's columns, ready for windows; ``methods`` are the distances of those that have not the default."""
    return {
        column: (Numbers if kind == "number" else Categories)(reference[column], distance_of(column, kinds, methods))
        for column, kind in kinds.items()
    }


def statistics(reference: Prepared, window: pd.DataFrame) -> dict[Check, float]:
    """Every check's value for a window; NaN where one side has no value to compare.

    ``missing_share`` is the difference of the shares of missing values, and ``commonest_share`` the share of the
    window's commonest value.
    """
    values: dict[Check, float] = {}
    for column, known in reference.items():
        if isinstance(known, Numbers):
            cells = numbers(window[column])
            ordered = np.sort(cells[~np.isnan(cells)])
            values[Check(column, known.method)] = known.distance(ordered)
            missing = 1 - len(ordered) / len(cells)
            values[Check(column, "missing_share")] = abs(missing - known.missing_share)
            values[Check(column, "commonest_share")] = commonest_share(ordered)
        else:
            counts = window[column].value_counts()
            values[Check(column, known.method)] = known.distance(counts)
            missing = 1 - counts.sum() / len(window)
            values[Check(column, "missing_share")] = abs(missing - known.missing_share)
    return values


def commonest_share(ordered: npt.NDArray[np.generic]) -> float:
    """The share of the commonest of sorted values; NaN where there are none."""
    if not len(ordered):
        return NAN
    ends = np.flatnonzero(np.concatenate([ordered[1:] != ordered[:-1], [True]]))
    return float(np.diff(ends, prepend=-1).max() / len(ordered))
