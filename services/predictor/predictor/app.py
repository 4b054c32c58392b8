"""One process that answers: everything that it needs, wired."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from starlette.types import ASGIApp

from driftloop.registry.model_registry import Registry
from driftloop.settings import load
from driftloop.telemetry import tracing
from driftloop.telemetry.health import Health, configure_logging
from predictor.http import admin
from predictor.http.gateway import Front
from predictor.http.protocols import paths
from predictor.outbox.outbox import Outbox
from predictor.outbox.supervision import end_with_the_predictor
from predictor.serving import model_changes
from predictor.serving.batching import Batcher
from predictor.serving.model_cache import Versions
from predictor.serving.model_manager import Champion
from predictor.settings import PredictorSettings


def create() -> ASGIApp:
    """The ASGI application, from the environment's settings."""
    settings = load(PredictorSettings)
    configure_logging("predictor", settings.log)
    tracing.start("predictor", settings.tracing)
    end_with_the_predictor()
    mine = settings.predictor
    health = Health()
    registry = Registry(settings.registry)
    versions = Versions(mine.folder / "models" / registry.model, registry.fetch)
    champion = Champion(registry, versions, mine, health)
    outbox = Outbox(mine.folder, settings.outbox)
    batcher = Batcher(registry.model, outbox, mine.max_batch_rows, mine.max_queued_rows)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Before connections are taken: where several processes share a port, one without a version would refuse what
        # another could answer.
        await asyncio.to_thread(champion.start)
        health.beat()
        stop = threading.Event()
        following = threading.Thread(
            target=model_changes.follow,
            args=(settings, registry.model, champion.refresh, stop),
            name="announcements",
            daemon=True,
        )
        following.start()
        polling = asyncio.create_task(_poll(champion, health, mine.poll_seconds))
        health.started()
        try:
            yield
        finally:
            stop.set()
            polling.cancel()
            with suppress(asyncio.CancelledError):
                await polling
            batcher.close()
            outbox.close()
            tracing.stop()

    app = admin.create(registry.model, champion, batcher, outbox, health, lifespan)
    return tracing.served(Front(app, paths(registry.model), champion, batcher, registry.model, mine))


async def _poll(champion: Champion, health: Health, seconds: float) -> None:
    frozen = False
    while True:
        await asyncio.to_thread(champion.refresh)
        if champion.serving is not None and not frozen:
            # What is loaded by now stays: a garbage collection that looks at all of it stops everything for 150 ms.
            gc.collect()
            gc.freeze()
            frozen = True
        health.beat()
        await asyncio.sleep(seconds)
