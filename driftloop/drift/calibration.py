"""What is normal: how large each statistic grows in a reference's own windows, when nothing has changed.

Hours are autocorrelated, categories with many levels are sparse, and columns move together; a fixed threshold knows
none of it. So each statistic's location and scale are learned from the reference's own consecutive windows, and one
limit for all columns together holds the rate of false alarms. Windows are judged by themselves, and together with the
ones before them: what is too little to see in a day shows in three.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import BaseModel

from driftloop.drift.distances import DISTANCES, OF_SHARES, Distance, Floats, Integers, Kind, by_level, edges
from driftloop.drift.statistics import LEAST_SD, NAN, Method, checks, commonest_share, distance_of, numbers

EULER = 0.5772  # mean of a standard Gumbel law
FLOORS: dict[Method, float] = {  # a statistic that never moved still needs a scale
    # Of a standard deviation, or of the largest distance there is; a hundredth of a PSI that is commonly called small.
    **dict.fromkeys(DISTANCES["number"], 0.001),
    "missing_share": 0.005,
    "commonest_share": 0.05,
}
SPANS = (1, 3)  # windows that are judged together
STEPS = 10  # windows slide by a tenth of their length
MOST_WINDOWS = 2_000  # of a span; more would only take longer
QUARTERS = 4  # parts of the reference's time for cross-fitting
FEWEST = 20  # windows without overlap; below, a 1 % limit would be a guess
LEVELS = 2_048  # different numbers; a column with more is rounded to as many quantiles, here only
CELLS = 2**19  # of a table of windows by levels: larger ones would not stay in a processor's cache
TAIL = 256  # of its smallest and largest numbers stay as they are: in a long tail two quantiles are far apart


class Normal(BaseModel, frozen=True):
    """Location and scale (of a Gumbel law) of one statistic in windows where nothing has changed."""

    column: str
    method: Method
    location: float
    scale: float


class Span(BaseModel, frozen=True):
    """What is normal for a number of consecutive windows that are judged together."""

    windows: int
    limit: float
    """The score above which they alarm."""
    normals: list[Normal]


class Profile(BaseModel, frozen=True):
    """A reference's drift profile: kept beside the reference, read by whoever judges a window against it."""

    rows: int
    """Rows of a window: another length has other statistics."""
    false_alarm_rate: float
    """Share of windows that alarm though nothing has changed, all spans together."""
    kinds: dict[str, Kind]
    methods: dict[str, Distance] = {}
    """The distances of the columns that have not the default of their kind."""
    spans: list[Span]
    importance: dict[str, float] = {}
    """How much the model leans on each feature: what its quality loses when the feature is shuffled."""

    @property
    def usually_constant(self) -> set[str]:
        """Columns that may have a single value in a window where nothing has changed, such as rain on dry days."""
        single = self.spans[0]
        return {
            normal.column
            for normal in single.normals
            if normal.method == "commonest_share" and normal.location + single.limit * normal.scale >= 1
        }


class TooFewRows(ValueError):
    """The reference has too few windows to learn from."""


def check(reference_rows: int, rows: int) -> None:
    """Raises :class:`TooFewRows` where nothing can be learned of windows of so many rows."""
    if reference_rows < FEWEST * rows:
        raise TooFewRows(
            f"a reference of {reference_rows} rows is too small to learn what windows of {rows} rows look like: "
            f"{FEWEST * rows - reference_rows} more rows are needed, or a shorter window (DRIFTLOOP_WINDOW__ROWS)"
        )


def calibrate(
    reference: pd.DataFrame,
    days: Integers,
    kinds: Mapping[str, Kind],
    *,
    rows: int,
    false_alarm_rate: float,
    neighbourhood: int = 3,
    importance: Mapping[str, float] = {},
    methods: Mapping[str, Distance] = {},
) -> Profile:
    """Learns a profile from a reference.

    ``reference`` is in order of time, ``days`` the number of each row's day, ``rows`` the length of the windows that
    will be judged. Each window is compared with the reference without the rows within ``neighbourhood`` days of it,
    since the window that will be judged is not in the reference either. A span that the reference has too few windows
    for is left out; raises what :func:`check` raises, where that is every span.
    """
    check(len(reference), rows)
    spans = [span for span in SPANS if len(reference) >= FEWEST * rows * span]
    return Profile(
        rows=rows,
        false_alarm_rate=false_alarm_rate,
        kinds=dict(kinds),
        methods=dict(methods),
        spans=[
            _span(reference, days, kinds, methods, span, rows, false_alarm_rate / len(spans), neighbourhood)
            for span in spans
        ],
        importance=dict(importance),
    )


