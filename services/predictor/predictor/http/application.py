"""The ASGI application: the API behind the gateway, behind the rules for HEAD and for web pages of other hosts."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from driftloop.asgi import answer_head, refuse_foreign_pages
from predictor.http import admin
from predictor.http.dependencies import ApiDependencies
from predictor.http.gateway import InferenceGateway
from predictor.http.protocols import protocols_by_path
from predictor.settings import ServingSettings

CORS_METHODS = ("GET", "HEAD", "POST")
CORS_RESPONSE_HEADERS = ("Driftloop-Id", "Driftloop-Version", "Inference-Header-Content-Length", "Retry-After")


def create_application(
    api: ApiDependencies, settings: ServingSettings, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]
) -> ASGIApp:
    """Create the application.

    Args:
        api: The parts of the predictor that serve requests.
        settings: The limits of a request, and the origins whose pages may send some.
        lifespan: What runs while the application serves.
    """
    gateway = InferenceGateway(
        admin.create_api(api, lifespan),
        protocols_by_path(api.model_name),
        api.manager,
        api.batcher,
        api.model_name,
        settings,
        api.privacy,
    )
    origins = settings.cors_origins
    app = refuse_foreign_pages(
        gateway, origins, ": the setting DRIFTLOOP_PREDICTOR__CORS_ORIGINS lists the origins whose pages may"
    )
    if origins:
        app = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=CORS_METHODS,
            allow_headers=["*"],
            allow_private_network=True,
            expose_headers=CORS_RESPONSE_HEADERS,
        )
    return answer_head(app)
