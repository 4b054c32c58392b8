"""Where the archive is that a notebook reads: the environment says it, or arguments."""

import re

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from driftloop.errors import InvalidInput
from driftloop.settings import Settings, StorageSettings, TopicsSettings, load_settings

TOPIC_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")


class ReadSettings(BaseSettings):
    """The object store and the topics whose events are in it."""

    model_config = Settings.model_config

    storage: StorageSettings = StorageSettings()
    topics: TopicsSettings = TopicsSettings()


def load_read_settings(
    storage: StorageSettings | str | None, predictions_topic: str | None, outcomes_topic: str | None
) -> ReadSettings:
    """Return the settings of the environment, with those that are given in their place.

    Args:
        storage: The object store, or its URL; one of the environment's kind has the environment's endpoint.
        predictions_topic: Name of the topic of predictions.
        outcomes_topic: Name of the topic of outcomes.

    Raises:
        InvalidInput: A variable, the URL or a topic's name is not valid.
    """
    settings = load_settings(ReadSettings)
    if isinstance(storage, str):
        same_kind = storage.partition("://")[0] == settings.storage.scheme
        try:
            storage = StorageSettings(url=storage, endpoint=settings.storage.endpoint if same_kind else None)
        except ValidationError as error:
            reasons = (found["msg"].removeprefix("Value error, ") for found in error.errors())
            raise InvalidInput(f"storage: {'; '.join(reasons)}") from None
    for argument, topic in (("predictions_topic", predictions_topic), ("outcomes_topic", outcomes_topic)):
        if topic is not None and not TOPIC_NAME.fullmatch(topic):
            raise InvalidInput(f"{argument}: {topic!r} is not the name of a topic")
    topics = {"predictions": predictions_topic, "outcomes": outcomes_topic}
    named = {name: topic for name, topic in topics.items() if topic is not None}
    return settings.model_copy(
        update={"storage": storage or settings.storage, "topics": settings.topics.model_copy(update=named)}
    )
