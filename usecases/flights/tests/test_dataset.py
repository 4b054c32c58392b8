"""The flights dataset: complete, reproducible and joined with the right weather."""

from datetime import date
from hashlib import md5
from pathlib import Path

import pandas as pd
import pytest

from usecases.flights import dataset, usecase


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return usecase.load_rows()


def test_dataset_build_writes_the_bytes_that_the_dvc_file_names(tmp_path: Path) -> None:
    dataset.build(tmp_path / "flights.parquet")
    digest = md5((tmp_path / "flights.parquet").read_bytes(), usedforsecurity=False).hexdigest()
    assert f"md5: {digest}\n" in usecase.dvc_file.read_text()


def test_dataset_has_every_flight_sorted_by_time(rows: pd.DataFrame) -> None:
    assert len(rows) == 336_776
    assert rows["time"].is_monotonic_increasing
    assert rows["late"].isna().sum() == 9_430
    assert set(usecase.features) < set(rows.columns)


def test_use_case_counts_days_in_new_york(rows: pd.DataFrame) -> None:
    days = usecase.local_dates(rows["time"])
    assert (days.min(), days.max(), days.nunique()) == (date(2013, 1, 1), date(2013, 12, 31), 365)
    assert len(usecase.rows_between(rows, date(2013, 1, 1), date(2013, 1, 2))) == 842


def test_dataset_joins_weather_of_origin_and_hour_of_departure() -> None:
    flight = {
        **{"year": 2013, "month": 7, "day": 1, "minute": 30, "sched_dep_time": 530, "distance": 100, "arr_delay": 15.0},
        **{"carrier": "UA", "flight": 1, "dest": "IAH", "time_hour": "2013-07-01T09:00:00Z"},
    }
    flights = pd.DataFrame([{**flight, "origin": "JFK"}, {**flight, "origin": "EWR", "arr_delay": None}])
    weather = pd.DataFrame(
        [
            {"origin": origin, "time_hour": f"2013-07-01T{hour:02}:00:00Z", **dict.fromkeys(dataset.WEATHER, value)}
            for origin, hour, value in (("JFK", 9, 1.0), ("JFK", 10, 2.0), ("LGA", 9, 3.0))
        ]
    )
    joined = dataset.join_weather(flights, weather).set_index("origin")
    assert joined.loc["JFK", "temp"] == 1.0
    assert joined["late"].to_dict()["JFK"] == 1
    assert joined.loc[["EWR"], ["temp", "late"]].isna().all(axis=None)
    assert joined.loc["JFK", "time"] == pd.Timestamp("2013-07-01T09:30:00Z")
