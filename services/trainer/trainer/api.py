"""The trainer's HTTP API: request retrains, follow them, and roll back. All of it needs the API key."""

import secrets
import time
from collections.abc import Iterator
from typing import Annotated
from weakref import WeakSet

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Security
from fastapi.responses import StreamingResponse
from fastapi.security import APIKeyHeader
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from driftloop.errors import BrokerUnavailable, RegistryUnavailable
from driftloop.events import ModelStateChanged, RetrainRequest, RetrainRequested
from driftloop.kafka.publisher import Publisher
from driftloop.registry.model_registry import ModelRegistry
from driftloop.registry.rollback import RollbackNotPossible, roll_back
from driftloop.retrain_summary import RetrainSummary
from driftloop.telemetry import tracing
from driftloop.telemetry.health import Health
from driftloop.telemetry.http import operational_routes
from trainer.retrain_history import RetrainHistory

MAX_FOLLOWERS = 8  # each occupies a thread, and the server has forty of them
MAX_LISTED = 200  # retrains in one answer
HEARTBEAT_SECONDS = 9  # an empty line at least every 10 s: silence is checked once a second

API_KEY_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False)


class RetrainAccepted(BaseModel):
    """The id under which the retrain's states appear on the topic ``models``."""

    id: str


class RollbackRequest(BaseModel):
    """A request to put an earlier version back into service: the one before the current one, or the named one."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"reason": "wrong units in June"}})

    reason: str = Field(min_length=1)
    to: str | None = None


def create_api(
    model: str,
    api_key: SecretStr,
    publisher: Publisher,
    health: Health,
    registry: ModelRegistry,
    history: RetrainHistory,
) -> FastAPI:
    """Return the application."""

    def require_api_key(key: Annotated[str | None, Security(API_KEY_HEADER)]) -> None:
        if not secrets.compare_digest((key or "").encode(), api_key.get_secret_value().encode()):
            raise HTTPException(401, "X-API-Key is missing or wrong")

    app = FastAPIOffline(title=f"driftloop trainer: {model}")
    app.include_router(operational_routes(health))
    for router in (
        _request_routes(model, publisher),
        _state_routes(model, history),
        _rollback_routes(registry, publisher),
    ):
        app.include_router(router, dependencies=[Depends(require_api_key)])
    return app


def _request_routes(model: str, publisher: Publisher) -> APIRouter:
    router = APIRouter()

    @router.post("/retrain", status_code=202)
    def retrain(request: RetrainRequest) -> RetrainAccepted:
        """Request a retrain: publish a retrain event."""
        event = request.to_event(model, tracing.current_traceparent())
        try:
            publisher.publish(event)
        except BrokerUnavailable as error:
            raise HTTPException(503, f"the event could not be published: {error}") from error
        return RetrainAccepted(id=event.id)

    @router.post("/retrain/dry-run")
    def dry_run(request: RetrainRequest) -> RetrainRequested:
        """Return the event that a request would publish; nothing is published."""
        return request.to_event(model)

    return router


def _state_routes(model: str, history: RetrainHistory) -> APIRouter:
    router = APIRouter()
    followers: WeakSet[Iterator[str]] = WeakSet()  # the stream of a client that has disconnected is collected

    @router.get("/retrain")
    def last_retrains(limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 20) -> list[RetrainSummary]:
        """Return the model's last retrains and rollbacks, the latest first, each with its latest state."""
        try:
            return history.summaries(model, limit)[::-1]
        except BrokerUnavailable as error:
            raise HTTPException(503, f"the topics cannot be read: {error}") from error

    @router.get("/retrain/{retrain_id:path}", response_model=list[ModelStateChanged])
    def follow(retrain_id: str, *, wait: bool = False) -> list[ModelStateChanged] | StreamingResponse:
        """Return the states of a retrain so far.

        With `wait`, stream them as JSON lines until the final one. An empty line at least every 10 seconds is a
        heartbeat.
        """
        try:
            states = history.states(retrain_id)
        except BrokerUnavailable as error:
            raise HTTPException(503, f"the topics cannot be read: {error}") from error
        if states is None:
            raise HTTPException(404, f"there is no retrain {retrain_id}")
        if not wait:
            return states
        if len(followers) >= MAX_FOLLOWERS:
            raise HTTPException(503, f"{MAX_FOLLOWERS} clients are waiting already", {"Retry-After": "10"})
        lines = _ndjson(history.stream(retrain_id))
        followers.add(lines)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    return router


def _rollback_routes(registry: ModelRegistry, publisher: Publisher) -> APIRouter:
    router = APIRouter()

    @router.post("/rollback")
    def rollback(request: RollbackRequest) -> ModelStateChanged:
        """Put the version that was in service before, or the named one, back into service."""
        try:
            state = roll_back(registry, request.reason, request.to)
        except RollbackNotPossible as error:
            raise HTTPException(409, str(error)) from error
        except RegistryUnavailable as error:
            raise HTTPException(503, f"the registry is unavailable: {error}") from error
        try:
            publisher.publish(state)
        except BrokerUnavailable as error:
            raise HTTPException(503, f"{state.explanation}; but the event could not be published: {error}") from error
        return state

    return router


def _ndjson(states: Iterator[ModelStateChanged | None]) -> Iterator[str]:
    """Yield a line for each state, and an empty line after each ``HEARTBEAT_SECONDS`` of silence.

    An empty text is yielded for every other second without an event. It is not sent, but returns the thread to the
    server, which notices there that a client has disconnected.
    """
    last_sent = time.monotonic()
    for state in states:
        if state is not None:
            line = state.model_dump_json() + "\n"
        elif time.monotonic() - last_sent >= HEARTBEAT_SECONDS:
            line = "\n"
        else:
            line = ""
        if line:
            last_sent = time.monotonic()
        yield line
