"""Rows in order of time, for what is measured about drift: flights, bicycles, and streams whose truth is known."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from driftloop.drift.distances import ColumnType, FloatArray, IntArray
from tests.support.peer_environments import environment
from usecases.flights import usecase

DAY_ROWS = 1_000  # of the made streams
FOLDS = 4  # every fourth week is held out, in turn
EVERY, LATER, YEAR = "every 4th week", "later weeks", "rest of the year"
LEVELS = (3, 16, 100)  # of their categories: few, as many as carriers, as many as destinations


class Stream(NamedTuple):
    """Rows in order of time."""

    rows: pd.DataFrame
    """The columns that are compared, and no others."""
    dates: pd.Series
    """Each row's day."""
    kinds: dict[str, ColumnType]
    window: int
    """Rows of a window that suits it: about a day."""

    @property
    def days(self) -> IntArray:
        """The days as numbers, a step a day."""
        return np.asarray(self.dates.to_numpy().astype("datetime64[D]").astype(np.int64))

    def positions(self, start: str, end: str) -> IntArray:
        """The rows from the day ``start`` up to, not including, the day ``end``."""
        return np.flatnonzero((self.dates >= pd.Timestamp(start)) & (self.dates < pd.Timestamp(end)))


def flights() -> Stream:
    """2013's flights from New York with the weather: the features of the use case."""
    rows = usecase.load_rows()
    dates = rows[usecase.timestamp].dt.tz_convert(usecase.timezone).dt.tz_localize(None).dt.normalize()
    return Stream(rows[usecase.features], dates, usecase.column_types, 1_000)


def bikeshare() -> Stream:
    """2011's hourly hires of bicycles in Washington with the weather, from the file that the islp package carries."""
    (file,) = environment("islp").parent.glob("lib/python*/site-packages/ISLP/data/Bikeshare.csv")
    table = pd.read_csv(file)
    kinds: dict[str, ColumnType] = {
        **dict.fromkeys(("temp", "atemp", "hum", "windspeed", "casual", "registered"), "number"),
        **dict.fromkeys(("hr", "weekday", "workingday", "weathersit"), "category"),
    }
    rows = table[list(kinds)].astype({column: str for column, kind in kinds.items() if kind == "category"})
    return Stream(rows, pd.Timestamp("2010-12-31") + pd.to_timedelta(table["day"], unit="D"), kinds, 24)


