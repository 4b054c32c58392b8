"""Asking for a retrain and hearing how it ends: over Kafka, or from outside over the trainer's API.

Both ways give the same: the retrain's id, and its states as they come.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from http import HTTPStatus
from typing import NamedTuple, Self

import httpx

from driftloop.events import ModelStateChanged, RetrainRequested, RetrainRequest
from driftloop.kafka import reader
from driftloop.kafka.publisher import Publisher
from driftloop.settings import Settings
from driftloop.telemetry import tracing

SILENCE_SECONDS = 20  # a connection that says nothing for so long is made anew: what is between may have forgotten it
PAUSE_SECONDS = 2  # before a connection is made anew: who does not answer is not asked at once


class Refused(Exception):
    """The trainer does not take the wish, or not from us; says why."""


class Away(Exception):
    """The trainer does not answer, or cannot do its work now."""


class Asked(NamedTuple):
    """A retrain that was asked for."""

    id: str
    changes: Iterator[ModelStateChanged | None]
    """Its states, up to its end; ``None`` at least twice a minute without one."""


class OverKafka:
    """The topics. Use in a ``with`` statement; raises what Kafka's clients raise, and ``producing.Unavailable``."""

    def __init__(self, settings: Settings, model: str) -> None:
        """Connects at the first use."""
        self._settings, self._model = settings, model
        self._open = ExitStack()

    def __enter__(self) -> Self:
        """Nothing is connected yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the connections."""
        self._open.close()

    def rehearse(self, wish: RetrainRequest) -> RetrainRequested:
        """The event that would be published, if the topic can be read."""
        reader.read_last(self._settings.kafka, self._settings.topics.retrain, 1)
        return wish.to_event(self._model)

    def ask(self, wish: RetrainRequest) -> Asked:
        """Publishes the event."""
        names = self._settings.topics
        with tracing.tracing_session("cli", self._settings.tracing), tracing.span("retrain.request"):
            event = wish.to_event(self._model)
        changes = self._open.enter_context(reader.tail(self._settings.kafka, names.models))
        with Publisher(self._settings.kafka, names, "cli") as publisher:
            publisher.publish(event)
        return Asked(event.id, _until_the_end(event.id, changes))


class OverHttp:
    """The trainer's API, for those who have its key. Use in a ``with`` statement."""

    def __init__(self, url: str, api_key: str) -> None:
        """Connects at the first use."""
        self._client = httpx.Client(base_url=url, headers={"X-API-Key": api_key}, timeout=SILENCE_SECONDS)

    def __enter__(self) -> Self:
        """Nothing is connected yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the connections."""
        self._client.close()

    def rehearse(self, wish: RetrainRequest) -> RetrainRequested:
        """The event that the trainer would publish, if key and wish are right. Raises :class:`Refused`, :class:`Away`.

        Nothing is published.
        """
        return RetrainRequested.model_validate_json(self._post("/retrain/dry-run", wish).content)

    def ask(self, wish: RetrainRequest) -> Asked:
        """Has the event published. Raises :class:`Refused` and :class:`Away`; then nothing may have been asked for."""
        retrain_id = str(self._post("/retrain", wish).json()["id"])
        return Asked(retrain_id, self._follow(retrain_id))

    def _post(self, path: str, wish: RetrainRequest) -> httpx.Response:
        try:
            answer = self._client.post(path, json=wish.model_dump(mode="json", exclude_defaults=True))
        except httpx.TransportError as error:
            raise Away(f"{type(error).__name__}: {error}") from error
        _check(answer)
        return answer

    def _follow(self, retrain_id: str) -> Iterator[ModelStateChanged | None]:
        """Goes on through broken connections and a trainer that is started anew; whoever asks limits the time.

        A connection begins with the states so far. Raises :class:`Refused`.
        """
        heard: set[str] = set()
        while True:
            try:
                with self._client.stream("GET", f"/retrain/{retrain_id}", params={"wait": True}) as answer:
                    if not answer.is_success:
                        answer.read()
                    _check(answer)
                    for line in answer.iter_lines():
                        change = ModelStateChanged.model_validate_json(line)
                        if change.id not in heard:
                            heard.add(change.id)
                            yield change
                        if change.is_final:
                            return
            except (httpx.TransportError, Away):
                pass  # its states stay on the topic
            yield None
            time.sleep(PAUSE_SECONDS)


def _check(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    said = _said(answer)
    if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise Away(said)
    raise Refused(said)


def _said(answer: httpx.Response) -> str:
    """What is wrong, in the API's words; a proxy may answer in its own."""
    try:
        detail = answer.json()["detail"]
        words = detail if isinstance(detail, str) else "; ".join(_problem(problem) for problem in detail)
    except (ValueError, KeyError, TypeError):
        words = answer.reason_phrase
    return f"{words} (HTTP {answer.status_code})"


def _problem(problem: dict[str, object]) -> str:
    place = problem["loc"]
    assert isinstance(place, list)
    return f"{'.'.join(str(part) for part in place[1:])}: {problem['msg']}".removeprefix(": ")


def _until_the_end(retrain_id: str, events: Iterator[object]) -> Iterator[ModelStateChanged | None]:
    for event in events:
        if event is None:
            yield None
        elif isinstance(event, ModelStateChanged) and event.retrain_id == retrain_id:
            yield event
            if event.is_final:
                return
