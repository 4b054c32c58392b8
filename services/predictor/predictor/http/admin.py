"""The API behind the gateway: outcomes, the serving status, operational routes and the API page."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from driftloop.events import EventTime, Outcome, RowIndex, now
from driftloop.kafka.codec import serialize
from driftloop.telemetry import tracing
from driftloop.telemetry.http import operational_routes
from predictor import metrics
from predictor.http import dependencies, metadata, openapi
from predictor.http.dependencies import ApiDependencies, Dependencies
from predictor.http.protocols.native import MAX_REPORTED_ERRORS
from predictor.outbox.outbox import OutboxUnavailable
from predictor.serving.model_manager import RejectedVersion, VersionSource

EventTimeHeader = Annotated[
    EventTime | None,
    Header(alias="Driftloop-Time", description=openapi.TIME_DESCRIPTION),
]
MAX_OUTCOMES = 10_000
RETRY_AFTER_SECONDS = "2"


class OutcomeReport(BaseModel):
    """The outcome of the row ``index`` of the request whose response has this ``id``."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1, max_length=256)
    index: RowIndex
    outcome: FiniteFloat


class OutcomesRequest(BaseModel):
    """Outcomes of earlier predictions."""

    model_config = ConfigDict(extra="forbid")

    outcomes: list[OutcomeReport] = Field(min_length=1, max_length=MAX_OUTCOMES)


class ServingStatus(BaseModel):
    """The version in service, and the version that was rejected, if there is one."""

    model: str
    version: str | None
    version_source: VersionSource
    """What names the version: the alias, the setting that pins it, or the cache until the registry is reached."""
    loaded_at: datetime | None
    rejected: RejectedVersion | None


router = APIRouter()


def create_api(api: ApiDependencies, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]) -> FastAPI:
    """Create the application that serves everything except prediction requests."""
    app = FastAPIOffline(
        title=f"driftloop: {api.model_name}", summary="Predictions of a monitored model.", lifespan=lifespan
    )
    dependencies.provide(app, api)
    # FastAPI's own response repeats the input, which may not be representable in JSON or UTF-8.
    app.exception_handler(RequestValidationError)(_validation_error)
    app.include_router(operational_routes(api.health, lambda: _update_gauges(api)))
    app.include_router(router)
    app.include_router(metadata.router)

    def describe() -> dict[str, Any]:
        return openapi.build_openapi(app, api.model_name, api.manager.serving)

    app.openapi = describe  # type: ignore[method-assign]  # FastAPI documents this way to replace the page
    return app


@router.post(
    "/outcomes", status_code=202, tags=["predictions"], responses=openapi.error_responses(openapi.DETAIL_SCHEMA)
)
async def report_outcomes(
    body: OutcomesRequest, api: Dependencies, driftloop_time: EventTimeHeader = None
) -> dict[str, int]:
    """Report outcomes of earlier predictions. If a row is reported more than once, the last outcome counts."""
    time = driftloop_time or now()
    traceparent = tracing.current_traceparent()
    events = [
        serialize(
            Outcome(
                time=time,
                traceparent=traceparent,
                prediction_id=report.id,
                index=report.index,
                outcome=report.outcome,
            )
        )
        for report in body.outcomes
    ]
    try:
        await asyncio.to_thread(api.outbox.require_capacity)
        await asyncio.to_thread(api.outbox.append, events)
    except OutboxUnavailable as error:
        raise HTTPException(503, str(error), {"Retry-After": RETRY_AFTER_SECONDS}) from error
    metrics.OUTCOMES.inc(len(events))
    return {"accepted": len(events)}


@router.get("/models", tags=["operation"])
def serving_status(api: Dependencies) -> ServingStatus:
    """Return the version in service, since when it serves, and the version that was rejected, if there is one."""
    serving = api.manager.serving
    return ServingStatus(
        model=api.model_name,
        version=serving and serving.version,
        version_source=api.manager.source,
        loaded_at=serving and serving.loaded_at,
        rejected=api.manager.rejected,
    )


def _update_gauges(api: ApiDependencies) -> None:
    """Set the gauges that are read when the metrics are scraped."""
    metrics.QUEUED_ROWS.set(api.batcher.queued_rows)
    depth = api.outbox.depth()
    metrics.OUTBOX_PENDING.set(depth.events)
    metrics.OUTBOX_OLDEST_AGE.set(depth.age_seconds)
    metrics.OUTBOX_LIMIT.set(api.outbox.limits.max_events)


async def _validation_error(_: Request, error: RequestValidationError) -> JSONResponse:
    details = [{key: detail[key] for key in ("type", "loc", "msg")} for detail in error.errors()]
    return JSONResponse({"detail": details[:MAX_REPORTED_ERRORS]}, 422)
