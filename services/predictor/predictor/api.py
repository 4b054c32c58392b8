"""The predictor's HTTP interface: it translates, nothing else."""

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from threadpoolctl import threadpool_limits

from driftloop.events import Outcome, Prediction, Row, Time, now
from driftloop.producing import Publisher, Unavailable
from driftloop.telemetry import Health, routes
from predictor import metrics
from predictor.serving import Champion, Serving

When = Annotated[
    Time | None,
    Header(alias="Driftloop-Time", description="When it happened, where that is not now: for replays of the past."),
]


class Predictions(BaseModel):
    """An answer; ``id`` is what outcomes are reported for."""

    id: str
    model: str
    version: str
    predictions: list[float]


class Known(BaseModel):
    """What really happened to the row ``index`` of the request that was answered with ``id``."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1)
    index: Row
    outcome: FiniteFloat


class Outcomes(BaseModel):
    """Outcomes that have become known."""

    model_config = ConfigDict(extra="forbid")

    outcomes: list[Known] = Field(min_length=1)


def create(model: str, champion: Champion, publisher: Publisher, health: Health, poll_seconds: float) -> FastAPI:
    """The application. It looks the alias up every ``poll_seconds`` as long as it runs."""
    # One thread owns the model. It gets one OpenMP thread, since the trees wait for one another at a barrier a tree
    # and beside a busy event loop that takes ten times as long.
    scoring = ThreadPoolExecutor(1, "scoring", initializer=threadpool_limits, initargs=(1,))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        polling = asyncio.create_task(_poll(champion, health, poll_seconds))
        health.started()
        try:
            yield
        finally:
            polling.cancel()
            with suppress(asyncio.CancelledError):
                await polling
            scoring.shutdown()
            publisher.close()

    app = FastAPIOffline(title=f"driftloop: {model}", summary="Predictions that are watched.", lifespan=lifespan)
    app.include_router(routes(health))

    @app.post(
        "/predict",
        response_model=Predictions,
        tags=["predictions"],
        responses={503: {"description": "No version or no broker"}},
    )
    async def predict(request: Request, driftloop_time: When = None) -> Predictions:
        """Answers with a prediction for each instance; the request's event is published before the answer."""
        serving = champion.serving
        if serving is None:
            raise HTTPException(503, health.missing.get("model", "no version in service"), {"Retry-After": "2"})
        try:
            instances = serving.schema.request.model_validate_json(await request.body())
        except ValidationError as error:
            # The shape of FastAPI's own, without what was given: that may be anything, even no JSON.
            raise RequestValidationError(
                [
                    {**e, "loc": ("body", *e["loc"])}
                    for e in error.errors(include_url=False, include_context=False, include_input=False)
                ]
            ) from error
        columns = serving.schema.columns(instances)
        scores = await asyncio.get_running_loop().run_in_executor(scoring, serving.score, columns)
        event = Prediction(
            time=driftloop_time or now(), model=model, version=serving.version, features=columns, predictions=scores
        )
        await _publish(publisher, event)
        metrics.ROWS.labels(serving.version).inc(len(scores))
        request.state.version = serving.version
        return Predictions(id=event.id, model=model, version=serving.version, predictions=scores)

    @app.post("/outcomes", status_code=202, tags=["predictions"])
    async def outcomes(body: Outcomes, driftloop_time: When = None) -> dict[str, int]:
        """Takes what really happened to earlier predictions; the last one known of a row counts."""
        known_at = driftloop_time or now()
        await _publish(
            publisher,
            *(Outcome(time=known_at, prediction_id=o.id, index=o.index, outcome=o.outcome) for o in body.outcomes),
        )
        metrics.OUTCOMES.inc(len(body.outcomes))
        return {"accepted": len(body.outcomes)}

    @app.middleware("http")
    async def measure(request: Request, answer: Any) -> Response:
        if request.url.path != "/predict":
            return await answer(request)  # type: ignore[no-any-return]
        began = time.perf_counter()
        status = 500  # unless there is an answer
        try:
            response: Response = await answer(request)
            status = response.status_code
            return response
        finally:
            metrics.SECONDS.observe(time.perf_counter() - began)
            metrics.REQUESTS.labels(status, getattr(request.state, "version", "")).inc()

    def openapi() -> dict[str, Any]:
        return _openapi(app, champion.serving)

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to a page of one's own
    return app


async def _poll(champion: Champion, health: Health, seconds: float) -> None:
    while True:
        await asyncio.to_thread(champion.refresh)
        health.beat()
        await asyncio.sleep(seconds)


async def _publish(publisher: Publisher, *events: Prediction | Outcome) -> None:
    try:
        await publisher.publish_async(*events)
    except Unavailable as error:
        raise HTTPException(
            503, f"the event could not be published, so the request is not answered: {error}", {"Retry-After": "2"}
        ) from error


def _openapi(app: FastAPI, serving: Serving | None) -> dict[str, Any]:
    """The page with the request's schema of the version in service."""
    page = get_openapi(
        title=app.title, version=serving.version if serving else "none", summary=app.summary, routes=app.routes
    )
    body: dict[str, Any] = {"type": "object"}
    if serving is not None:
        body = serving.schema.request.model_json_schema(ref_template="#/components/schemas/{model}")
        page["components"]["schemas"] |= body.pop("$defs")
    page["paths"]["/predict"]["post"]["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": body}},
    }
    return page
