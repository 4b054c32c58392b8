"""Refreshes the model as soon as a retrain announces its result; polling the alias is the fallback."""

from collections.abc import Callable
from threading import Event

from driftloop.events import ModelStateChanged
from driftloop.kafka import reader
from driftloop.settings import Settings

TASK = "model_changes"
RETRY_SECONDS = 5


def follow_changes(
    settings: Settings, model: str, refresh: Callable[[], None], stop: Event, report_progress: Callable[[], None]
) -> None:
    """Call ``refresh`` whenever a retrain of ``model`` reaches its final state, until ``stop`` is set.

    It is also called after the connection, for changes that were announced before.

    Raises:
        BrokerUnavailable: The connection has failed or has been lost.
    """
    with reader.tail(settings.kafka, settings.topics.models) as changes:
        refresh()
        for change in changes:
            report_progress()
            if stop.is_set():
                return
            if isinstance(change, ModelStateChanged) and change.model == model and change.is_final:
                refresh()
