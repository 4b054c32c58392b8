"""The events, and how each is written to Kafka and read back: CloudEvents 1.0 in binary mode.

A value is the JSON of one model; the headers repeat its id and time and carry its type with its version and its
source. A type only ever gains optional fields, so readers ignore what they do not know and events of every version
ever written stay readable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple, Self

from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event, to_binary_event
from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.v1.event import CloudEvent
from pydantic import AwareDatetime, BaseModel, Field, FiniteFloat, ValidationError, model_validator
from uuid_utils import uuid7

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

# What no reader of CloudEvents refuses; whatever else may be right is for the library to say.
PLAIN_ID = re.compile(rb"[\x21-\x7e]+")
PLAIN_TIME = re.compile(rb"\d{4}(-\d\d){2}T\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)")
Row = Annotated[int, Field(ge=0, lt=2**31)]


class Event(BaseModel, frozen=True):
    """What every event has. ``time`` is when what it tells of happened."""

    type: ClassVar[str]
    topic: ClassVar[Topic]

    id: str = Field(default_factory=new_id, max_length=256, pattern=r"^[a-zA-Z0-9_./:-]+$")
    time: Time = Field(default_factory=now)

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
        rows = {name: len(column) for name, column in self.features.items() if len(column) != len(self.predictions)}
        if rows:
            raise ValueError(f"{len(self.predictions)} predictions, but columns of another length: {rows}")
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


class Drift(Event, frozen=True):
    """A window of one version's predictions was judged."""

    type = "driftloop.drift.v1"
    topic = "drift"

    window: Window
    model: str
    version: str
    rows: int
    starts: Time
    """The time of the window's earliest prediction."""
    ends: Time
    """The time of the window's latest prediction."""
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
    def key(self) -> str:
        """The model: a model's verdicts stay in order."""
        return self.model

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


class Quality(Event, frozen=True):
    """A window of outcomes said how good a version's predictions were."""

    type = "driftloop.quality.v1"
    topic = "drift"

    window: Window
    """Of the topic of outcomes."""
    windows: int
    """How many consecutive windows, this one the last of them, are measured together: enough to have some days."""
    model: str
    version: str
    rows: int
    """Rows of the version with their outcome."""
    unmatched: int
    """Outcomes of this window, of whatever version, whose prediction was not in the archive when it closed."""
    starts: Time
    """The time of the earliest of the predictions."""
    ends: Time
    """The time of the latest of the predictions."""
    verdict: Literal["as measured", "worse", "better", "unjudged"]
    """Beside what the gate measured before the version went into service."""
    why: str
    """The verdict in words."""
    found: Measurement | None = None
    """Missing where nothing could be measured."""
    measured: Measurement | None = None
    """What the gate found on rows that the version had not seen; a first version has no gate to pass."""

    @property
    def key(self) -> str:
        """The model: a model's verdicts stay in order."""
        return self.model


class Record(BaseModel, frozen=True):
    """How far a version's estimates of the ROC AUC were off, on windows whose outcomes are known since."""

    windows: int = 0
    mean_error: float | None = None
    """Above 0: the estimates were too high. Missing while there is no such window."""
    mean_absolute_error: float | None = None


class Estimate(Event, frozen=True):
    """How good a window's predictions should be if their probabilities are right; their outcomes are not known yet."""

    type = "driftloop.estimate.v1"
    topic = "drift"

    window: Window
    """Of the topic of predictions."""
    model: str
    version: str
    rows: int
    starts: Time
    """The time of the window's earliest prediction."""
    ends: Time
    """The time of the window's latest prediction."""
    figures: dict[str, float]
    """``roc_auc``, ``brier`` and ``accuracy``."""
    record: Record
    trusted: bool
    """Whether the record is long and good enough."""
    why: str
    """Why it is trusted or not, in words."""

    @property
    def key(self) -> str:
        """The model: a model's verdicts stay in order."""
        return self.model


class DataSelection(BaseModel, frozen=True, extra="forbid"):
    """Which rows a retraining may use. Days are the use case's own, ``end`` is not included."""

    start: date | None = None
    end: date | None = None
    without_days: list[date] = []
    archive: bool = True
    """Whether predictions whose outcomes are known are added to the dataset's rows."""


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

    @property
    def key(self) -> str:
        """The model: its retrains are taken in order."""
        return self.model


class ModelChange(Event, frozen=True):
    """A retraining reached a state. ``promoted``, ``rejected`` and ``failed`` are final."""

    type = "driftloop.model.v1"
    topic = "models"

    retrain_id: str
    model: str
    version: str | None = None
    """The challenger, once it is registered."""
    state: Literal["training", "promoted", "rejected", "failed", "rolled_back"]
    why: str
    champion: dict[str, float] = {}
    """Figures of the version that served until now, on the rows that were held out."""
    challenger: dict[str, float] = {}
    """Figures of the new version on the same rows."""

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


class Unreadable(ValueError):
    """The message is no event of ours, and never will be: it belongs to the dead letters."""


class Message(NamedTuple):
    """What Kafka carries."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Written(NamedTuple):
    """An event as text: all that :func:`message` needs, so that it can be kept and sent later."""

    type: str
    id: str
    time: str
    key: str
    value: bytes


def written(event: Event) -> Written:
    """The event as text."""
    return Written(event.type, event.id, event.time.isoformat(), event.key, event.model_dump_json().encode())


def message(event: Written, source: str) -> Message:
    """The event as Kafka carries it; ``source`` says which service it comes from."""
    attributes = {
        "type": event.type,
        "source": f"/driftloop/{source}",
        "id": event.id,
        "time": datetime.fromisoformat(event.time),
        "datacontenttype": "application/json",
    }
    headers = to_binary_event(CloudEvent(attributes)).headers
    return Message(event.key.encode(), event.value, list(headers.items()))


def write(event: Event, source: str) -> Message:
    """The event as Kafka carries it; ``source`` says which service it comes from."""
    return message(written(event), source)


def read(value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> Event:
    """The event in a Kafka message. Raises :class:`Unreadable`, which says what is wrong with it."""
    try:
        found = _type(tuple(headers))
    except (CloudEventValidationError, ValueError) as error:
        raise Unreadable(f"no CloudEvent in the headers: {error}") from error
    model = EVENTS.get(found)
    if model is None:
        raise Unreadable(f"unknown type {found!r}; known are {', '.join(EVENTS)}")
    try:
        return model.model_validate_json(value or b"")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "value"
        raise Unreadable(f"not a {model.type}: {where}: {first['msg']}") from error


def _type(headers: tuple[tuple[str, bytes], ...]) -> str:
    """The type in valid headers of a CloudEvent. Raises what the library raises.

    Between a writer's events id and time differ, and nothing else does: the library looks at the same others once. It
    also gets an id or a time that is not plainly right.
    """
    others = []
    for name, value in headers:
        if name == "ce_id" and value and PLAIN_ID.fullmatch(value):
            continue
        if name == "ce_time" and value and PLAIN_TIME.fullmatch(value):
            datetime.fromisoformat(value.decode())  # which knows how many days a month has
            continue
        if value is None:  # as Kafka allows, and the library does not expect
            raise ValueError(f"{name} is null")
        others.append((name, value))
    return _known_type(tuple(others))


def _validated_type(headers: tuple[tuple[str, bytes], ...]) -> str:
    # Only the headers go through the library: the value is parsed once, by its own model.
    envelope: BaseCloudEvent = from_binary_event(KafkaMessage(dict(headers), None, b""))
    return envelope.get_type()


_known_type = lru_cache(maxsize=256)(_validated_type)
