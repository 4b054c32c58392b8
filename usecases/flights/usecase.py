"""The use case of the flights."""

from datetime import date
from functools import partial
from pathlib import Path

from driftloop.events import DataSelection
from driftloop.usecase import UseCase
from usecases.flights import dataset
from usecases.flights.pipeline import make_pipeline

NUMERIC_FEATURES = ("sched_dep_time", "distance", *dataset.WEATHER, "day_of_week")
CATEGORICAL_FEATURES = ("carrier", "origin", "dest")

usecase = UseCase(
    name="flights",
    feature_kinds={**dict.fromkeys(NUMERIC_FEATURES, "number"), **dict.fromkeys(CATEGORICAL_FEATURES, "category")},
    target="late",
    classes=(0, 1),
    timestamp="time",
    timezone="America/New_York",
    make_pipeline=partial(make_pipeline, NUMERIC_FEATURES, CATEGORICAL_FEATURES),
    dvc_file=Path(__file__).with_name("flights.parquet.dvc"),
    load_rows=dataset.load_rows,
    optional_features=dataset.WEATHER,
    subgroup_columns=("carrier", "origin"),
    first_version=DataSelection(start=date(2013, 1, 1), base_end=date(2013, 4, 1)),
)
