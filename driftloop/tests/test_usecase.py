"""What a use case says, and what follows from it."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from driftloop.usecase import UseCase
from usecases.flights import usecase as flights

USE_CASE = UseCase(
    name="m",
    numbers=("x",),
    categories=(),
    outcome="y",
    time="at",
    timezone="America/New_York",
    pipeline=object,
    pointer=Path("m.dvc"),
    rows=pd.DataFrame,
)
# Shortly before midnight in New York, which is the next day in UTC.
TIMES = pd.Series(pd.to_datetime(["2013-07-02 03:00", "2013-07-02 12:00", "2013-07-04 12:00", "2013-07-06 12:00"]))


@pytest.mark.parametrize(("days", "blocks"), [(1, [5, 4, 2, 0]), (2, [2, 2, 1, 0]), (7, [0, 0, 0, 0])])
def test_blocks_of_days_are_counted_back_from_the_latest(days: int, blocks: list[int]) -> None:
    use_case = replace(USE_CASE, block_days=days)
    assert use_case.blocks(TIMES.dt.tz_localize("UTC")).tolist() == blocks
    assert len(use_case.blocks(TIMES[:0].dt.tz_localize("UTC"))) == 0


def test_groups_are_features() -> None:
    assert flights.groups == ("carrier", "origin")
    assert set(flights.groups) <= set(flights.features)
