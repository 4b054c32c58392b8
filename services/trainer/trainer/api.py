"""The trainer's HTTP interface: asks for retrains and follows them, and goes back, for those who have the key."""

import secrets
from collections.abc import Iterator
from typing import Annotated
from weakref import WeakSet

from fastapi import Depends, FastAPI, HTTPException, Security
from fastapi.responses import StreamingResponse
from fastapi.security import APIKeyHeader
from fastapi_offline import FastAPIOffline
from kafka.errors import KafkaError
from mlflow.exceptions import MlflowException
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from driftloop.events import ModelChange, Retrain, Wish
from driftloop.kafka.publisher import Publisher, Unavailable
from driftloop.registry.model_registry import Registry
from driftloop.registry.rollback import CannotRollBack, roll_back
from driftloop.telemetry.health import Health, operational_routes
from trainer.retrain_history import States

MOST_FOLLOWERS = 8  # each holds a thread, and the pages have forty of them


class Asked(BaseModel):
    """The id under which the retrain's states appear on ``models``."""

    id: str


class WayBack(BaseModel):
    """Why the version in service is to be replaced by the one before it, or by the one that is named."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"reason": "wrong units in June"}})

    reason: str = Field(min_length=1)
    to: str | None = None


def create(
    model: str, api_key: SecretStr, publisher: Publisher, health: Health, registry: Registry, states: States
) -> FastAPI:
    """The application."""
    app = FastAPIOffline(title=f"driftloop trainer: {model}")
    app.include_router(operational_routes(health))
    header = APIKeyHeader(name="X-API-Key", auto_error=False)
    followers: WeakSet[Iterator[str]] = WeakSet()  # one whose client has gone is gone too

    def has_key(given: Annotated[str | None, Security(header)]) -> None:
        if not secrets.compare_digest((given or "").encode(), api_key.get_secret_value().encode()):
            raise HTTPException(401, "X-API-Key is missing or wrong")

    @app.post("/retrain", status_code=202, dependencies=[Depends(has_key)])
    def retrain(wish: Wish) -> Asked:
        """Publishes a retrain event."""
        event = wish.retrain(model)
        try:
            publisher.publish(event)
        except Unavailable as error:
            raise HTTPException(503, f"the event could not be published: {error}") from error
        return Asked(id=event.id)

    @app.post("/retrain/dry-run", dependencies=[Depends(has_key)])
    def rehearse(wish: Wish) -> Retrain:
        """The event that a retrain would be asked for by; nothing is published."""
        return wish.retrain(model)

    @app.get("/retrain/{retrain_id:path}", response_model=list[ModelChange], dependencies=[Depends(has_key)])
    def follow(retrain_id: str, *, wait: bool = False) -> list[ModelChange] | StreamingResponse:
        """The states of a retrain so far; with ``wait`` those to come too, one a line, until its end."""
        try:
            known = states.of(retrain_id)
        except KafkaError as error:
            raise HTTPException(503, f"the topics cannot be read: {error}") from error
        if known is None:
            raise HTTPException(404, f"nobody has asked for a retrain {retrain_id}")
        if not wait:
            return known
        if len(followers) >= MOST_FOLLOWERS:
            raise HTTPException(503, f"{MOST_FOLLOWERS} are waiting already", {"Retry-After": "10"})
        lines = _lines(states.follow(retrain_id))
        followers.add(lines)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    @app.post("/rollback", dependencies=[Depends(has_key)])
    def rollback(way: WayBack) -> ModelChange:
        """Puts the version that was in service before, or the named one, back into service."""
        try:
            change = roll_back(registry, way.reason, way.to)
        except CannotRollBack as error:
            raise HTTPException(409, str(error)) from error
        except MlflowException as error:
            raise HTTPException(503, f"the registry is out of reach: {error}") from error
        try:
            publisher.publish(change)
        except Unavailable as error:
            raise HTTPException(503, f"{change.why}; but the event could not be published: {error}") from error
        return change

    return app


def _lines(changes: Iterator[ModelChange | None]) -> Iterator[str]:
    """One a line; an empty text lets go of the thread, and is not sent."""
    for change in changes:
        yield "" if change is None else change.model_dump_json() + "\n"
