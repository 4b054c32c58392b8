"""Days and blocks of a use case, and the columns of the flights."""

from dataclasses import replace

import pandas as pd
import pytest

from tests.support.synthetic_usecase import make_use_case
from usecases.flights import usecase as flights

USE_CASE = make_use_case()
# Shortly before midnight in New York, which is the next day in UTC.
TIMES = pd.Series(pd.to_datetime(["2013-07-02 03:00", "2013-07-02 12:00", "2013-07-04 12:00", "2013-07-06 12:00"]))


@pytest.mark.parametrize(("days", "blocks"), [(1, [5, 4, 2, 0]), (2, [2, 2, 1, 0]), (7, [0, 0, 0, 0])])
def test_use_case_counts_blocks_of_days_back_from_the_latest(days: int, blocks: list[int]) -> None:
    use_case = replace(USE_CASE, block_days=days)
    assert use_case.block_ids(TIMES.dt.tz_localize("UTC")).tolist() == blocks
    assert len(use_case.block_ids(TIMES[:0].dt.tz_localize("UTC"))) == 0


def test_flights_subgroup_columns_are_features() -> None:
    assert flights.subgroup_columns == ("carrier", "origin")
    assert set(flights.subgroup_columns) <= set(flights.features)
