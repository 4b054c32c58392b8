"""What is normal: how large each statistic grows in a reference's own windows, when nothing has changed.

Hours are autocorrelated, categories with many levels are sparse, and columns move together; a fixed threshold knows
none of it. So each statistic's location and scale are learned from the reference's own consecutive windows, and one
limit for the whole window holds the rate of false alarms.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel

from driftloop.drift.statistics import Kind, Method, checks, statistics

Floats = npt.NDArray[np.float64]

EULER = 0.5772  # mean of a standard Gumbel law
FLOORS: dict[Method, float] = {  # a statistic that never moved still needs a scale
    "wasserstein": 0.001,
    "jensenshannon": 0.001,
    "missing_share": 0.005,
    "commonest_share": 0.05,
}
STEPS = 4  # windows slide by a quarter of their length: more of them, at little cost
QUARTERS = 4  # parts of the reference's time for cross-fitting
FEWEST = 20  # windows without overlap; below, a 1 % limit would be a guess
SAMPLE = 5_000  # rows that windows are compared with; evidently's cost grows with them, its values hardly change


class Normal(BaseModel, frozen=True):
    """Location and scale (of a Gumbel law) of one statistic in windows where nothing has changed."""

    column: str
    method: Method
    location: float
    scale: float


class Profile(BaseModel, frozen=True):
    """A reference's drift profile: kept beside the reference, read by whoever judges a window against it."""

    rows: int
    """Rows of a window: another length has other statistics."""
    false_alarm_rate: float
    limit: float
    """The window's score above which it alarms."""
    kinds: dict[str, Kind]
    normals: list[Normal]


class TooFewRows(ValueError):
    """The reference has too few windows to learn from."""


def sample(reference: pd.DataFrame) -> pd.DataFrame:
    """The rows that windows are compared with, in the reference's order; the index still says where they stood."""
    return reference.sample(n=min(SAMPLE, len(reference)), random_state=0).sort_index()


def calibrate(
    reference: pd.DataFrame,
    days: npt.NDArray[np.int64],
    kinds: Mapping[str, Kind],
    *,
    rows: int,
    false_alarm_rate: float,
    neighbourhood: int = 3,
) -> Profile:
    """Learns a profile from a reference.

    ``reference`` is in order of time with an index from 0, ``days`` the number of each row's day, ``rows`` the length
    of the windows that will be judged. Each window is compared with the reference's sample without the rows within
    ``neighbourhood`` days of the window, since the window that will be judged is not in the reference either.

    Raises :class:`TooFewRows` with the number of rows that are missing.
    """
    if len(reference) < FEWEST * rows:
        raise TooFewRows(
            f"a reference of {len(reference)} rows is too small to learn what windows of {rows} rows look like: "
            f"{FEWEST * rows - len(reference)} more rows are needed, or a shorter window (DRIFTLOOP_WINDOW__ROWS)"
        )
    compared = sample(reference)
    sample_days = days[compared.index]
    starts = np.arange(0, len(reference) - rows + 1, max(rows // STEPS, 1))
    measured = np.empty((len(starts), len(checks(kinds))))
    for i, start in enumerate(starts):
        first, last = days[start] - neighbourhood, days[start + rows - 1] + neighbourhood
        others = compared[(sample_days < first) | (sample_days > last)]
        window = reference.iloc[start : start + rows]
        measured[i] = list(statistics(kinds, others, window).values())

    floors = np.array([FLOORS[check.method] for check in checks(kinds)])
    location, scale = _gumbel(measured, floors)
    scores = _cross_fitted_scores(measured, starts, floors, rows)
    return Profile(
        rows=rows,
        false_alarm_rate=false_alarm_rate,
        limit=float(np.quantile(scores, 1 - false_alarm_rate)),
        kinds=dict(kinds),
        normals=[
            Normal(column=check.column, method=check.method, location=float(mu), scale=float(b))
            for check, mu, b in zip(checks(kinds), location, scale, strict=True)
        ],
    )


def _gumbel(measured: Floats, floors: Floats) -> tuple[Floats, Floats]:
    """Location and scale by the method of moments, a column each; statistics without a value are left out."""
    spread = np.nan_to_num(np.nanstd(measured, axis=0))
    scale = np.maximum(spread * np.sqrt(6) / np.pi, floors)
    return np.nan_to_num(np.nanmean(measured, axis=0)) - EULER * scale, scale


def _cross_fitted_scores(measured: Floats, starts: npt.NDArray[np.int64], floors: Floats, rows: int) -> Floats:
    """Each window's score by location and scale of the other quarters of time, without windows that overlap it."""
    scores = np.empty(len(starts))
    for quarter in np.array_split(np.arange(len(starts)), QUARTERS):
        apart = (starts + rows <= starts[quarter[0]]) | (starts >= starts[quarter[-1]] + rows)
        location, scale = _gumbel(measured[apart], floors)
        scores[quarter] = np.nanmax((measured[quarter] - location) / scale, axis=1)
    return scores
