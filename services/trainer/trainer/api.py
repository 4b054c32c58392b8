"""The trainer's HTTP API: request retrains, follow them, and roll back. All of it needs the API key."""

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated
from uuid import UUID, uuid5
from weakref import WeakSet

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Security
from fastapi.responses import StreamingResponse
from fastapi.security import APIKeyHeader
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from driftloop.errors import BrokerUnavailable, RegistryRefused, RegistryUnavailable
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

KEY_NAMESPACE = UUID("5d0c3e1f-3b0a-4f57-9f0e-2c6a7f1c9d11")  # of the ids that Idempotency-Key stands for

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=256,
        description="a name of the client's own for this request: repeated with it, the request is the same retrain",
    ),
]

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
        _request_routes(model, publisher, history),
        _state_routes(model, history),
        _rollback_routes(registry, publisher),
    ):
        app.include_router(router, dependencies=[Depends(require_api_key)])
    return app


def _request_routes(model: str, publisher: Publisher, history: RetrainHistory) -> APIRouter:
    router = APIRouter()
    lock = threading.Lock()  # between looking for a request of the same key and publishing it

    @router.post("/retrain", status_code=202)
    def retrain(request: RetrainRequest, idempotency_key: IdempotencyKey = None) -> RetrainAccepted:
        """Request a retrain: publish a retrain event.

        Repeated with the same `Idempotency-Key`, the request is answered with the same id, and requests nothing more.
        """
        retrain_id = None if idempotency_key is None else str(uuid5(KEY_NAMESPACE, f"{model}\n{idempotency_key}"))
        event = request.to_event(model, tracing.current_traceparent(), retrain_id)
        with lock if idempotency_key is not None else nullcontext():
            if idempotency_key is not None and _is_requested(history, event):
                return RetrainAccepted(id=event.id)
            try:
                publisher.publish(event)
            except BrokerUnavailable as error:
                raise HTTPException(503, f"the event could not be published: {error}") from error
        return RetrainAccepted(id=event.id)

    @router.post("/retrain/dry-run")
    def dry_run(request: RetrainRequest) -> RetrainRequested:
        """Return the event that a request would publish, if the broker answers; nothing is published."""
        event = request.to_event(model)
        with _broker_errors():
            history.request(event.id)
        return event

    return router


def _is_requested(history: RetrainHistory, event: RetrainRequested) -> bool:
    """Return whether a request of the event's id is on the topic.

    Raises:
        HTTPException: It is another one, or the topic cannot be read.
    """
    with _broker_errors():
        earlier = history.request(event.id)
    if earlier is None:
        return False
    differing = [name for name in RetrainRequest.model_fields if getattr(earlier, name) != getattr(event, name)]
    if differing:
        raise HTTPException(422, f"Idempotency-Key was used for a request with another {', '.join(differing)}")
    return True


@contextmanager
def _broker_errors() -> Iterator[None]:
    """Answer with 503 if the topics cannot be read in the block."""
    try:
        yield
    except BrokerUnavailable as error:
        raise HTTPException(503, f"the topics cannot be read: {error}") from error


def _state_routes(model: str, history: RetrainHistory) -> APIRouter:
    router = APIRouter()
    followers: WeakSet[Iterator[str]] = WeakSet()  # the stream of a client that has disconnected is collected

    @router.get("/retrain")
    def last_retrains(limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 20) -> list[RetrainSummary]:
        """Return the model's last retrains and rollbacks, the latest first, each with its latest state."""
        with _broker_errors():
            return history.summaries(model, limit)[::-1]

    @router.get("/retrain/{retrain_id:path}", response_model=list[ModelStateChanged])
    def follow(retrain_id: str, *, wait: bool = False) -> list[ModelStateChanged] | StreamingResponse:
        """Return the states of a retrain so far.

        With `wait`, stream them as JSON lines until the final one. An empty line at least every 10 seconds is a
        heartbeat.
        """
        with _broker_errors():
            states = history.states(retrain_id)
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
        """Put the version that was in service before, or the named one, back into service.

        While the alias is being changed, by another request or by a promotion, the answer is 409.
        """
        try:
            state = roll_back(registry, request.reason, request.to)
        except RollbackNotPossible as error:
            raise HTTPException(409, str(error)) from error
        except RegistryUnavailable as error:
            raise HTTPException(503, f"the registry is unavailable: {error}") from error
        except RegistryRefused as error:
            raise HTTPException(502, str(error)) from error
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
