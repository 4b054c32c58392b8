"""Request a retrain and follow its states: over Kafka, or over the trainer's HTTP API from outside of the network.

Both clients return the retrain's id and an iterator over its states.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from http import HTTPStatus
from typing import NamedTuple, Self

import httpx
from pydantic import TypeAdapter, ValidationError

from driftloop.errors import Rejected, TrainerUnavailable
from driftloop.events import ModelStateChanged, RetrainRequest, RetrainRequested
from driftloop.kafka import reader
from driftloop.kafka.publisher import Publisher
from driftloop.retrain_states import states_or_retrain_before, states_until_final
from driftloop.retrain_summary import RetrainSummary
from driftloop.telemetry import tracing
from driftloop_cli.settings import CliSettings

READ_TIMEOUT_SECONDS = 30  # three heartbeats of the trainer; an idle proxy may have dropped the connection silently
RECONNECT_DELAY_SECONDS = 2
RECENT_OFFSETS = 200  # of the topics of states and retrains, for what is trained when a retrain is requested
LIST_OF_SUMMARIES = TypeAdapter(list[RetrainSummary])


class RetrainRequestRejected(Rejected):
    """The trainer rejects the API key or the request; the message says why."""


class SubmittedRetrain(NamedTuple):
    """A retrain that has been requested: its id, and its states as they come."""

    id: str
    states: Iterator[ModelStateChanged | RetrainSummary | None]
    """The retrain's states up to the final one. At least every 30 seconds without a state there is a ``None``, or,
    before the first state, a summary of another retrain that is being trained."""


class KafkaRetrainClient:
    """Publishes the request to the topic of retrains. Use in a ``with`` statement.

    All methods raise :class:`~driftloop.errors.BrokerUnavailable`.
    """

    def __init__(self, settings: CliSettings) -> None:
        """Remember the broker and the model; the first request connects."""
        self.settings = settings
        self.model = settings.registry.model
        self.trainer_group = settings.trainer_group(self.model)
        self._open_connections = ExitStack()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self._open_connections.close()

    def trainer_runs(self) -> bool | None:
        """Return whether a trainer of the model runs; ``None`` if the broker does not let us know."""
        return reader.has_members(self.settings.kafka, self.trainer_group)

    def dry_run(self, request: RetrainRequest) -> RetrainRequested:
        """Return the event that would be published, after checking that the topic can be read."""
        reader.read_last(self.settings.kafka, self.settings.topics.retrain, 1)
        return request.to_event(self.model)

    def submit(self, request: RetrainRequest) -> SubmittedRetrain:
        """Publish the request.

        Raises:
            InvalidSettings: Tracing is on, but OpenTelemetry is not installed.
        """
        topics = self.settings.topics
        with tracing.tracing_session("cli", self.settings.tracing), tracing.span("retrain.request"):
            event = request.to_event(self.model, tracing.current_traceparent())
        # The reader is connected before the request is published, so that it misses no state.
        tail = reader.tail(self.settings.kafka, topics.models, last=RECENT_OFFSETS)
        model_events = self._open_connections.enter_context(tail)
        with Publisher(self.settings.kafka, topics, "cli") as publisher:
            publisher.publish(event)
        return SubmittedRetrain(event.id, states_or_retrain_before(event, model_events, self._recent_requests))

    def _recent_requests(self) -> dict[str, RetrainRequested]:
        events = reader.read_last(self.settings.kafka, self.settings.topics.retrain, RECENT_OFFSETS)
        return {event.id: event for event in events if isinstance(event, RetrainRequested)}


class HttpRetrainClient:
    """Sends the request to the trainer's API. Use in a ``with`` statement."""

    def __init__(self, url: str, api_key: str) -> None:
        """Remember the trainer's URL and key; the first request connects."""
        self._url = url
        self._client = httpx.Client(base_url=url, headers={"X-API-Key": api_key}, timeout=READ_TIMEOUT_SECONDS)

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self._client.close()

    def dry_run(self, request: RetrainRequest) -> RetrainRequested:
        """Return the event that the trainer would publish. Nothing is published.

        Raises:
            RetrainRequestRejected: The key or the request is wrong.
            TrainerUnavailable: The trainer does not answer.
        """
        return RetrainRequested.model_validate_json(self._post("/retrain/dry-run", request).content)

    def submit(self, request: RetrainRequest) -> SubmittedRetrain:
        """Submit the request.

        Raises:
            RetrainRequestRejected: The key or the request is wrong.
            TrainerUnavailable: The trainer does not answer. The request may or may not have been published.
        """
        retrain_id = str(self._post("/retrain", request).json()["id"])
        return SubmittedRetrain(retrain_id, self._states_or_retrain_before(retrain_id))

    def _states_or_retrain_before(self, retrain_id: str) -> Iterator[ModelStateChanged | RetrainSummary | None]:
        waits = True
        for state in states_until_final(retrain_id, self._stream_states(retrain_id)):
            waits = waits and state is None
            yield self._retrain_before(retrain_id) if waits else state

    def _retrain_before(self, retrain_id: str) -> RetrainSummary | None:
        """Return the retrain that one waits for; None if there is none, or if the trainer does not say."""
        try:
            response = self._client.get("/retrain", params={"limit": RECENT_OFFSETS})
            summaries = LIST_OF_SUMMARIES.validate_json(response.raise_for_status().content)
        except (httpx.HTTPError, ValidationError):
            return None  # it is only asked for people who wait
        by_id = {summary.retrain_id: summary for summary in summaries}
        waiting = by_id.get(retrain_id)
        return None if waiting is None or waiting.waits_for is None else by_id.get(waiting.waits_for)

    def _post(self, path: str, request: RetrainRequest) -> httpx.Response:
        try:
            response = self._client.post(path, json=request.model_dump(mode="json", exclude_defaults=True))
        except httpx.TransportError as error:
            raise TrainerUnavailable(
                f"no answer from the trainer at {self._url} (--trainer-url): {type(error).__name__}: {error}"
            ) from error
        self._raise_for_status(response)
        return response

    def _stream_states(self, retrain_id: str) -> Iterator[ModelStateChanged | None]:
        """Yield the retrain's states without end, and ``None`` for each heartbeat and before each new connection.

        Reconnects for as long as the trainer is unavailable: the caller limits the time. Every connection starts with
        the first state again: the caller leaves out those that it has seen.

        Raises:
            RetrainRequestRejected: The key is wrong, or the trainer does not know the retrain.
        """
        while True:
            try:
                with self._client.stream("GET", f"/retrain/{retrain_id}", params={"wait": True}) as response:
                    if not response.is_success:
                        response.read()
                    self._raise_for_status(response)
                    for line in response.iter_lines():
                        yield ModelStateChanged.model_validate_json(line) if line else None
            except (httpx.TransportError, TrainerUnavailable):
                pass  # no state is lost: the trainer reads all of them from the topic again
            yield None
            time.sleep(RECONNECT_DELAY_SECONDS)

    def _raise_for_status(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        message = f"the trainer at {self._url} responds: {_error_message(response)}"
        if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise TrainerUnavailable(message)
        raise RetrainRequestRejected(message)


def _error_message(response: httpx.Response) -> str:
    """Return the API's error message; a proxy's response has none, so its reason phrase is used."""
    try:
        detail = response.json()["detail"]
        text = detail if isinstance(detail, str) else "; ".join(map(_format_validation_error, detail))
    except (ValueError, KeyError, TypeError):
        text = response.reason_phrase
    return f"{text} (HTTP {response.status_code})"


def _format_validation_error(error: dict[str, object]) -> str:
    location = error["loc"]  # begins with "body" or "query"
    if not isinstance(location, list):
        raise TypeError(f"the location of a validation error is {location!r}")
    return f"{'.'.join(str(part) for part in location[1:])}: {error['msg']}".removeprefix(": ")
