"""Refreshes the model as soon as a retrain announces its result; polling the alias is the fallback."""

from collections.abc import Callable
from threading import Event

import structlog

from driftloop.errors import BrokerUnavailable
from driftloop.events import ModelStateChanged
from driftloop.kafka import reader
from driftloop.settings import Settings

log = structlog.get_logger(__name__)

RETRY_SECONDS = 5


def listen_for_changes(settings: Settings, model: str, refresh: Callable[[], None], stop: Event) -> None:
    """Call ``refresh`` whenever a retrain of ``model`` reaches its final state, until ``stop`` is set.

    Blocks, so it needs a thread. After an error it reconnects every :data:`RETRY_SECONDS`;
    ``refresh`` is also called after each connect, for changes that were announced before.
    """
    while not stop.is_set():
        try:
            with reader.tail(settings.kafka, settings.topics.models) as changes:
                refresh()
                for change in changes:
                    if stop.is_set():
                        return
                    if isinstance(change, ModelStateChanged) and change.model == model and change.is_final:
                        refresh()
        except BrokerUnavailable as error:
            log.warning("model_changes.broker_unavailable", error=str(error), effect="the alias is still polled")
            stop.wait(RETRY_SECONDS)
        except Exception:  # this thread must not end: nobody would see it
            log.exception("model_changes.failed", effect="the alias is still polled")
            stop.wait(RETRY_SECONDS)
