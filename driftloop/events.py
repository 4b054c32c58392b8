"""The events of every topic. :mod:`driftloop.kafka.codec` turns them into Kafka messages and back.

A type only ever gains optional fields. Readers ignore fields that they do not know, so that events of every version
that was ever written stay readable. This module imports nothing else of the project.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, model_validator
from uuid_utils import uuid7

if TYPE_CHECKING:
    import pandas as pd  # clients that only talk to the broker do not need it

Topic = Literal["predictions", "outcomes", "drift", "retrain", "models"]
FeatureValue = float | int | bool | str | datetime | None
PredictionValue = float | str | list[float | str]
"""What a model returns for a row: a probability or number, the name of a class, or a list with one for each output."""

PLAIN_MODEL_VERSION = re.compile(r"[a-zA-Z0-9_./:-]+")
MAX_MODEL_VERSION_LENGTH = 128  # half of an event's id; the window's name needs the other half

RESERVED_COLUMNS = frozenset({"id", "row", "time", "model", "version", "prediction"})
"""Columns that an archived prediction has besides its features. No feature may have one of these names."""


def frame_to_columns(frame: pd.DataFrame) -> dict[str, list[FeatureValue]]:
    """Return a frame's values by column, with ``None`` for missing ones."""
    return {
        str(name): [None if missing else cell for cell, missing in zip(column.tolist(), column.isna(), strict=True)]
        for name, column in frame.items()
    }


def new_event_id() -> str:
    """Return a new UUIDv7: unique, and sorted by time of creation."""
    return str(uuid7())


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


# What Parquet and pandas can hold: nanoseconds since 1970 end in 2262, and a row's position is a 64-bit number.
EventTime = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), le=datetime(2200, 1, 1, tzinfo=UTC))]

RowIndex = Annotated[int, Field(ge=0, lt=2**31)]


class FrozenModel(BaseModel):
    """Base of all models of this module: the docstring of a field becomes its description in JSON Schema."""

    model_config = ConfigDict(use_attribute_docstrings=True, frozen=True)


class Event(FrozenModel):
    """Fields of every event."""

    type: ClassVar[str]
    topic: ClassVar[Topic]

    id: str = Field(default_factory=new_event_id, max_length=256, pattern=r"^[a-zA-Z0-9_./:-]+$")
    """Identity of the event. An event that is published again has the same id."""
    time: EventTime = Field(default_factory=now)
    """When the thing that the event reports happened."""
    traceparent: str | None = None
    """W3C trace context of the span that created the event; sent as a header, not in the value."""

    @property
    def key(self) -> str:
        """The event's id. Kafka keeps the order of messages with the same key."""
        return self.id


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
    outcome: FiniteFloat
    """0 or 1 for a classifier, any number for a regressor. The latest outcome of a row counts."""

    @property
    def key(self) -> str:
        """Id of the prediction: corrections of an outcome stay in order."""
        return self.prediction_id


class Window(FrozenModel):
    """A slice of one partition. Its name is made of its offsets, so that one name always means the same rows."""

    topic: str
    """Topic of the predictions or outcomes."""
    partition: int
    """Partition of the topic."""
    first_offset: int
    """Offset of the first event."""
    last_offset: int
    """Offset of the last event, inclusive."""

    @property
    def name(self) -> str:
        """Identity of the window, usable in a path. Names of one partition sort in the order of their offsets."""
        return f"{self.topic}-{self.partition}-{self.first_offset:012}-{self.last_offset:012}"

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the window with this name; the name may be that of a file, with a path and a suffix."""
        topic, partition, first, last = PurePosixPath(name).stem.rsplit("-", 3)
        return cls(topic=topic, partition=int(partition), first_offset=int(first), last_offset=int(last))


def verdict_id(window: Window, model: str, version: str) -> str:
    """Return the id of the verdict on a version's rows of a window: judging the window again gives the same id.

    A model and version that an id cannot hold, because they are too long or have other characters, are replaced by
    their SHA-256.
    """
    model_version = f"{model}/{version}"
    if len(model_version) > MAX_MODEL_VERSION_LENGTH or not PLAIN_MODEL_VERSION.fullmatch(model_version):
        model_version = sha256(model_version.encode()).hexdigest()
    return f"{window.name}/{model_version}"


class Finding(FrozenModel):
    """One statistic of one column in a window, or in several consecutive windows."""

    column: str
    """Name of the feature, or ``prediction``."""
    method: str
    """Name of the statistic, such as ``wasserstein``."""
    windows: int = 1
    """Number of consecutive windows that the statistic was computed on; the event's window is the last of them."""
    value: float | None
    """Value of the statistic; null if the column has no value in the window."""
    threshold: float
    """Value above which the column has drifted."""
    drifted: bool
    """Whether the value is above the threshold."""
    priority: float = 0.0
    """Ratio of the standardized statistic to the score threshold, times the column's importance to the model."""