def _span(
    reference: pd.DataFrame,
    days: Integers,
    kinds: Mapping[str, Kind],
    methods: Mapping[str, Distance],
    windows: int,
    rows: int,
    rate: float,
    neighbourhood: int,
) -> Span:
    length = rows * windows
    last = len(reference) - length
    starts = np.arange(0, last + 1, max(rows // STEPS, 1, last // MOST_WINDOWS))
    near = np.column_stack(
        [
            np.searchsorted(days, days[starts] - neighbourhood, side="left"),
            np.searchsorted(days, days[starts + length - 1] + neighbourhood, side="right"),
        ]
    )
    near = np.maximum.accumulate(near, axis=1)  # a negative neighbourhood has nothing in it
    measured = np.column_stack(
        [
            _measured(reference[column], kind, distance_of(column, kinds, methods), starts, length, near)
            for column, kind in kinds.items()
        ]
    )
    measures = checks(kinds, methods)
    # One row of a window moves a share by as much as this; a scale below would make an alarm of it.
    floors = np.array([max(FLOORS[check.method], 1 / rows) for check in measures])
    location, scale = _gumbel(measured, floors)
    scores = _cross_fitted_scores(measured, starts, floors, length)
    return Span(
        windows=windows,
        limit=float(np.quantile(scores, 1 - rate)),
        normals=[
            Normal(column=check.column, method=check.method, location=float(mu), scale=float(b))
            for check, mu, b in zip(measures, location, scale, strict=True)
        ],
    )


def _measured(
    column: pd.Series, kind: Kind, distance: Distance, starts: Integers, length: int, near: Integers
) -> Floats:
    """A column's statistics, in the order of its checks, for each window against the reference without what is near."""
    if kind == "category":
        measure, codes, levels = _categories(column, distance)
    elif distance == "wasserstein":
        measure, codes, levels = _numbers(column)
    else:
        measure, codes, levels = _binned(column, distance, length)
    windows = sliding_window_view(codes, length)
    whole = _counts(np.zeros(1, dtype=np.int64), codes, 1, levels)
    found = []
    for some in np.array_split(np.arange(len(starts)), math.ceil(len(starts) * (levels + length) / CELLS)):
        window = _counts(np.arange(len(some))[:, None], windows[starts[some]], len(some), levels)
        others = whole - _between(codes, levels, near[some])
        with np.errstate(divide="ignore", invalid="ignore"):  # a side without values has no distance
            missing = np.abs(window[:, 0] / length - others[:, 0] / others.sum(axis=1))
            statistics = measure(window[:, 1:], others[:, 1:], starts[some], length)
        statistics[~(window[:, 1:].any(axis=1) & others[:, 1:].any(axis=1))] = NAN
        found.append(np.insert(statistics, 1, missing, axis=1))
    return np.concatenate(found)


def _between(codes: Integers, levels: int, places: Integers) -> Integers:
    """Rows by level between two places each, a row a pair."""
    bounds, at = np.unique(places, return_inverse=True)
    part = np.searchsorted(bounds, np.arange(bounds[0], bounds[-1]), side="right")
    before = np.cumsum(_counts(part, codes[bounds[0] : bounds[-1]], len(bounds), levels), axis=0)
    first, end = at.reshape(places.shape).T
    between: Integers = before[end] - before[first]
    return between


def _counts(groups: Integers, codes: Integers, count: int, levels: int) -> Integers:
    """Rows of each group by level, the missing ones first."""
    places = groups * (levels + 1) + codes + 1
    return np.bincount(places.ravel(), minlength=count * (levels + 1)).reshape(count, levels + 1)


Measure = Callable[[Integers, Integers, Integers, int], Floats]
"""Of windows' rows by level, the others' rows by level, where the windows start, and how long they are.

Its result has a row a window: the distance and, for numbers, the share of the commonest one.
"""


def _numbers(column: pd.Series) -> tuple[Measure, Integers, int]:
    """A measure of counts by level, each row's level (−1 where it is missing), and how many levels there are."""
    values = numbers(column)
    present = ~np.isnan(values)
    grid = np.unique(values[present])
    exact = len(grid) <= LEVELS
    if not exact:
        quantiles = np.quantile(grid, np.linspace(0, 1, LEVELS))
        grid = np.unique(np.concatenate([grid[:TAIL], quantiles, grid[-TAIL:]]))
    codes = np.full(len(values), -1, dtype=np.int64)
    codes[present] = np.searchsorted((grid[:-1] + grid[1:]) / 2, values[present])
    steps = np.diff(grid)

    def measure(window: Integers, others: Integers, starts: Integers, length: int) -> Floats:
        m, n = window.sum(axis=1, keepdims=True), others.sum(axis=1, keepdims=True)
        mean = (others @ grid)[:, None] / n
        sd = np.sqrt(np.einsum("wl,wl->w", others, (grid - mean) ** 2) / n[:, 0])
        apart = np.abs(np.cumsum(window, axis=1)[:, :-1] / m - np.cumsum(others, axis=1)[:, :-1] / n)
        commonest = window.max(axis=1, initial=0) / m[:, 0] if exact else _commonest_shares(values, starts, length)
        return np.column_stack([apart @ steps / np.maximum(sd, LEAST_SD), commonest])

    return measure, codes, len(grid)


def _binned(column: pd.Series, method: Distance, length: int) -> tuple[Measure, Integers, int]:
    """The same by bin, or by level where there are few: as evidently has them for a window and the whole reference."""
    values = numbers(column)
    present = ~np.isnan(values)
    levels = np.unique(values[present])
    few = by_level(method, len(levels)) or not len(levels)
    if few:
        begins = levels[1:]
    else:
        size = len(levels) if method == "hellinger" else int(present.sum() + length * present.mean())
        bounds = edges(float(levels[0]), float(levels[-1]), size)
        begins = levels[:0] if bounds is None else bounds[1:-1]  # an infinite range: no window will have a distance
    codes = np.where(present, np.searchsorted(begins, values, side="right"), -1)

    def measure(window: Integers, others: Integers, starts: Integers, length: int) -> Floats:
        distances = _distances(method, others, window, either_only=few)
        return np.column_stack([distances, _commonest_shares(values, starts, length)])

    return measure, codes, len(begins) + 1


def _categories(column: pd.Series, method: Distance) -> tuple[Measure, Integers, int]:
    codes, levels = pd.factorize(column)

    def measure(window: Integers, others: Integers, _: Integers, __: int) -> Floats:
        return _distances(method, others, window, either_only=True)[:, None]

    return measure, codes.astype(np.int64), len(levels)


def _distances(method: Distance, others: Integers, windows: Integers, *, either_only: bool) -> Floats:
    """Distances of counts, NaN for a side without rows.

    With ``either_only``, a level that neither side has is none: it would count where there is a logarithm.
    """
    result = np.full(len(windows), NAN)
    for row, (other, window) in enumerate(zip(others, windows, strict=True)):
        if other.any() and window.any():
            kept = other + window > 0 if either_only else slice(None)
            result[row] = OF_SHARES[method](other[kept] / other.sum(), window[kept] / window.sum())
    return result


def _commonest_shares(values: Floats, starts: Integers, length: int) -> Floats:
    windows = (values[start : start + length] for start in starts.tolist())
    return np.array([commonest_share(np.sort(window[~np.isnan(window)])) for window in windows])


def _gumbel(measured: Floats, floors: Floats) -> tuple[Floats, Floats]:
    """Location and scale by the method of moments, a column each; statistics without a value are left out."""
    known = ~np.isnan(measured)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, measured, 0).sum(axis=0) / count
    spread = np.sqrt(np.where(known, (measured - mean) ** 2, 0).sum(axis=0) / count)
    scale = np.maximum(spread * np.sqrt(6) / np.pi, floors)
    return mean - EULER * scale, scale


def _cross_fitted_scores(measured: Floats, starts: Integers, floors: Floats, length: int) -> Floats:
    """Each window's score by location and scale of the other quarters of time, without windows that overlap it."""
    scores = np.empty(len(starts))
    for quarter in np.array_split(np.arange(len(starts)), QUARTERS):
        apart = (starts + length <= starts[quarter[0]]) | (starts >= starts[quarter[-1]] + length)
        location, scale = _gumbel(measured[apart], floors)
        scores[quarter] = np.nanmax((measured[quarter] - location) / scale, axis=1)
    return scores
