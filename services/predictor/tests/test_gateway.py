"""The gateway limits and forwards requests, and translates failures to the responses of each protocol."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.types import Message, Scope

from driftloop.events import new_event_id
from predictor.http.gateway import InferenceGateway
from predictor.http.protocols import protocols_by_path
from predictor.outbox.outbox import EventTooLarge, OutboxUnavailable
from predictor.serving.annotations import Annotations
from predictor.serving.batching import PredictionResult, QueueFull
from predictor.serving.serving_model import PredictionFailed
from predictor.settings import ServingSettings
from tests.support.predictor_app import StaticModelManager

BODY = b'{"instances": [{"x": 1.5, "n": 2}]}'


class FakeBatcher:
    """A batcher that scores at once in the caller's thread, or raises the error that a test sets."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.times: list[datetime] = []
        self.annotations: list[Annotations] = []

    async def submit(
        self,
        model: Any,
        columns: Any,
        row_count: int,  # noqa: ARG002
        time: datetime,
        annotations: Annotations,
    ) -> PredictionResult:
        self.times.append(time)
        self.annotations.append(annotations)
        if self.error:
            raise self.error
        output = model.predict(columns)
        return PredictionResult(new_event_id(), model, output, output.scores())


class Response:
    """A response as the server sends it."""

    def __init__(self, messages: list[Message]) -> None:
        start, body = messages
        self.status: int = start["status"]
        self.headers: dict[bytes, bytes] = dict(start["headers"])
        self.body: bytes = body["body"]


class Client:
    """Sends requests to a gateway; the application behind it echoes the body."""

    def __init__(self, manager: StaticModelManager, **settings: Any) -> None:
        self.manager, self.batcher = manager, FakeBatcher()
        double: Any = manager
        batcher: Any = self.batcher
        limits = ServingSettings(**{"max_rows": 3, **settings})
        self.gateway = InferenceGateway(self._echo, protocols_by_path("m"), double, batcher, "m", limits)

    async def _echo(self, _: Scope, receive: Any, send: Any) -> None:
        message = await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": message["body"]})

    def request(
        self, path: str = "/predict", *chunks: bytes, method: str = "POST", headers: dict[str, str] | None = None
    ) -> Response:
        chunks = chunks or (BODY,)
        messages = [
            {"type": "http.request", "body": chunk, "more_body": index < len(chunks)}
            for index, chunk in enumerate(chunks, 1)
        ]
        return self.receive(path, lambda: messages.pop(0), method, headers)

    def receive(
        self, path: str, next_message: Callable[[], Message | None], method: str = "POST", headers: Any = None
    ) -> Response:
        sent: list[Message] = []

        async def receive() -> Message:
            message = next_message()
            if message is None:
                await asyncio.sleep(60)
                raise AssertionError("unreachable")
            return message

        async def send(message: Message) -> None:
            sent.append(message)

        raw_headers = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        scope = {"type": "http", "path": path, "method": method, "headers": raw_headers}
        asyncio.run(self.gateway(scope, receive, send))
        return Response(sent)


@pytest.fixture
def client(manager: StaticModelManager) -> Client:
    return Client(manager)


def test_gateway_sends_id_and_version_with_predictions(client: Client) -> None:
    response = client.request()
    assert (response.status, response.headers[b"driftloop-version"]) == (200, b"7")
    assert response.headers[b"driftloop-id"] in response.body


def test_gateway_reads_a_body_in_chunks(client: Client) -> None:
    assert client.request("/predict", BODY[:10], BODY[10:]).status == 200


def test_gateway_forwards_other_paths_with_their_whole_body(client: Client) -> None:
    response = client.request("/outcomes", b"ab", b"cd")
    assert (response.status, response.body) == (200, b"abcd")


@pytest.mark.parametrize("path", ["/predict", "/outcomes"])
def test_gateway_limits_the_body_of_every_request(manager: StaticModelManager, path: str) -> None:
    client = Client(manager, max_body_bytes=40)
    response = client.request(path, BODY, b"      ")
    assert (response.status, response.headers[b"connection"]) == (413, b"close")
    assert client.request(path, BODY, headers={"Content-Length": "41"}).status == 413


def test_gateway_limits_the_time_of_a_body(manager: StaticModelManager) -> None:
    client = Client(manager, body_timeout_seconds=0.05)
    response = client.receive("/predict", lambda: None)
    assert (response.status, response.headers[b"connection"]) == (408, b"close")


def test_gateway_ends_a_request_whose_client_disconnects(client: Client) -> None:
    assert client.receive("/predict", lambda: {"type": "http.disconnect"}).status == 400


def test_gateway_refuses_compressed_bodies(client: Client) -> None:
    assert client.request(headers={"Content-Encoding": "gzip"}).status == 415


def test_gateway_allows_only_post(client: Client) -> None:
    response = client.request(method="GET")
    assert (response.status, response.headers[b"allow"]) == (405, b"POST")


def test_gateway_without_a_version_asks_to_retry(client: Client) -> None:
    client.manager.serving = None
    response = client.request()
    assert (response.status, response.headers[b"retry-after"]) == (503, b"2")


@pytest.mark.parametrize(("version", "status"), [("7", 400), ("8", 404)])
def test_gateway_serves_only_the_named_version(client: Client, version: str, status: int) -> None:
    # The body is no tensor request, so that the right version is a 400.
    assert client.request(f"/v2/models/m/versions/{version}/infer").status == status


@pytest.mark.parametrize(
    ("error", "path", "status", "retryable"),
    [
        (PredictionFailed("not finite"), "/predict", 422, False),
        (PredictionFailed("not finite"), "/v1/models/m:predict", 400, False),
        (EventTooLarge("large"), "/predict", 413, False),
        (QueueFull("full"), "/predict", 503, True),
        (OutboxUnavailable("full"), "/predict", 503, True),
        (ZeroDivisionError("a bug"), "/predict", 500, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_gateway_translates_failures_of_the_batcher(
    client: Client, error: Exception, path: str, status: int, retryable: bool
) -> None:
    client.batcher.error = error
    response = client.request(path)
    assert (response.status, b"retry-after" in response.headers) == (status, retryable)
    assert b"a bug" not in response.body


@pytest.mark.parametrize(("rows", "status"), [(0, 422), (3, 200), (4, 422)])
def test_gateway_limits_rows(client: Client, rows: int, status: int) -> None:
    body = b'{"instances": [' + b",".join([b'{"x": 1.5, "n": 2}'] * rows) + b"]}"
    assert client.request("/predict", body).status == status


def test_gateway_takes_the_event_time_from_the_header(client: Client) -> None:
    assert client.request(headers={"Driftloop-Time": "2013-07-01T05:00:00Z"}).status == 200
    assert client.batcher.times == [datetime(2013, 7, 1, 5, tzinfo=UTC)]
    assert client.request(headers={"Driftloop-Time": "yesterday"}).status == 422
