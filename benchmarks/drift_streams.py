"""Streams of rows in order of time for drift benchmarks: flights, bicycle hires, and synthetic streams."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from driftloop.drift.comparable_columns import COLUMN_TYPES
from driftloop.drift.distances import ColumnType, FloatArray, IntArray
from tests.support.peer_environments import ensure_environment
from usecases.flights import usecase

DAY_ROWS = 1_000  # of synthetic streams
FOLDS = 4  # every fourth week is held out in turn
EVERY_4TH_WEEK, LATER_WEEKS, REST_OF_YEAR = "every 4th week", "later weeks", "rest of the year"
LEVELS = (3, 16, 100)  # of synthetic categories: few, like carriers, like destinations


class Stream(NamedTuple):
    """Rows in order of time, with the day of each row."""

    rows: pd.DataFrame
    """The columns that are compared."""
    dates: pd.Series
    """The day of each row."""
    column_types: dict[str, ColumnType]
    window_rows: int
    """Rows of a window: about a day."""

    @property
    def days(self) -> IntArray:
        """The ordinal of each row's day."""
        return np.asarray(self.dates.to_numpy().astype("datetime64[D]").astype(np.int64))

    def positions(self, start: str, end: str) -> IntArray:
        """Return the positions of the rows from day ``start`` to before day ``end``."""
        return np.flatnonzero((self.dates >= pd.Timestamp(start)) & (self.dates < pd.Timestamp(end)))


def flights() -> Stream:
    """Return the flights of 2013 from New York with the weather: the features of the use case."""
    rows = usecase.load_rows()
    dates = rows[usecase.timestamp].dt.tz_convert(usecase.timezone).dt.tz_localize(None).dt.normalize()
    return Stream(
        rows[usecase.features],
        dates,
        {column: COLUMN_TYPES[kind] for column, kind in usecase.feature_kinds.items()},
        1_000,
    )


def bikeshare() -> Stream:
    """Return the hourly bicycle hires of 2011 in Washington with the weather, from the data of the islp package."""
    (file,) = ensure_environment("islp").parent.glob("lib/python*/site-packages/ISLP/data/Bikeshare.csv")
    table = pd.read_csv(file)
    column_types: dict[str, ColumnType] = {
        **dict.fromkeys(("temp", "atemp", "hum", "windspeed", "casual", "registered"), "number"),
        **dict.fromkeys(("hr", "weekday", "workingday", "weathersit"), "category"),
    }
    rows = table[list(column_types)].astype(
        {column: str for column, column_type in column_types.items() if column_type == "category"}
    )
    return Stream(rows, pd.Timestamp("2010-12-31") + pd.to_timedelta(table["day"], unit="D"), column_types, 24)