def made(seed: int, days: int, shared: float, correlation: float) -> Stream:
    """Ten numbers and three categories whose truth is known.

    A day shares ``shared`` of a column's variance, and a day's share goes on into the next with ``correlation``.
    """
    random = np.random.default_rng(seed)
    kinds: dict[str, ColumnType] = {
        **{f"number {n}": "number" for n in range(10)},
        **{f"category of {levels}": "category" for levels in LEVELS},
    }
    values = {column: _normal(random, days, shared, correlation) for column in kinds}
    levels = dict(zip([column for column, kind in kinds.items() if kind == "category"], LEVELS, strict=True))
    columns = {column: _cut(of_it, levels[column]) if column in levels else of_it for column, of_it in values.items()}
    dates = pd.Series(pd.Timestamp("2013-01-01") + pd.to_timedelta(np.arange(days * DAY_ROWS) // DAY_ROWS, unit="D"))
    return Stream(pd.DataFrame(columns), dates, kinds, DAY_ROWS)


def _normal(random: np.random.Generator, days: int, shared: float, correlation: float) -> FloatArray:
    """Values of variance 1."""
    of_day = np.empty(days)
    of_day[0] = random.normal()
    for day, new in enumerate(random.normal(size=days - 1), 1):
        of_day[day] = correlation * of_day[day - 1] + np.sqrt(1 - correlation**2) * new
    own = random.normal(size=days * DAY_ROWS)
    return np.asarray(np.sqrt(shared) * np.repeat(of_day, DAY_ROWS) + np.sqrt(1 - shared) * own)


def _cut(values: FloatArray, levels: int) -> npt.NDArray[np.object_]:
    """Values as so many levels, of which the n-th has a share as 1/n."""
    shares = 1 / np.arange(1, levels + 1)
    limits = np.quantile(values, np.cumsum(shares / shares.sum())[:-1])
    return np.array([f"level {level}" for level in range(levels)], dtype=object)[np.searchsorted(limits, values)]


def evenly(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """So many rows in their order: evenly spaced, or repeated where there are too few."""
    at = np.linspace(0, len(rows) - 1, count).astype(int) if count <= len(rows) else np.arange(count) % len(rows)
    return rows.iloc[at].reset_index(drop=True)


def shares(alarms: Sequence[bool] | npt.NDArray[np.bool_], blocks: npt.NDArray[np.generic]) -> FloatArray:
    """The share of alarms in percent, with the ends of its 95 % interval: blocks are drawn whole, 2,000 times."""
    _, block = np.unique(blocks, return_inverse=True)
    counts = np.bincount(block)
    hits = np.bincount(block, np.asarray(alarms, dtype=float))
    drawn = np.random.default_rng(0).integers(len(counts), size=(2_000, len(counts)))
    bounds = np.quantile(hits[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [0.025, 0.975])
    return np.array([hits.sum() / counts.sum(), *bounds]) * 100


Change = Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]
"""What is made of rows; the second frame is what was learned from."""


class Injection(NamedTuple):
    """A change that is made in rows where nothing has changed."""

    name: str
    column: str
    change: Change


class Stretch(NamedTuple):
    """Rows in a row that nothing was learned from."""

    first: int
    end: int
    block: str
    """Windows of a block are not independent."""


class Split(NamedTuple):
    """What is learned from, and what is tested."""

    design: str
    learned: IntArray
    stretches: list[Stretch]


def season(stream: Stream, start: str, end: str, weeks: int) -> list[Split]:
    """Every fourth week of a season held out in turn; and its later weeks, after learning from the first ``weeks``."""
    rows = stream.positions(start, end)
    week = (stream.days[rows] - stream.days[rows[0]]) // 7
    return [
        *(
            Split(EVERY, rows[week % FOLDS != fold], _stretches(rows, week, week % FOLDS == fold))
            for fold in range(FOLDS)
        ),
        Split(LATER, rows[week < weeks], _stretches(rows, week, week >= weeks)),
    ]


def _stretches(rows: IntArray, week: IntArray, chosen: npt.NDArray[np.bool_]) -> list[Stretch]:
    """A stretch a week."""
    return [
        Stretch(int(rows[week == one][0]), int(rows[week == one][-1]) + 1, f"week {one}")
        for one in np.unique(week[chosen])
    ]


def rest_of_the_year(stream: Stream, start: str, end: str) -> Split:
    """A season learned; a stretch a month that is not in it."""
    learned = stream.positions(start, end)
    month = stream.dates.dt.month.to_numpy()
    others = np.setdiff1d(np.unique(month), np.unique(month[learned]))
    stretches = []
    for one in others.tolist():
        rows = np.flatnonzero(month == one)
        stretches.append(Stretch(int(rows[0]), int(rows[-1]) + 1, pd.Timestamp(2013, one, 1).month_name()))
    return Split(YEAR, learned, stretches)


def _plus(column: str, sds: float) -> Change:
    return lambda rows, learned: rows.assign(**{column: rows[column] + sds * learned[column].std()})


def _gone(column: str) -> Change:
    """Rows of the level that is second most frequent do not come any more."""
    return lambda rows, learned: rows[rows[column] != learned[column].value_counts().index[1]]


def _renamed(column: str, share: float) -> Change:
    def change(rows: pd.DataFrame, _: pd.DataFrame) -> pd.DataFrame:
        some = np.random.default_rng(1).random(len(rows)) < share
        return rows.assign(**{column: rows[column].where(~some, rows[column].str.lower() + "*")})

    return change


def _nulls(column: str, share: float) -> Change:
    def change(rows: pd.DataFrame, _: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(**{column: rows[column].mask(np.random.default_rng(2).random(len(rows)) < share)})

    return change


INJECTIONS = [
    Injection("distance + 0.25 sd", "distance", _plus("distance", 0.25)),
    Injection("distance + 0.5 sd", "distance", _plus("distance", 0.5)),
    Injection("distance + 1 sd", "distance", _plus("distance", 1)),
    Injection("departure time + 0.25 sd", "sched_dep_time", _plus("sched_dep_time", 0.25)),
    Injection("departure time + 0.5 sd", "sched_dep_time", _plus("sched_dep_time", 0.5)),
    Injection("departure time + 1 sd", "sched_dep_time", _plus("sched_dep_time", 1)),
    Injection("a carrier gone", "carrier", _gone("carrier")),
    Injection("an origin gone", "origin", _gone("origin")),
    Injection("10 % of carriers renamed", "carrier", _renamed("carrier", 0.1)),
    Injection("10 % nulls in temperature", "temp", _nulls("temp", 0.1)),
    Injection("temperature frozen", "temp", lambda rows, _: rows.assign(temp=rows["temp"].bfill().iloc[0])),
    Injection("miles to kilometres", "distance", lambda rows, _: rows.assign(distance=rows["distance"] * 1.609344)),
    Injection("Fahrenheit to Celsius", "temp", lambda rows, _: rows.assign(temp=(rows["temp"] - 32) / 1.8)),
]
