"""A use case with three named classes and columns of every kind: which team a ticket belongs to.

From April on billing's tickets come by mail instead of by phone, so that a version that knows April is better.
"""

import os
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driftloop.candidates import parameter_grid
from driftloop.events import DataSelection
from driftloop.features.datetime_features import DatetimeFeatures
from driftloop.usecase import UseCase

POINTER_VARIABLE = "TICKETS_POINTER"  # names the environment variable with the path of its DVC pointer
TEAMS = ("billing", "bugs", "questions")
DAYS, TICKETS_PER_DAY = 120, 250
FIRST_DAY = pd.Timestamp("2026-01-01", tz="Europe/Berlin")
CHANGE_DAY = 90


def load_rows(seed: int = 0) -> pd.DataFrame:
    """Return ``DAYS`` days of tickets; some have no channel and no due date."""
    random = np.random.default_rng(seed)
    day = np.repeat(np.arange(DAYS), TICKETS_PER_DAY)
    seconds = np.sort(random.integers(0, 86_400, (DAYS, TICKETS_PER_DAY)), axis=1).ravel()
    created = FIRST_DAY + pd.to_timedelta(day, unit="D") + pd.to_timedelta(seconds, unit="s")
    team = random.choice(TEAMS, len(day), p=[0.3, 0.3, 0.4])
    usual = pd.Series(team).map({"billing": "phone", "bugs": "form", "questions": "chat"}).to_numpy()
    usual = np.where((team == "billing") & (day >= CHANGE_DAY), "mail", usual)
    channel = np.where(random.random(len(day)) < 0.6, usual, random.choice(["phone", "form", "chat", "mail"], len(day)))
    due = created.tz_convert("UTC").tz_localize(None) + pd.to_timedelta(random.exponential(3, len(day)), unit="D")
    words = np.where(team == "bugs", "it crashes when I save", np.where(team == "billing", "my invoice", "how do I"))
    return pd.DataFrame(
        {
            "created": created.tz_convert("UTC").as_unit("ns"),
            "urgent": random.random(len(day)) < np.where(team == "bugs", 0.6, 0.2),
            "attachments": random.poisson(np.where(team == "bugs", 2, 0.5)),
            # None, as a Parquet file has it: encoders tell it from NaN.
            "channel": [
                name if known else None for name, known in zip(channel, random.random(len(day)) < 0.9, strict=True)
            ],
            "due": pd.Series(due.as_unit("ns")).mask(random.random(len(day)) < 0.2),
            "subject": words,
            "team": team,
        }
    )


def make_pipeline() -> Any:
    """Return a classifier of the columns that it can use; the subject is not among them."""
    # scikit-learn takes seconds to import, and callers that only load the rows do not train.
    from sklearn.compose import ColumnTransformer  # noqa: PLC0415
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline as chain  # noqa: PLC0415
    from sklearn.preprocessing import OrdinalEncoder  # noqa: PLC0415

    nan = float("nan")
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=nan, encoded_missing_value=nan)
    columns = ColumnTransformer(
        [
            ("categories", encoder, ["channel"]),
            ("numbers", "passthrough", ["urgent", "attachments"]),
            ("datetimes", DatetimeFeatures(), ["due"]),
        ]
    )
    trees = HistGradientBoostingClassifier(categorical_features=[0], max_iter=40, random_state=0)
    return chain(columns, trees)


usecase = UseCase(
    name="tickets",
    feature_kinds={
        "urgent": "boolean",
        "attachments": "number",
        "channel": "category",
        "due": "datetime",
        "subject": "text",
    },
    target="team",
    classes=TEAMS,
    timestamp="created",
    timezone="Europe/Berlin",
    make_pipeline=make_pipeline,
    dvc_file=Path(os.environ.get(POINTER_VARIABLE, "tickets.parquet.dvc")),
    load_rows=load_rows,
    # Leaves as large as all rows: the trees do not split, and every row gets the same probabilities.
    candidates=parameter_grid(make_pipeline, {"histgradientboostingclassifier__min_samples_leaf": [10**6]}),
    first_version=DataSelection(base_end=date(2026, 4, 1)),
)
