"""The events: what is said on each topic. How they travel stands in :mod:`driftloop.kafka.codec`.

A type only ever gains optional fields, so readers ignore what they do not know and events of every version ever written
stay readable.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, model_validator
from uuid_utils import uuid7

from driftloop.telemetry import tracing

if TYPE_CHECKING:
    import pandas as pd  # the broker's clients need not have it

Topic = Literal["predictions", "outcomes", "drift", "retrain", "models"]
Cell = float | int | bool | str | datetime | None
Score = float | str | list[float | str]
"""What a model says of a row: a probability or number, a class by its name, or one of these for each output."""


RESERVED = frozenset({"id", "row", "time", "model", "version", "prediction"})
"""Columns of an archived prediction beside its features, which may not have these names."""


def as_columns(frame: pd.DataFrame) -> dict[str, list[Cell]]:
    """A frame's values by column, its missing ones as null."""
    return {
        str(name): [None if missing else cell for cell, missing in zip(column.tolist(), column.isna(), strict=True)]
        for name, column in frame.items()
    }


def new_id() -> str:
    """A UUIDv7: unique, and in order of time."""
    return str(uuid7())


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


# What Parquet and pandas can hold: nanoseconds since 1970 end in 2262, and a row is a number of 64 bits.
Time = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), le=datetime(2200, 1, 1, tzinfo=UTC))]

Row = Annotated[int, Field(ge=0, lt=2**31)]


class Event(BaseModel, frozen=True):
    """What every event has. ``time`` is when what it tells of happened."""

    type: ClassVar[str]
    topic: ClassVar[Topic]

    id: str = Field(default_factory=new_id, max_length=256, pattern=r"^[a-zA-Z0-9_./:-]+$")
    time: Time = Field(default_factory=now)
    traceparent: str | None = Field(default_factory=tracing.current)
    """The span that it comes from, where there is a trace. No part of the value on its topic: it is a header there."""

    @property
    def key(self) -> str:
        """What Kafka chooses the partition by."""
        return self.id


class Prediction(Event, frozen=True):
    """A request was answered."""

    type = "driftloop.prediction.v1"
    topic = "predictions"

    model: str
    version: str
    features: dict[str, list[Cell]]
    """Values by column; all columns have a value, or null, for each row."""
    predictions: list[Score]
    """One a row."""

    @model_validator(mode="after")
    def _same_rows(self) -> Self:
        rows = len(self.predictions)
        if any(len(column) != rows for column in self.features.values()):
            others = {name: len(column) for name, column in self.features.items() if len(column) != rows}
            raise ValueError(f"{rows} predictions, but columns of another length: {others}")
        return self


class Outcome(Event, frozen=True):
    """What really happened to one row of a prediction became known, at ``time``."""

    type = "driftloop.outcome.v1"
    topic = "outcomes"

    prediction_id: str
    index: Row
    """The row in the prediction's request."""
    outcome: FiniteFloat

    @property
    def key(self) -> str:
        """The prediction's id: corrections of an outcome stay in order."""
        return self.prediction_id


class Window(BaseModel, frozen=True):
    """A slice of one partition, named by its offsets: the same name, the same rows."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int

    @property
    def name(self) -> str:
        """The window's identity, usable in a path; names of a partition sort as its offsets do."""
        return f"{self.topic}-{self.partition}-{self.first_offset:012}-{self.last_offset:012}"

    @classmethod
    def named(cls, name: str) -> Self:
        """The window of a name, or of the path of a file that has it."""
        topic, partition, first, last = PurePosixPath(name).stem.rsplit("-", 3)
        return cls(topic=topic, partition=int(partition), first_offset=int(first), last_offset=int(last))


class Finding(BaseModel, frozen=True):
    """One statistic of one column in a window."""

    column: str
    method: str
    windows: int = 1
    """How many consecutive windows, this one the last of them, the statistic is of."""
    value: float | None
    """Missing where the window has no value to compare."""
    threshold: float
    drifted: bool
    weight: float = 0.0
    """How unusual it is, in limits, times how much the model leans on the column: what to look at first."""


class Fact(BaseModel, frozen=True):
    """Something odd about a column's values in a window, beside the verdict."""

    column: str
    kind: Literal["out_of_range", "unseen_levels", "constant", "all_missing", "another_type"]
    share: float
    """Of the window's rows."""


class OfWindow(Event, frozen=True):
    """What is found of a version's rows in a window, or in it and some before it."""

    topic = "drift"

    window: Window
    model: str
    version: str
    rows: int
    starts: Time
    """The time of the earliest of the predictions."""
    ends: Time
    """The time of the latest of the predictions."""

    @property
    def key(self) -> str:
        """The model: a model's verdicts stay in order."""
        return self.model


class Drift(OfWindow, frozen=True):
    """A window of predictions was judged."""

    type = "driftloop.drift.v1"

    verdict: Literal["quiet", "alarm", "unjudged"]
    why: str
    """The verdict in words."""
    score: float | None = None
    """How unusual the window is: the largest standardised statistic."""
    limit: float | None = None
    """The score above which it alarms."""
    rolling_score: float | None = None
    """The same for this window and those before it, taken as one; missing where too few came before."""
    rolling_limit: float | None = None
    findings: list[Finding] = []
    facts: list[Fact] = []
    archive: str
    """Where the window's rows lie."""
    replayed: bool = False
    """Whether it was given again, later, to a window that has a verdict: with another reference, perhaps."""

    @property
    def drifted(self) -> list[str]:
        """Columns with a finding above its threshold."""
        return sorted({finding.column for finding in self.findings if finding.drifted})


