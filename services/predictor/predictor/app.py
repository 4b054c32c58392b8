"""The ASGI application of one worker process: wires everything that serves requests."""

import asyncio
import gc
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

from fastapi import FastAPI
from starlette.types import ASGIApp

from driftloop.command_line import exit_on_invalid_settings
from driftloop.process import exit_with_parent
from driftloop.registry.model_registry import ModelRegistry
from driftloop.settings import load_settings
from driftloop.telemetry import tracing
from driftloop.telemetry.background import start_background
from driftloop.telemetry.health import Health
from driftloop.telemetry.logging import configure_logging
from predictor.http.application import create_application
from predictor.http.dependencies import ApiDependencies
from predictor.outbox.outbox import Outbox
from predictor.outbox.readiness import report_outbox
from predictor.serving import model_changes
from predictor.serving.batching import Batcher
from predictor.serving.model_cache import ModelCache
from predictor.serving.model_manager import ModelManager
from predictor.settings import PredictorSettings


def create_app() -> ASGIApp:
    """Create the ASGI application from the environment's settings."""
    settings = load_settings(PredictorSettings)
    configure_logging("predictor", settings.log)
    with exit_on_invalid_settings():
        tracing.start("predictor", settings.tracing)
    # One of several workers would hold the port after its parent's death, while no relay publishes its events.
    exit_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    predictor_settings = settings.predictor
    health = Health()
    registry = ModelRegistry(settings.registry)
    cache = ModelCache(predictor_settings.data_dir / "models" / registry.model, registry.fetch)
    privacy = settings.privacy.privacy
    manager = ModelManager(registry, cache, predictor_settings, health, privacy)
    outbox = Outbox(predictor_settings.data_dir, settings.outbox)
    batcher = Batcher(
        registry.model, outbox, predictor_settings.max_batch_rows, predictor_settings.max_queued_rows, privacy
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Before the port is opened: where several processes share it, one without a model would refuse requests that
        # another could serve. The registry is asked afterwards, as it may take its time.
        await asyncio.to_thread(manager.restore_cached)
        health.heartbeat()
        stop = threading.Event()
        follow = partial(model_changes.follow_changes, settings, registry.model, manager.refresh, stop)
        start_background(model_changes.TASK, follow, health, model_changes.RETRY_SECONDS, stop)
        poller = asyncio.create_task(_poll(manager, outbox, health, predictor_settings.alias_poll_interval_seconds))
        health.mark_started()
        try:
            yield
        finally:
            stop.set()
            poller.cancel()
            with suppress(asyncio.CancelledError):
                await poller
            batcher.close()
            outbox.close()
            tracing.stop()

    dependencies = ApiDependencies(
        registry.model,
        manager,
        batcher,
        outbox,
        health,
        accepts_unknown_labels=predictor_settings.unknown_labels == "accept",
        privacy=privacy,
    )
    return tracing.instrument_asgi(create_application(dependencies, predictor_settings, lifespan))


async def _poll(manager: ModelManager, outbox: Outbox, health: Health, interval_seconds: float) -> None:
    """Refresh the model and look at the outbox at each interval, for ever.

    That the event loop runs counts as progress, however long the registry takes to answer.
    """
    frozen = False
    while True:
        refresh = _in_daemon_thread(manager.refresh)
        while not (await asyncio.wait([refresh], timeout=interval_seconds))[0]:
            health.heartbeat()
        await asyncio.to_thread(report_outbox, outbox, health)
        if manager.serving is not None and not frozen:
            # The objects that exist by now stay: a garbage collection that visits all of them stops everything for
            # 150 ms.
            gc.collect()
            gc.freeze()
            frozen = True
        health.heartbeat()
        await asyncio.sleep(interval_seconds)


def _in_daemon_thread(function: Callable[[], None]) -> asyncio.Future[None]:
    """Call a function, which must not raise, in a thread that does not keep the process from ending.

    What it waits for may be a registry that does not answer, and a thread of the event loop's own is waited for.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        function()
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(lambda: None if future.done() else future.set_result(None))

    threading.Thread(target=run, name="refresh", daemon=True).start()
    return future