def synthetic(seed: int, days: int, shared: float, correlation: float) -> Stream:
    """Return a synthetic stream of ten numbers and three categories.

    Args:
        seed: Of the random generator.
        days: The length of the stream.
        shared: Fraction of each column's variance that all rows of a day have in common.
        correlation: Correlation of a day's common part with that of the day before.
    """
    random = np.random.default_rng(seed)
    column_types: dict[str, ColumnType] = {
        **{f"number {n}": "number" for n in range(10)},
        **{f"category of {levels}": "category" for levels in LEVELS},
    }
    values = {column: _normal_values(random, days, shared, correlation) for column in column_types}
    levels = dict(
        zip([column for column, column_type in column_types.items() if column_type == "category"], LEVELS, strict=True)
    )
    columns = {
        column: _to_levels(column_values, levels[column]) if column in levels else column_values
        for column, column_values in values.items()
    }
    dates = pd.Series(pd.Timestamp("2013-01-01") + pd.to_timedelta(np.arange(days * DAY_ROWS) // DAY_ROWS, unit="D"))
    return Stream(pd.DataFrame(columns), dates, column_types, DAY_ROWS)


def _normal_values(random: np.random.Generator, days: int, shared: float, correlation: float) -> FloatArray:
    """Return values of variance 1 with a common part per day."""
    day_part = np.empty(days)
    day_part[0] = random.normal()
    for day, innovation in enumerate(random.normal(size=days - 1), 1):
        day_part[day] = correlation * day_part[day - 1] + np.sqrt(1 - correlation**2) * innovation
    row_part = random.normal(size=days * DAY_ROWS)
    return np.asarray(np.sqrt(shared) * np.repeat(day_part, DAY_ROWS) + np.sqrt(1 - shared) * row_part)


def _to_levels(values: FloatArray, levels: int) -> npt.NDArray[np.object_]:
    """Return values as ``levels`` levels; the n-th level has a frequency proportional to 1/n."""
    weights = 1 / np.arange(1, levels + 1)
    limits = np.quantile(values, np.cumsum(weights / weights.sum())[:-1])
    return np.array([f"level {level}" for level in range(levels)], dtype=object)[np.searchsorted(limits, values)]


def sample_evenly(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return ``count`` rows in their order: evenly spaced, or repeated if there are too few."""
    spaced, repeated = np.linspace(0, len(rows) - 1, count).astype(int), np.arange(count) % len(rows)
    positions = spaced if count <= len(rows) else repeated
    return rows.iloc[positions].reset_index(drop=True)


def rate_with_interval(alarms: Sequence[bool] | npt.NDArray[np.bool_], blocks: npt.NDArray[np.generic]) -> FloatArray:
    """Return the rate of alarms in percent and the ends of its 95 % interval, by 2,000 resamples of whole blocks."""
    _, block = np.unique(blocks, return_inverse=True)
    counts = np.bincount(block)
    hits = np.bincount(block, np.asarray(alarms, dtype=float))
    resamples = np.random.default_rng(0).integers(len(counts), size=(2_000, len(counts)))
    bounds = np.quantile(hits[resamples].sum(axis=1) / counts[resamples].sum(axis=1), [0.025, 0.975])
    return np.array([hits.sum() / counts.sum(), *bounds]) * 100


Change = Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]
"""Changes rows; the second argument is the reference."""


class Injection(NamedTuple):
    """A change that is made to unchanged rows."""

    name: str
    column: str
    change: Change


class Stretch(NamedTuple):
    """Consecutive rows that are not part of the reference."""

    first: int
    end: int
    block: str
    """Windows of the same block are not independent."""


class Split(NamedTuple):
    """A reference and the stretches that are tested against it."""

    design: str
    reference: IntArray
    test_stretches: list[Stretch]


def season_splits(stream: Stream, start: str, end: str, weeks: int) -> list[Split]:
    """Return splits of a season: each fourth of its weeks held out in turn, and the weeks after the first ``weeks``."""
    rows = stream.positions(start, end)
    week = (stream.days[rows] - stream.days[rows[0]]) // 7
    return [
        *(
            Split(EVERY_4TH_WEEK, rows[week % FOLDS != fold], _weekly_stretches(rows, week, week % FOLDS == fold))
            for fold in range(FOLDS)
        ),
        Split(LATER_WEEKS, rows[week < weeks], _weekly_stretches(rows, week, week >= weeks)),
    ]


def _weekly_stretches(rows: IntArray, week: IntArray, chosen: npt.NDArray[np.bool_]) -> list[Stretch]:
    """Return a stretch per chosen week."""
    return [
        Stretch(int(rows[week == number][0]), int(rows[week == number][-1]) + 1, f"week {number}")
        for number in np.unique(week[chosen])
    ]


def rest_of_year_split(stream: Stream, start: str, end: str) -> Split:
    """Return a split with a season as the reference, and a stretch per month outside of it."""
    reference = stream.positions(start, end)
    month = stream.dates.dt.month.to_numpy()
    others = np.setdiff1d(np.unique(month), np.unique(month[reference]))
    stretches = []
    for number in others.tolist():
        rows = np.flatnonzero(month == number)
        stretches.append(Stretch(int(rows[0]), int(rows[-1]) + 1, pd.Timestamp(2013, number, 1).month_name()))
    return Split(REST_OF_YEAR, reference, stretches)


def _shifted(column: str, stds: float) -> Change:
    return lambda rows, reference: rows.assign(**{column: rows[column] + stds * reference[column].std()})


def _without_second_level(column: str) -> Change:
    """Return a change that removes the rows with the reference's second most frequent level."""
    return lambda rows, reference: rows[rows[column] != reference[column].value_counts().index[1]]


def _renamed(column: str, fraction: float) -> Change:
    def change(rows: pd.DataFrame, _: pd.DataFrame) -> pd.DataFrame:
        is_renamed = np.random.default_rng(1).random(len(rows)) < fraction
        return rows.assign(**{column: rows[column].where(~is_renamed, rows[column].str.lower() + "*")})

    return change


def _with_nulls(column: str, fraction: float) -> Change:
    def change(rows: pd.DataFrame, _: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(**{column: rows[column].mask(np.random.default_rng(2).random(len(rows)) < fraction)})

    return change


INJECTIONS = [
    Injection("distance + 0.25 sd", "distance", _shifted("distance", 0.25)),
    Injection("distance + 0.5 sd", "distance", _shifted("distance", 0.5)),
    Injection("distance + 1 sd", "distance", _shifted("distance", 1)),
    Injection("departure time + 0.25 sd", "sched_dep_time", _shifted("sched_dep_time", 0.25)),
    Injection("departure time + 0.5 sd", "sched_dep_time", _shifted("sched_dep_time", 0.5)),
    Injection("departure time + 1 sd", "sched_dep_time", _shifted("sched_dep_time", 1)),
    Injection("a carrier gone", "carrier", _without_second_level("carrier")),
    Injection("an origin gone", "origin", _without_second_level("origin")),
    Injection("10 % of carriers renamed", "carrier", _renamed("carrier", 0.1)),
    Injection("10 % nulls in temperature", "temp", _with_nulls("temp", 0.1)),
    Injection("temperature frozen", "temp", lambda rows, _: rows.assign(temp=rows["temp"].bfill().iloc[0])),
    Injection("miles to kilometres", "distance", lambda rows, _: rows.assign(distance=rows["distance"] * 1.609344)),
    Injection("Fahrenheit to Celsius", "temp", lambda rows, _: rows.assign(temp=(rows["temp"] - 32) / 1.8)),
]
