"""Events about single requests: what a model predicted, and what really happened."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, FiniteFloat, StrictBool, StrictInt, StrictStr, model_validator

from driftloop.events.base import Event

if TYPE_CHECKING:
    import pandas as pd  # clients that only talk to the broker do not need it

FeatureValue = float | int | bool | str | datetime | None
Label = float | int | bool | str
"""A class of a classifier, in the type that the classifier was fitted with."""
PredictionValue = Label | list[Label]
"""What a model returns for a row: a probability or number, a class, or a list with one for each output."""

OutcomeValue = Annotated[StrictBool, Field()] | StrictInt | FiniteFloat | Annotated[StrictStr, Field(max_length=256)]
"""What really happened to a row: a number, a boolean, or the label of a class."""

# The columns that the archive has besides features. Features have names of the users' choice, such as model or time, so
# each of these begins with an underscore.
ID_COLUMN = "_id"
ROW_COLUMN = "_row"
TIME_COLUMN = "_time"
MODEL_COLUMN = "_model"
VERSION_COLUMN = "_version"
PREDICTION_COLUMN = "_prediction"
CLASSES_COLUMN = "_classes"
LABEL_COLUMN = "_label"
KEY_COLUMN = "_key"
RESERVED_COLUMNS = frozenset(
    {
        ID_COLUMN,
        ROW_COLUMN,
        TIME_COLUMN,
        MODEL_COLUMN,
        VERSION_COLUMN,
        PREDICTION_COLUMN,
        CLASSES_COLUMN,
        LABEL_COLUMN,
        KEY_COLUMN,
    }
)
"""Columns that the archive has besides features. No feature may have one of these names."""

RowIndex = Annotated[int, Field(ge=0, lt=2**31)]


def frame_to_columns(frame: pd.DataFrame) -> dict[str, list[FeatureValue]]:
    """Return a frame's values by column, with ``None`` for missing ones."""
    return {
        str(name): [None if missing else cell for cell, missing in zip(column.tolist(), column.isna(), strict=True)]
        for name, column in frame.items()
    }


class Prediction(Event):
    """A request was answered with one prediction for each of its rows."""

    type = "driftloop.prediction.v1"
    topic = "predictions"

    model: str
    """Name of the registered model."""
    version: str
    """Version of the model that has predicted."""
    features: dict[str, list[FeatureValue]]
    """Values by column. Each column has one value, or null, for each row."""
    predictions: list[PredictionValue]
    """One prediction for each row."""
    classes: list[Label] | None = None
    """The model's classes, if the predictions are their probabilities: one for each number in the list of a prediction;
    if there are two, a prediction is a single number, the probability of the second. Null if predictions are labels or
    numbers of another kind."""

    @model_validator(mode="after")
    def _require_equal_lengths(self) -> Self:
        rows = len(self.predictions)
        if any(len(column) != rows for column in self.features.values()):
            others = {name: len(column) for name, column in self.features.items() if len(column) != rows}
            raise ValueError(f"{rows} predictions, but columns of another length: {others}")
        return self


class Outcome(Event):
    """What really happened to one row of a prediction became known at ``time``."""

    type = "driftloop.outcome.v1"
    topic = "outcomes"

    prediction_id: str
    """Id of the prediction event."""
    index: RowIndex
    """Position of the row in the prediction's request, from 0."""
    outcome: OutcomeValue
    """A number, a boolean or a label, as the training data has it. The latest outcome of a row counts."""

    @property
    def key(self) -> str:
        """Id of the prediction: corrections of an outcome stay in order."""
        return self.prediction_id