class DataQualityIssue(FrozenModel):
    """Something odd about a column's values in a window. It never changes the verdict."""

    column: str
    """Name of the feature."""
    kind: Literal["out_of_range", "unseen_levels", "constant", "all_missing", "type_mismatch"]
    """What is odd."""
    fraction: float
    """Fraction of the window's rows that have the issue."""


class WindowEvent(Event):
    """Fields of every event about a version's rows in a window, or in several consecutive windows."""

    topic = "drift"

    window: Window
    """The window; the last one if there are several."""
    model: str
    """Name of the registered model."""
    version: str
    """Version of the model whose rows were judged."""
    rows: int
    """Number of rows of this version."""
    first_prediction_at: EventTime
    """Time of the earliest prediction among the rows."""
    last_prediction_at: EventTime
    """Time of the latest prediction among the rows."""

    @property
    def key(self) -> str:
        """Name of the model: its verdicts stay in order."""
        return self.model


class DriftVerdict(WindowEvent):
    """A version's rows of a window of predictions were compared with the version's reference."""

    type = "driftloop.drift_verdict.v1"

    verdict: Literal["no_drift", "drift", "inconclusive"]
    """``drift`` raises an alarm; ``inconclusive`` means that the rows could not be judged."""
    explanation: str
    """The verdict in words; of an inconclusive one the reason."""
    score: float | None = None
    """Largest standardized statistic of the window; null if the verdict is inconclusive."""
    score_threshold: float | None = None
    """Score above which the window drifts."""
    multiwindow_score: float | None = None
    """Score of this window and the windows before it, taken as one; null if too few came before."""
    multiwindow_score_threshold: float | None = None
    """Score above which the windows taken as one drift."""
    findings: list[Finding] = []
    """Every statistic of every column."""
    data_quality_issues: list[DataQualityIssue] = []
    """Odd values, which do not change the verdict."""
    archive: str
    """URL of the Parquet file with the window's rows."""
    replayed: bool = False
    """Whether the window had a verdict before and was judged again later, perhaps with another reference."""

    @property
    def drifted_columns(self) -> list[str]:
        """Names of the columns with at least one statistic above its threshold, sorted."""
        return sorted({finding.column for finding in self.findings if finding.drifted})


class MetricEstimate(FrozenModel):
    """A metric with its 95 % confidence interval."""

    value: float
    """The metric on the rows."""
    low: float
    """Lower bound of the interval."""
    high: float
    """Upper bound of the interval."""


class Evaluation(FrozenModel):
    """How good predictions were on rows whose outcomes are known."""

    rows: int
    """Number of rows."""
    days: int
    """Number of days that the rows come from."""
    resampling_unit: Literal["days", "rows"]
    """What the bootstrap resamples. With too few days it resamples rows, and the intervals are too narrow."""
    metrics: dict[str, MetricEstimate]
    """``roc_auc``, ``brier``, ``accuracy`` and ``calibration_error`` of probabilities, ``rmse`` of numbers."""


class QualityVerdict(WindowEvent):
    """A window of outcomes was evaluated: how good a version's predictions were on rows whose outcomes are known."""

    type = "driftloop.quality_verdict.v1"

    windows: int
    """Number of consecutive windows of outcomes that were evaluated together to have enough rows and days."""
    unmatched: int
    """Outcomes in this window, of any version, whose prediction was not in the archive when the window closed."""
    verdict: Literal["consistent", "degraded", "improved", "inconclusive"]
    """Quality in service compared with the quality that the gate measured before the version was promoted."""
    explanation: str
    """The verdict in words."""
    in_service: Evaluation | None = None
    """Quality on the evaluated rows; null if it could not be measured."""
    at_gate: Evaluation | None = None
    """Quality on the gate's holdout; null for a first version, which has no holdout."""


class EstimateTrackRecord(FrozenModel):
    """Errors of a version's estimates of the ROC AUC on windows whose outcomes have become known since."""

    windows: int = 0
    """Number of such windows."""
    mean_error: float | None = None
    """Mean of estimate minus measured ROC AUC; above 0 the estimates were too high. Null without such windows."""
    mean_absolute_error: float | None = None
    """Mean of the absolute errors; null without such windows."""