class Figure(BaseModel, frozen=True):
    """A measured figure, with its interval (95 %)."""

    value: float
    low: float
    high: float


class Measurement(BaseModel, frozen=True):
    """How good predictions were on rows whose outcomes are known."""

    rows: int
    days: int
    """How many days the rows are of."""
    drawn: Literal["days", "rows"]
    """What the intervals come from: days drawn whole, or rows where the days were too few, which is too narrow."""
    figures: dict[str, Figure]
    """``roc_auc``, ``brier``, ``accuracy`` and ``calibration_error`` of probabilities, ``rmse`` of numbers."""


class Quality(OfWindow, frozen=True):
    """A window of outcomes said how good a version's predictions were, by the rows whose outcomes are known."""

    type = "driftloop.quality.v1"

    windows: int
    """How many consecutive windows, this one the last of them, are measured together: enough to have some days."""
    unmatched: int
    """Outcomes of this window, of whatever version, whose prediction was not in the archive when it closed."""
    verdict: Literal["as measured", "worse", "better", "unjudged"]
    """Beside what the gate measured before the version went into service."""
    why: str
    """The verdict in words."""
    found: Measurement | None = None
    """Missing where nothing could be measured."""
    measured: Measurement | None = None
    """What the gate found on rows that the version had not seen; a first version has no gate to pass."""


class Record(BaseModel, frozen=True):
    """How far a version's estimates of the ROC AUC were off, on windows whose outcomes are known since."""

    windows: int = 0
    mean_error: float | None = None
    """Above 0: the estimates were too high. Missing while there is no such window."""
    mean_absolute_error: float | None = None


class Estimate(OfWindow, frozen=True):
    """How good a window's predictions should be if their probabilities are right; their outcomes are not known yet."""

    type = "driftloop.estimate.v1"

    figures: dict[str, float]
    """``roc_auc``, ``brier`` and ``accuracy``."""
    record: Record
    trusted: bool
    """Whether the record is long and good enough."""
    why: str
    """Why it is trusted or not, in words."""


class DataSelection(BaseModel, frozen=True, extra="forbid"):
    """Which rows a retraining may use. Days are the use case's own."""

    start: date | None = None
    """The first day."""
    end: date | None = None
    """The day after the base dataset's last one; the archive's rows, which came since, go on from there."""
    without_days: list[date] = []
    archive: bool = True
    """Whether archived predictions, and what became of them, are added to the base dataset's rows."""
    last_rows: int | None = Field(None, gt=0, lt=2**31)
    """Of all these only what follows from the so-manieth last labelled row on."""


class Wish(BaseModel):
    """What somebody says who asks for a new version. Of which model, the trainer knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"example": {"reason": "new carrier"}})

    reason: str = Field(min_length=1)
    """Why, in words."""
    asked_by: str = "api"
    data: DataSelection = DataSelection()

    @model_validator(mode="after")
    def _some_rows(self) -> Self:
        """The archive may have rows of any day; without it, days that end before they start leave none."""
        data = self.data
        if data.start and data.end and data.start >= data.end and not data.archive:
            raise ValueError(f"no day lies from {data.start} to before {data.end}, and the archive is left out")
        return self

    def retrain(self, model: str) -> Retrain:
        """The event of it."""
        return Retrain(model=model, trigger="manual", reason=self.reason, asked_by=self.asked_by, data=self.data)


class Retrain(Event, frozen=True):
    """Somebody asks for a new version."""

    type = "driftloop.retrain.v1"
    topic = "retrain"

    model: str
    trigger: Literal["manual", "drift", "schedule"]
    reason: str
    """Why, in words."""
    asked_by: str
    data: DataSelection = DataSelection()
    as_of: Time | None = None
    """The end of the window that decided it, where the policy asks."""

    @property
    def key(self) -> str:
        """The model: its retrains are taken in order."""
        return self.model


class ModelChange(Event, frozen=True):
    """A retraining reached a state. ``promoted``, ``rejected`` and ``failed`` are final.

    ``rolled_back`` tells that the version of a retraining is out of service again, and is said after its end.
    """

    type = "driftloop.model.v1"
    topic = "models"

    retrain_id: str
    model: str
    version: str | None = None
    """The challenger, once it is registered; of ``rolled_back`` the version that serves again."""
    state: Literal["training", "promoted", "rejected", "failed", "rolled_back"]
    why: str
    champion: dict[str, float] = {}
    """Figures of the version that served until now, on the rows that were held out."""
    challenger: dict[str, float] = {}
    """Figures of the new version on the same rows."""
    learned_until: Time | None = None
    """Of a version, also one that was rejected: the time of the latest row that it has learned from."""
    dataset: str | None = None
    """Of a version that was trained: its dataset's version, the md5 that DVC names it by."""

    @property
    def key(self) -> str:
        """The model: its states stay in order."""
        return self.model

    @property
    def final(self) -> bool:
        """Whether the retraining is over."""
        return self.state != "training"


EVENTS: dict[str, type[Event]] = {
    event.type: event for event in (Prediction, Outcome, Drift, Quality, Estimate, Retrain, ModelChange)
}
