"""``POST /outcomes``: what really happened to rows that were predicted earlier."""

import asyncio
from datetime import datetime
from time import sleep
from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from driftloop.events import EventId, EventTime, Outcome, OutcomeValue, RowIndex, is_new_event_id, now
from driftloop.kafka.codec import serialize
from driftloop.telemetry import tracing
from predictor import metrics
from predictor.http.dependencies import ApiDependencies, Dependencies
from predictor.http.openapi_parts import DETAIL_SCHEMA, TIME_DESCRIPTION, error_responses, request_body
from predictor.http.protocols.native import validation_error
from predictor.outbox.outbox import OutboxUnavailable

EventTimeHeader = Annotated[
    EventTime | None,
    Header(alias="Driftloop-Time", description=TIME_DESCRIPTION),
]
MAX_OUTCOMES = 10_000
RETRY_AFTER_SECONDS = "2"
# Threads share the interpreter's lock, and the outbox has one writer at a time. So a long report gives both up after
# each chunk, which takes 5 ms, for as long as a request of one row needs.
CHUNK_SIZE = 250
PAUSE_SECONDS = 0.005


class OutcomeReport(BaseModel):
    """The outcome of the row ``index`` of the request whose response has this ``id``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: EventId
    index: RowIndex
    outcome: OutcomeValue


class OutcomesRequest(BaseModel):
    """Outcomes of earlier predictions."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "example": {"outcomes": [{"id": "01a20ec1-a01f-74a7-88c6-8d5a4f14f106", "index": 0, "outcome": 1}]}
        },
    )

    outcomes: list[OutcomeReport] = Field(min_length=1, max_length=MAX_OUTCOMES)


class OutcomesAccepted(BaseModel):
    """How many outcomes were accepted."""

    accepted: int = Field(description="outcomes that were stored")
    unmatchable: int = Field(
        description="those of them that will never match a prediction, because no predictor gives such ids; a client's "
        "own id is none of them, so report the header Driftloop-Id of the response"
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
    """Report outcomes of earlier predictions. If a row is reported more than once, the last outcome counts."""
    return await asyncio.to_thread(_store, api, await request.body(), driftloop_time or now())


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
    traceparent = tracing.current_traceparent()
    unmatchable = 0
    try:
        api.outbox.require_capacity()
        for start in range(0, len(reports), CHUNK_SIZE):
            if start:
                sleep(PAUSE_SECONDS)
            chunk = reports[start : start + CHUNK_SIZE]
            api.outbox.append(
                [
                    serialize(
                        Outcome(
                            time=time,
                            traceparent=traceparent,
                            prediction_id=report.id,
                            index=report.index,
                            outcome=report.outcome,
                        )
                    )
                    for report in chunk
                ]
            )
            unmatchable += (unmatched := sum(not is_new_event_id(report.id) for report in chunk))
            metrics.OUTCOMES.inc(len(chunk))
            metrics.UNMATCHABLE_OUTCOMES.inc(unmatched)
    except OutboxUnavailable as error:
        raise HTTPException(503, str(error), {"Retry-After": RETRY_AFTER_SECONDS}) from error
    return OutcomesAccepted(accepted=len(reports), unmatchable=unmatchable)
