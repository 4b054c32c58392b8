"""Events about single requests: what a model predicted, and what really happened."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import (
    Field,
    FiniteFloat,
    StrictBool,
    StrictStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from driftloop.events.base import Event, Name

if TYPE_CHECKING:
    import pandas as pd  # clients that only talk to the broker do not need it

FeatureValue = float | int | bool | str | datetime | None
Label = FiniteFloat | int | bool | str
"""A class of a classifier, in the type that the classifier was fitted with."""
PredictionValue = Label | list[Label]
"""What a model returns for a row: a probability or number, a class, or a list with one for each output."""
ContextValue = float | int | bool | str | None
RowKey = Annotated[str, Field(min_length=1, max_length=256)]
"""A client's own name for a row that it sends, such as the number of an order."""

ShortText = Annotated[StrictStr, Field(max_length=256)]


def _require_outcome(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    """Validate an outcome, and report one error instead of one for each type that it might have been."""
    try:
        return handler(value)
    except ValidationError as error:
        raise PydanticCustomError(
            "outcome_type", "an outcome is a finite number, true or false, or a text of at most 256 characters"
        ) from error


OutcomeValue = Annotated[StrictBool | FiniteFloat | ShortText, WrapValidator(_require_outcome)]
"""What really happened to a row: a number, a boolean, or the label of a class."""

# The columns that the archive has besides features. Features have names of the users' choice, such as model or time, so
# each of these begins with an underscore.
ID_COLUMN = "_id"
ROW_COLUMN = "_row"
TIME_COLUMN = "_time"
MODEL_COLUMN = "_model"
VERSION_COLUMN = "_version"
RUN_COLUMN = "_run_id"
PREDICTION_COLUMN = "_prediction"
CLASSES_COLUMN = "_classes"
LABEL_COLUMN = "_label"
KEY_COLUMN = "_key"
CONTEXT_COLUMN = "_context"
OFFSET_COLUMN = "_offset"
RESERVED_COLUMNS = frozenset(
    {
        ID_COLUMN,
        ROW_COLUMN,
        TIME_COLUMN,
        MODEL_COLUMN,
        VERSION_COLUMN,
        RUN_COLUMN,
        PREDICTION_COLUMN,
        CLASSES_COLUMN,
        LABEL_COLUMN,
        KEY_COLUMN,
        CONTEXT_COLUMN,
        OFFSET_COLUMN,
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

    model: Name
    """Name of the registered model."""
    version: Name
    """Version of the model that has predicted."""
    run_id: Name | None = None
    """Id of the run that logged the version: it tells the version from another of the same number, of a model that was
    deleted and made again. Null if it is not known, as of imported predictions."""
    features: dict[str, list[FeatureValue]]
    """Values by column. Each column has one value, or null, for each row."""
    predictions: list[PredictionValue]
    """One prediction for each row."""
    classes: list[Label] | None = None
    """All classes of the classifier in its order, if the predictions are their probabilities. A prediction that is a
    single number is the probability of the last one, of two. Null if predictions are labels or numbers of another
    kind."""
    labels: list[Label] | None = None
    """The class that the model decides for, by row, if the predictions are probabilities. It need not be the most
    probable one."""
    keys: list[RowKey | None] | None = None
    """The client's own key of each row, which its outcomes may name."""
    context: dict[str, list[ContextValue]] | None = None
    """Columns that the client has sent along and that the model does not take."""
    imported: bool = False
    """Whether another system has answered, and the prediction was imported from a file later."""

    @model_validator(mode="after")
    def _require_equal_lengths(self) -> Self:
        rows = len(self.predictions)
        for columns in (self.features, self.context or {}, {"labels": self.labels, "keys": self.keys}):
            others = {name: len(cells) for name, cells in columns.items() if cells is not None and len(cells) != rows}
            if others:
                raise ValueError(f"{rows} predictions, but columns of another length: {others}")
        return self


class Outcome(Event):
    """What really happened to one row of a prediction became known at ``time``.

    The row is named by the prediction's id and its index, or by the model and the key that the client gave it: then it
    is the row of this key that the model has predicted last, but not after ``time``.
    """

    type = "driftloop.outcome.v1"
    topic = "outcomes"

    prediction_id: str | None = None
    """Id of the prediction event."""
    index: RowIndex | None = None
    """Position of the row in the prediction's request, from 0."""
    model: Name | None = None
    """Name of the registered model that has predicted the row with this key."""
    key: RowKey | None = None
    """The client's own key of the row, in place of ``prediction_id`` and ``index``."""
    outcome: OutcomeValue
    """A number, a boolean or a label, as the training data has it. The latest outcome of a row counts."""

    @property
    def message_key(self) -> str:
        """Id of the prediction, or else the row's key: corrections of an outcome stay in order."""
        return self.prediction_id or self.key or self.id

    @model_validator(mode="after")
    def _require_one_name(self) -> Self:
        by_id = self.prediction_id is not None and self.index is not None
        by_key = self.key is not None and self.model is not None
        others = (self.key, self.model) if by_id else (self.prediction_id, self.index)
        if by_id == by_key or any(name is not None for name in others):
            raise ValueError("an outcome names its row by prediction_id and index, or by model and key")
        return self
