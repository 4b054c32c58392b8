"""What the routes of the API need, handed to them by FastAPI's dependency injection."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Request

from driftloop.privacy import NO_PRIVACY, Privacy
from driftloop.telemetry.health import Health
from predictor.outbox.outbox import Outbox
from predictor.serving.batching import Batcher
from predictor.serving.model_manager import ModelManager


@dataclass(frozen=True)
class ApiDependencies:
    """The parts of the predictor that routes use."""

    model_name: str
    manager: ModelManager
    batcher: Batcher
    outbox: Outbox
    health: Health
    accepts_unknown_labels: bool = False
    """Whether outcomes may be no class of the version in service."""
    privacy: Privacy = NO_PRIVACY
    """What becomes of private values before an event or a page has them."""

    @property
    def is_ready(self) -> bool:
        """Whether prediction requests can be served now."""
        return self.manager.serving is not None and not self.health.unavailable


def provide(app: FastAPI, dependencies: ApiDependencies) -> None:
    """Make the dependencies available to all routes of ``app``."""
    app.state.dependencies = dependencies


async def _dependencies(request: Request) -> ApiDependencies:
    dependencies: ApiDependencies = request.app.state.dependencies
    return dependencies


Dependencies = Annotated[ApiDependencies, Depends(_dependencies)]
