"""The API behind the gateway: its routes and its page; those for the status are here."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel

from driftloop.registry.fitted_transformers import MissingValue
from driftloop.registry.library_versions import LibraryVersion
from driftloop.registry.model_output import OutputDescription
from driftloop.telemetry.http import operational_routes
from predictor import metrics
from predictor.http import dependencies, metadata, openapi, outcomes
from predictor.http.dependencies import ApiDependencies, Dependencies
from predictor.http.protocols.native import MAX_REPORTED_ERRORS
from predictor.serving.model_manager import RejectedVersion, VersionSource


class ServingStatus(BaseModel):
    """The version in service, and the version that was rejected, if there is one."""

    model: str
    version: str | None
    run_id: str | None
    """The run that logged the version: it tells it from another of its number, of a model that was made again."""
    version_source: VersionSource
    """What names the version: the alias, the setting that pins it, the cache until the registry is reached, or nothing
    while no version has the alias."""
    alias_version: str | None
    """The version that the alias, or the setting, named at the last look-up; null if the alias does not exist."""
    loaded_at: datetime | None
    library_versions: dict[str, LibraryVersion]
    """Versions of libraries that the version in service was saved with, and those of the predictor."""
    output: OutputDescription | None
    """What the predictions mean, and the classes of probabilities."""
    missing_values: dict[str, MissingValue]
    """What a null is to the model, by column of texts or booleans: NaN, or Python's None."""
    rejected: RejectedVersion | None
    warnings: dict[str, str]
    """What needs attention, by component, as in /readyz."""
    unavailable: dict[str, str]
    """Why requests cannot be answered, by component, as in /readyz."""


router = APIRouter()


def create_api(api: ApiDependencies, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]) -> FastAPI:
    """Create the application that serves everything except prediction requests."""
    app = FastAPIOffline(
        title=f"driftloop: {api.model_name}", summary="Predictions of a monitored model.", lifespan=lifespan
    )
    dependencies.provide(app, api)
    # FastAPI's own response repeats the input, which may not be representable in JSON or UTF-8.
    app.exception_handler(RequestValidationError)(_validation_error)
    operational = operational_routes(api.health, lambda: _update_gauges(api))
    for routes in (outcomes.router, metadata.router, router, operational):
        app.include_router(routes)

    def describe() -> dict[str, Any]:
        return openapi.build_openapi(app, api.model_name, api.manager.serving, api.privacy)

    app.openapi = describe  # type: ignore[method-assign]  # FastAPI documents this way to replace the page
    return app


@router.get("/models", tags=["operation"])
def serving_status(api: Dependencies) -> ServingStatus:
    """Return the version in service, since when it serves, and the version that was rejected, if there is one."""
    serving = api.manager.serving
    return ServingStatus(
        model=api.model_name,
        version=serving and serving.version,
        run_id=serving and serving.run_id,
        version_source=api.manager.source,
        alias_version=api.manager.alias_version,
        loaded_at=serving and serving.loaded_at,
        library_versions=dict(serving.loaded.library_versions) if serving else {},
        output=serving and serving.output,
        missing_values=dict(serving.schema.missing_values) if serving else {},
        rejected=api.manager.rejected,
        warnings=api.health.warnings,
        unavailable=api.health.unavailable,
    )


def _update_gauges(api: ApiDependencies) -> None:
    """Set the gauges that are read when the metrics are scraped."""
    metrics.QUEUED_ROWS.set(api.batcher.queued_rows)
    depth = api.outbox.depth()
    metrics.OUTBOX_PENDING.set(depth.events)
    metrics.OUTBOX_OLDEST_AGE.set(depth.age_seconds)
    metrics.OUTBOX_LIMIT.set(api.outbox.limits.max_events)
    metrics.OUTBOX_FREE.set(api.outbox.free_bytes())


async def _validation_error(_: Request, error: RequestValidationError) -> JSONResponse:
    details = [{key: detail[key] for key in ("type", "loc", "msg")} for detail in error.errors()]
    return JSONResponse({"detail": details[:MAX_REPORTED_ERRORS]}, 422)
