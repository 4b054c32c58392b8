"""What is asked of a predictor beside predictions: outcomes, how it stands, and the API page."""

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

from driftloop.events import Outcome, Row, Time, now
from driftloop.kafka.codec import written
from driftloop.telemetry.health import Health, operational_routes
from predictor import metrics
from predictor.http import metadata, openapi
from predictor.http.protocols.native import MOST_MISTAKES
from predictor.outbox.outbox import NotKept, Outbox
from predictor.serving.batching import Batcher
from predictor.serving.model_manager import Champion

When = Annotated[
    Time | None,
    Header(alias="Driftloop-Time", description=openapi.TIME),
]
MOST_OUTCOMES = 10_000


class Known(BaseModel):
    """What really happened to the row ``index`` of the request that was answered with ``id``."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1, max_length=256)
    index: Row
    outcome: FiniteFloat


class Outcomes(BaseModel):
    """Outcomes that have become known."""

    model_config = ConfigDict(extra="forbid")

    outcomes: list[Known] = Field(min_length=1, max_length=MOST_OUTCOMES)


class Refused(BaseModel):
    """A version that was not taken into service."""

    version: str
    why: str
    at: datetime


class Models(BaseModel):
    """The version in service, and what is in another's way."""

    model: str
    version: str | None
    named_by: str
    """What names the version: the alias, the setting that pins it, or the disk while the registry is out of reach."""
    loaded_at: datetime | None
    refused: Refused | None


def create(
    model: str,
    champion: Champion,
    batcher: Batcher,
    outbox: Outbox,
    health: Health,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
) -> FastAPI:
    """The application behind the front."""
    app = FastAPIOffline(title=f"driftloop: {model}", summary="Predictions that are watched.", lifespan=lifespan)

    def measure() -> None:
        metrics.QUEUED.set(batcher.queued_rows)
        depth = outbox.depth()
        metrics.WAITING.set(depth.events)
        metrics.AGE.set(depth.age_seconds)
        metrics.MOST_WAITING.set(outbox.limits.max_events)

    # FastAPI's own answer repeats what was given, which may be what JSON or UTF-8 cannot say.
    app.exception_handler(RequestValidationError)(_not_valid)
    app.include_router(operational_routes(health, measure))
    app.include_router(_predictor_routes(model, champion, outbox))
    app.include_router(metadata.router(model, champion, health))

    def describe() -> dict[str, Any]:
        return openapi.openapi(app, model, champion.serving)

    app.openapi = describe  # type: ignore[method-assign]  # FastAPI's documented way to a page of one's own
    return app


async def _not_valid(_: Request, error: RequestValidationError) -> JSONResponse:
    details = [{name: problem[name] for name in ("type", "loc", "msg")} for problem in error.errors()]
    return JSONResponse({"detail": details[:MOST_MISTAKES]}, 422)


def _predictor_routes(model: str, champion: Champion, outbox: Outbox) -> APIRouter:
    router = APIRouter()

    @router.post("/outcomes", status_code=202, tags=["predictions"], responses=openapi.problems(openapi.DETAIL))
    async def outcomes(body: Outcomes, driftloop_time: When = None) -> dict[str, int]:
        """Takes what really happened to earlier predictions; the last one known of a row counts."""
        known_at = driftloop_time or now()
        events = [
            written(Outcome(time=known_at, prediction_id=o.id, index=o.index, outcome=o.outcome)) for o in body.outcomes
        ]
        try:
            await asyncio.to_thread(outbox.check_room)
            await asyncio.to_thread(outbox.keep, events)
        except NotKept as error:
            raise HTTPException(503, str(error), {"Retry-After": "2"}) from error
        metrics.OUTCOMES.inc(len(events))
        return {"accepted": len(events)}

    @router.get("/models", tags=["operation"])
    def models() -> Models:
        """Which version answers, since when, and which one was refused, if one was."""
        serving, refusal = champion.serving, champion.refusal
        return Models(
            model=model,
            version=serving and serving.version,
            named_by=champion.source,
            loaded_at=serving and serving.loaded_at,
            refused=refusal and Refused(version=refusal.version, why=refusal.why, at=refusal.at),
        )

    return router
