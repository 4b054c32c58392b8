"""The topic ``models``, which makes a look at the alias immediate: the poll alone would do, a little later."""

from collections.abc import Callable
from threading import Event

import structlog
from kafka.errors import KafkaError

from driftloop.events import ModelChange
from driftloop.kafka import topics
from driftloop.settings import Settings

log = structlog.get_logger(__name__)

RETRY_SECONDS = 5


def follow(settings: Settings, model: str, refresh: Callable[[], None], stop: Event) -> None:
    """Calls ``refresh`` when a retrain of the model has ended, until ``stop`` is set; blocks that long.

    A broker that is away is waited for.
    """
    while not stop.is_set():
        try:
            with topics.following(settings.kafka, settings.topics.models) as changes:
                refresh()  # what was announced while nobody listened
                for change in changes:
                    if stop.is_set():
                        return
                    if isinstance(change, ModelChange) and change.model == model and change.final:
                        refresh()
        except KafkaError as error:
            log.warning("announcements out of reach, the alias is still polled", error=str(error))
            stop.wait(RETRY_SECONDS)
