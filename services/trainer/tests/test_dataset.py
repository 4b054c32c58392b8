"""Which rows are trained on and which are held out."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from driftloop.events import DataSelection
from driftloop.usecase import UseCase
from trainer import dataset
from trainer.dataset import UnfitData

USE_CASE = UseCase(
    name="m",
    numbers=("x",),
    categories=(),
    outcome="y",
    time="at",
    timezone="America/New_York",
    pipeline=LogisticRegression,
    pointer=Path("m.dvc"),
    rows=pd.DataFrame,
)


def days(first: date, count: int, outcome: float = 0.0) -> pd.DataFrame:
    """Two rows a day, one of them shortly before midnight in New York, which is the next day in UTC."""
    start = datetime(first.year, first.month, first.day, tzinfo=UTC)
    at = [start + timedelta(days=n, hours=hour) for n in range(count) for hour in (12, 27)]
    return pd.DataFrame({"at": pd.to_datetime(at, utc=True), "x": np.arange(2.0 * count), "y": outcome})


class Archive:
    """A bucket that holds these frames, by folder."""

    def __init__(self, **folders: list[pd.DataFrame]) -> None:
        self.folders = folders

    def read_folder(self, path: str) -> Iterator[pd.DataFrame]:
        yield from self.folders.get(path.removeprefix("events/"), [])


def asked(*rows: tuple[str, int, str]) -> pd.DataFrame:
    at = pd.Timestamp("2013-07-01", tz="UTC")
    return pd.DataFrame([{"id": i, "row": r, "time": at, "model": m, "x": 1.0} for i, r, m in rows])


def known(*rows: tuple[str, int, str, float]) -> pd.DataFrame:
    return pd.DataFrame([{"id": i, "row": r, "time": pd.Timestamp(at, tz="UTC"), "outcome": o} for i, r, at, o in rows])


def test_the_last_outcome_known_of_a_row_counts() -> None:
    bucket = Archive(
        predictions=[asked(("a", 0, "m"), ("a", 1, "m"), ("b", 0, "m")), asked(("a", 0, "m"), ("c", 0, "other"))],
        outcomes=[known(("a", 0, "2013-07-03", 1.0)), known(("a", 0, "2013-07-02", 0.0), ("b", 0, "2013-07-02", 0.0))],
    )
    rows = dataset.archived(bucket, "predictions", "outcomes", USE_CASE)  # type: ignore[arg-type]  # a stand-in
    assert rows["y"].fillna(-1).tolist() == [1.0, -1.0, 0.0]


def test_an_empty_archive_adds_no_rows() -> None:
    rows = dataset.archived(Archive(), "predictions", "outcomes", USE_CASE)  # type: ignore[arg-type]  # a stand-in
    assert len(dataset.select(USE_CASE, days(date(2013, 1, 1), 3), rows, DataSelection())) == 6


def test_a_selection_goes_by_the_use_cases_own_days() -> None:
    base = days(date(2013, 1, 1), 10)
    chosen = dataset.select(
        USE_CASE,
        base,
        base[:0],
        DataSelection(start=date(2013, 1, 3), end=date(2013, 1, 6), without_days=[date(2013, 1, 4)]),
    )
    assert chosen["x"].tolist() == [4.0, 5.0, 8.0, 9.0]


def test_the_latest_days_with_outcomes_are_held_out_and_what_came_after_them_is_in_neither() -> None:
    rows = pd.concat([days(date(2013, 1, 1), 10), days(date(2013, 1, 11), 2, outcome=np.nan)], ignore_index=True)
    learn, held_out = dataset.split(USE_CASE, rows, held_out_days=3)
    assert sorted(set(USE_CASE.days(learn["at"]))) == [date(2013, 1, n) for n in range(1, 8)]
    assert sorted(set(USE_CASE.days(held_out["at"]))) == [date(2013, 1, n) for n in range(8, 11)]


def test_a_split_without_held_out_days_learns_from_all_that_is_known() -> None:
    learn, held_out = dataset.split(USE_CASE, days(date(2013, 1, 1), 4), held_out_days=0)
    assert (len(learn), len(held_out)) == (8, 0)


def test_too_few_days_are_told_with_the_number_that_is_missing() -> None:
    with pytest.raises(UnfitData, match="at least 3 more days"):
        dataset.split(USE_CASE, days(date(2013, 1, 1), 12), held_out_days=14)


def test_one_class_cannot_be_trained_on() -> None:
    with pytest.raises(UnfitData, match="1 different values in 8"):
        dataset.check(USE_CASE, days(date(2013, 1, 1), 4))


def test_the_champion_must_not_have_learned_from_what_it_is_judged_on() -> None:
    held_out = days(date(2013, 1, 5), 2)
    dataset.check_unseen(USE_CASE, held_out, pd.Timestamp("2013-01-05 11:59", tz="UTC"))
    with pytest.raises(UnfitData, match="2 of 4 held-out rows are not later"):
        dataset.check_unseen(USE_CASE, held_out, pd.Timestamp("2013-01-06 04:00", tz="UTC"))
