"""The trainer's HTTP interface: publishes retrain events for those who have the key."""

import secrets
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Security
from fastapi.security import APIKeyHeader
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from driftloop.events import DataSelection, Retrain
from driftloop.producing import Publisher, Unavailable
from driftloop.telemetry import Health, routes


class Wish(BaseModel):
    """What a retrain is asked for."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"reason": "new carrier"}})

    reason: str = Field(min_length=1)
    asked_by: str = "api"
    data: DataSelection = DataSelection()


class Asked(BaseModel):
    """The id under which the retrain's states appear on ``models``."""

    id: str


def create(model: str, api_key: SecretStr, publisher: Publisher, health: Health) -> FastAPI:
    """The application."""
    app = FastAPIOffline(title=f"driftloop trainer: {model}")
    app.include_router(routes(health))
    header = APIKeyHeader(name="X-API-Key", auto_error=False)

    def has_key(given: Annotated[str | None, Security(header)]) -> None:
        if not secrets.compare_digest((given or "").encode(), api_key.get_secret_value().encode()):
            raise HTTPException(401, "X-API-Key is missing or wrong")

    @app.post("/retrain", status_code=202, dependencies=[Depends(has_key)])
    def retrain(wish: Wish) -> Asked:
        """Publishes a retrain event."""
        event = Retrain(model=model, trigger="manual", reason=wish.reason, asked_by=wish.asked_by, data=wish.data)
        try:
            publisher.publish(event)
        except Unavailable as error:
            raise HTTPException(503, f"the event could not be published: {error}") from error
        return Asked(id=event.id)

    return app
