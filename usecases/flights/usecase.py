"""The flights, as driftloop sees them."""

from functools import partial
from pathlib import Path

from driftloop.usecase import UseCase
from usecases.flights import dataset
from usecases.flights.pipeline import pipeline

NUMBERS = ("sched_dep_time", "distance", *dataset.WEATHER, "day_of_week")
CATEGORIES = ("carrier", "origin", "dest")

usecase = UseCase(
    name="flights",
    numbers=NUMBERS,
    categories=CATEGORIES,
    outcome="late",
    time="time",
    timezone="America/New_York",
    pipeline=partial(pipeline, NUMBERS, CATEGORIES),
    pointer=Path(__file__).with_name("flights.parquet.dvc"),
    rows=dataset.rows,
    groups=("carrier", "origin"),
)
