"""The predictor's settings."""

from pydantic import Field

from driftloop.registry import TRUSTED_TYPES
from driftloop.settings import Registry, Server, Settings


class Predictor(Server):
    """Where it listens and what it takes."""

    port: int = Field(8000, ge=1, le=65535)
    poll_seconds: float = Field(2, gt=0, description="how often the alias is looked up")
    max_rows: int = Field(1_000, ge=1, description="rows that a request may have")
    trusted_types: tuple[str, ...] = Field(
        TRUSTED_TYPES, description="types that a model may hold beside skops' own safe ones"
    )


class PredictorSettings(Settings):
    """Everything that the predictor reads from the environment."""

    registry: Registry
    predictor: Predictor = Predictor()
