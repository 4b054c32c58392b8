"""Events about retrains: what was requested, and which states a retrain reached."""

from __future__ import annotations

import json
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, FiniteFloat, model_validator

from driftloop.events.base import Event, EventTime, FrozenModel, Name, new_event_id

COMMAND_OPTIONS = {"from": "start", "to": "base_end"}  # fields that the command calls otherwise


Day = Annotated[date, Field(ge=date(1970, 1, 1), lt=date(2200, 1, 1))]  # as times of events


class DataSelection(FrozenModel):
    """The rows that a retrain may use. Days are local dates in the use case's time zone."""

    model_config = ConfigDict(extra="forbid")

    start: Day | None = None
    """First day, for the base dataset and for the archive."""
    base_end: Day | None = None
    """Day after the last one of the base dataset. The archive's rows, which are later, are not bounded by it."""
    exclude_days: list[Day] = []
    """Days to leave out."""
    archive: bool = True
    """Whether archived predictions with their outcomes are added to the base dataset's rows."""
    last_rows: int | None = Field(None, gt=0, lt=2**31)
    """Keep only the rows from the N-th last labelled row onwards."""

    @model_validator(mode="after")
    def _require_order(self) -> Self:
        if self.start and self.base_end and self.base_end < self.start:
            raise ValueError(f"base_end {self.base_end} is before start {self.start}")
        return self


class RetrainRequest(FrozenModel):
    """The body of a request for a new version. The model is that of the trainer."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"reason": "two new branches"}})

    reason: str = Field(min_length=1)
    """Why a new version is needed, in words."""
    requested_by: str = Field("API key", min_length=1)
    """Person or program that requests it. Of one that does not say it, only its key is known."""
    data: DataSelection = DataSelection()
    """Rows to train on and to hold out."""

    @model_validator(mode="before")
    @classmethod
    def _say_where_selection_belongs(cls, request: Any) -> Any:
        """Reject a selection beside ``data``, also by the names of the command's options, and say where it belongs."""
        if not isinstance(request, dict):
            return request
        names = {**{name: name for name in DataSelection.model_fields}, **COMMAND_OPTIONS}
        misplaced = [name for name in request if name in names]
        if misplaced:
            data = json.dumps({names[name]: request[name] for name in misplaced}, default=str)
            raise ValueError(f'{", ".join(misplaced)}: a selection of rows belongs in "data": {data}')
        return request

    @model_validator(mode="after")
    def _require_days(self) -> Self:
        """Reject days that end before they start, unless there is the archive, which may have rows of any day."""
        data = self.data
        if data.start and data.base_end and data.start >= data.base_end and not data.archive:
            raise ValueError(f"no day is between start {data.start} and base_end {data.base_end}, and archive is false")
        return self

    def to_event(self, model: str, traceparent: str | None = None, retrain_id: str | None = None) -> RetrainRequested:
        """Return an event that requests a retrain of ``model``, by default with a new id."""
        return RetrainRequested(
            id=retrain_id or new_event_id(),
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

    model: Name
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
    def message_key(self) -> str:
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
    model: Name
    """Name of the registered model."""
    version: Name | None = None
    """The challenger, once it is registered; of ``rolled_back`` the version that serves again."""
    state: Literal["training", "promoted", "rejected", "failed", "rolled_back"]
    """The state; ``training`` is repeated with each phase."""
    explanation: str
    """The state in words: the phase, the gate's decision, or the error."""
    champion: dict[str, FiniteFloat] = {}
    """Metrics of the champion on the holdout."""
    challenger: dict[str, FiniteFloat] = {}
    """Metrics of the challenger on the holdout."""
    trained_through: EventTime | None = None
    """Time of the latest row that the version was trained on; also set for a rejected version."""
    dataset_md5: str | None = None
    """MD5 by which DVC identifies the dataset that the version was trained on."""

    @property
    def message_key(self) -> str:
        """Name of the model: its states stay in order."""
        return self.model

    @property
    def is_final(self) -> bool:
        """Whether the retrain has ended."""
        return self.state != "training"
