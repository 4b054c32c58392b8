"""``POST /outcomes``: what really happened to rows that were predicted earlier."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from time import sleep
from typing import Annotated, Any, Self

from fastapi import APIRouter, Header, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from driftloop.events import EventId, EventTime, Outcome, OutcomeValue, RowIndex, RowKey, is_new_event_id, now
from driftloop.kafka.codec import serialize
from driftloop.privacy import Privacy
from driftloop.telemetry import tracing
from driftloop.times import MAX_CLOCK_SKEW
from predictor import metrics
from predictor.http.dependencies import ApiDependencies, Dependencies
from predictor.http.openapi_parts import DETAIL_SCHEMA, TIME_DESCRIPTION, error_responses, request_body
from predictor.http.protocols.native import MAX_REPORTED_ERRORS, validation_error
from predictor.outbox.outbox import OutboxUnavailable

EventTimeHeader = Annotated[
    EventTime | None,
    Header(alias="Driftloop-Time", description=TIME_DESCRIPTION),
]
MAX_OUTCOMES = 10_000
MAX_LISTED_CLASSES = 20
FUTURE = "the time is in the future: an outcome counts from the time at which it became known"
RETRY_AFTER_SECONDS = "2"
# Threads share the interpreter's lock, and the outbox has one writer at a time. So a long report gives both up after
# each chunk, which takes 5 ms, for as long as a request of one row needs.
CHUNK_SIZE = 250
PAUSE_SECONDS = 0.005


class OutcomeReport(BaseModel):
    """The outcome of the row ``index`` of the request whose response has this ``id``, or of the row of this ``key``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: EventId | None = None
    index: RowIndex | None = None
    key: RowKey | None = Field(None, description="the client's own key of the row, in place of id and index")
    outcome: OutcomeValue
    time: EventTime | None = Field(None, description="when the outcome became known, if that is not now")

    @model_validator(mode="after")
    def _require_one_name(self) -> Self:
        names = (self.id is not None, self.index is not None, self.key is not None)
        if names not in ((True, True, False), (False, False, True)):
            raise ValueError("name the row by id and index, or by key")
        return self

    def to_event(self, model: str, time: datetime, traceparent: str | None, privacy: Privacy) -> Outcome:
        """Return the event; ``time`` is for an outcome without a time of its own.

        An id that no predictor gives may be a key that was reported as one, and is treated as a key.
        """
        prediction_id = self.id
        if prediction_id is not None and not is_new_event_id(prediction_id):
            prediction_id = privacy.treat_key(prediction_id)
        return Outcome(
            time=self.time or time,
            traceparent=traceparent,
            prediction_id=prediction_id,
            index=self.index,
            model=model if self.key is not None else None,
            key=None if self.key is None else privacy.treat_key(self.key),
            outcome=self.outcome,
        )


class OutcomesRequest(BaseModel):
    """Outcomes of earlier predictions."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "example": {
                "outcomes": [
                    {"id": "01a20ec1-a01f-74a7-88c6-8d5a4f14f106", "index": 0, "outcome": 1},
                    {"key": "order-17", "outcome": 0, "time": "2026-01-02T12:00:00Z"},
                ]
            }
        },
    )

    outcomes: list[OutcomeReport] = Field(min_length=1, max_length=MAX_OUTCOMES)


class OutcomesAccepted(BaseModel):
    """How many outcomes were accepted."""

    accepted: int = Field(description="outcomes that were stored")
    unmatchable: int = Field(
        description="those of them that will never match a prediction, because no predictor gives such ids; report the "
        "header Driftloop-Id of the response, or a name of your own as key"
    )


router = APIRouter()


@router.post(
    "/outcomes",
    status_code=202,
    tags=["predictions"],
    responses=error_responses(DETAIL_SCHEMA),
    openapi_extra=request_body("OutcomesRequest"),
)
async def report_outcomes(
    request: Request, api: Dependencies, driftloop_time: EventTimeHeader = None
) -> OutcomesAccepted:
    """Report outcomes of earlier predictions.

    If a row is reported more than once, the outcome with the latest time counts, and of several with the same time the
    one that was reported last. An outcome that is no class of the version in service is refused, and one of the future.
    """
    received = now()
    if driftloop_time is not None and driftloop_time > received + MAX_CLOCK_SKEW:
        raise HTTPException(422, [_problem(("header", "Driftloop-Time"), "time_in_future", FUTURE)])
    return await asyncio.to_thread(_store, api, await request.body(), driftloop_time or received)


def _store(api: ApiDependencies, body: bytes, time: datetime) -> OutcomesAccepted:
    """Store an event for each outcome in the body, in the background: predictions go on meanwhile.

    Raises:
        HTTPException: The body is invalid; or the outbox cannot store the events, of which it may have stored some. To
            report them again does no harm.
    """
    try:
        reports = OutcomesRequest.model_validate_json(body).outcomes
    except ValidationError as error:
        rejection = validation_error(error)
        raise HTTPException(rejection.status, rejection.details or rejection.message) from error
    if problems := [*_future_times(reports), *_unknown_labels(api, reports)]:
        raise HTTPException(422, problems[:MAX_REPORTED_ERRORS])
    traceparent = tracing.current_traceparent()
    unmatchable = 0
    try:
        api.outbox.require_capacity()
        for start in range(0, len(reports), CHUNK_SIZE):
            if start:
                sleep(PAUSE_SECONDS)
            chunk = reports[start : start + CHUNK_SIZE]
            api.outbox.append(
                [serialize(report.to_event(api.model_name, time, traceparent, api.privacy)) for report in chunk]
            )
            foreign = [report.id for report in chunk if report.id is not None and not is_new_event_id(report.id)]
            unmatchable += len(foreign)
            metrics.OUTCOMES.inc(len(chunk))
            metrics.UNMATCHABLE_OUTCOMES.inc(len(foreign))
    except OutboxUnavailable as error:
        raise HTTPException(503, str(error), {"Retry-After": RETRY_AFTER_SECONDS}) from error
    return OutcomesAccepted(accepted=len(reports), unmatchable=unmatchable)


def _future_times(reports: Sequence[OutcomeReport]) -> Iterator[dict[str, Any]]:
    limit = now() + MAX_CLOCK_SKEW
    for position, report in enumerate(reports):
        if report.time is not None and report.time > limit:
            yield _problem(("body", "outcomes", position, "time"), "time_in_future", FUTURE)


def _unknown_labels(api: ApiDependencies, reports: Sequence[OutcomeReport]) -> Iterator[dict[str, Any]]:
    """Yield the outcomes that are no class of the version in service, if that has classes."""
    serving = api.manager.serving
    classes = None if serving is None or api.accepts_unknown_labels else serving.classes
    if serving is None or classes is None:
        return
    known = frozenset(classes)
    for position, report in enumerate(reports):
        if report.outcome not in known:
            yield _problem(
                ("body", "outcomes", position, "outcome"),
                "unknown_label",
                f"version {serving.version} has the classes {', '.join(map(repr, classes[:MAX_LISTED_CLASSES]))}"
                f"{', …' if len(classes) > MAX_LISTED_CLASSES else ''} (DRIFTLOOP_PREDICTOR__UNKNOWN_LABELS=accept "
                "accepts others)",
            )


def _problem(location: tuple[int | str, ...], kind: str, message: str) -> dict[str, Any]:
    return {"type": kind, "loc": location, "msg": message}