class QualityEstimate(WindowEvent):
    """The quality of a window's predictions was estimated from their probabilities; outcomes are not known yet."""

    type = "driftloop.quality_estimate.v1"

    metrics: dict[str, float]
    """``roc_auc``, ``brier`` and ``accuracy``, if the probabilities are right."""
    track_record: EstimateTrackRecord
    """How far off earlier estimates of this version were."""
    trusted: bool
    """Whether the track record is long and good enough."""
    explanation: str
    """Why the estimate is trusted or not."""


class DataSelection(FrozenModel):
    """The rows that a retrain may use. Days are local dates in the use case's time zone."""

    model_config = ConfigDict(extra="forbid")

    start: date | None = None
    """First day, for the base dataset and for the archive."""
    base_end: date | None = None
    """Day after the last one of the base dataset. The archive's rows, which are later, are not bounded by it."""
    exclude_days: list[date] = []
    """Days to leave out."""
    archive: bool = True
    """Whether archived predictions with their outcomes are added to the base dataset's rows."""
    last_rows: int | None = Field(None, gt=0, lt=2**31)
    """Keep only the rows from the N-th last labelled row onwards."""


class RetrainRequest(FrozenModel):
    """The body of a request for a new version. The model is that of the trainer."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"reason": "new carrier"}})

    reason: str = Field(min_length=1)
    """Why a new version is needed, in words."""
    requested_by: str = "api"
    """Person or program that requests it."""
    data: DataSelection = DataSelection()
    """Rows to train on and to hold out."""

    @model_validator(mode="after")
    def _require_days(self) -> Self:
        """Reject days that end before they start, unless there is the archive, which may have rows of any day."""
        data = self.data
        if data.start and data.base_end and data.start >= data.base_end and not data.archive:
            raise ValueError(f"no day is between start {data.start} and base_end {data.base_end}, and archive is false")
        return self

    def to_event(self, model: str, traceparent: str | None = None) -> RetrainRequested:
        """Return a new event that requests a retrain of ``model``."""
        return RetrainRequested(
            model=model,
            trigger="manual",
            reason=self.reason,
            requested_by=self.requested_by,
            data=self.data,
            traceparent=traceparent,
        )


class RetrainRequested(Event):
    """A person, the policy or the schedule requested a new version."""

    type = "driftloop.retrain_requested.v1"
    topic = "retrain"

    model: str
    """Name of the registered model."""
    trigger: Literal["manual", "drift", "schedule"]
    """``drift`` is the policy, whether drift or low quality made it decide."""
    reason: str
    """Why a new version is needed, in words."""
    requested_by: str
    """Person or program that requested it."""
    data: DataSelection = DataSelection()
    """Rows to train on and to hold out."""
    window_end: EventTime | None = None
    """Time of the last prediction in the window that made the policy decide; null for other triggers."""

    @property
    def key(self) -> str:
        """Name of the model: its retrains are processed in order."""
        return self.model


class ModelStateChanged(Event):
    """A retrain reached a state. ``promoted``, ``rejected`` and ``failed`` end it.

    ``rolled_back`` is published later, if the version that the retrain promoted was rolled back.
    """

    type = "driftloop.model_state_changed.v1"
    topic = "models"

    retrain_id: str
    """Id of the event that requested the retrain."""
    model: str
    """Name of the registered model."""
    version: str | None = None
    """The challenger, once it is registered; of ``rolled_back`` the version that serves again."""
    state: Literal["training", "promoted", "rejected", "failed", "rolled_back"]
    """The state; ``training`` is repeated with each phase."""
    explanation: str
    """The state in words: the phase, the gate's decision, or the error."""
    champion: dict[str, float] = {}
    """Metrics of the champion on the holdout."""
    challenger: dict[str, float] = {}
    """Metrics of the challenger on the holdout."""
    trained_through: EventTime | None = None
    """Time of the latest row that the version was trained on; also set for a rejected version."""
    dataset_md5: str | None = None
    """MD5 by which DVC identifies the dataset that the version was trained on."""

    @property
    def key(self) -> str:
        """Name of the model: its states stay in order."""
        return self.model

    @property
    def is_final(self) -> bool:
        """Whether the retrain has ended."""
        return self.state != "training"


EVENTS: dict[str, type[Event]] = {
    event.type: event
    for event in (
        Prediction,
        Outcome,
        DriftVerdict,
        QualityVerdict,
        QualityEstimate,
        RetrainRequested,
        ModelStateChanged,
    )
}
"""Every type of event by its name in the CloudEvents envelope."""
