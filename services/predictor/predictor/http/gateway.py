"""The gateway in front of the API: it limits every request, and serves prediction requests itself.

It is plain ASGI in front of the FastAPI application, because routing and middleware cost more than everything else
that is done for a request of one row.
"""

import asyncio
import re
from collections.abc import Mapping
from datetime import datetime
from time import perf_counter
from traceback import format_tb

import structlog
from pydantic import TypeAdapter, ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from driftloop.events import EventTime, RowKey, now
from driftloop.privacy import NO_PRIVACY, Privacy
from predictor import metrics
from predictor.http.protocols.base import DecodedRequest, EncodedResponse, InferenceProtocol, RequestError
from predictor.http.protocols.native import NativeProtocol
from predictor.http.recent_requests import RecentRequests
from predictor.outbox.outbox import EventTooLarge, OutboxUnavailable
from predictor.serving.annotations import Annotations, InvalidAnnotations
from predictor.serving.batching import Batcher, PredictionResult, QueueFull
from predictor.serving.model_manager import ModelManager
from predictor.serving.serving_model import PredictionFailed, ServingModel
from predictor.settings import ServingSettings

log = structlog.get_logger(__name__)

TIME_HEADER = b"driftloop-time"
KEY_HEADER = b"driftloop-key"
RETRY_AFTER_SECONDS = b"2"  # by then a queue is usually empty again, and the alias has been looked up
VERSIONED_INFER_PATH = re.compile(r"(?P<prefix>/v2/models/[^/]+)/versions/(?P<version>[^/]+)(?P<suffix>/infer)")
DEFAULT_PROTOCOL = NativeProtocol()  # encodes the errors of requests that are not for predictions
_time_adapter: TypeAdapter[datetime] = TypeAdapter(EventTime)
_key_adapter: TypeAdapter[str] = TypeAdapter(RowKey)


class InferenceGateway:
    """Serves prediction requests, and forwards all others to the application once their body has been read."""

    def __init__(
        self,
        app: ASGIApp,
        protocols: Mapping[str, InferenceProtocol],
        manager: ModelManager,
        batcher: Batcher,
        model_name: str,
        settings: ServingSettings,
        privacy: Privacy = NO_PRIVACY,
    ) -> None:
        """Create the gateway.

        Args:
            app: Serves all other requests.
            protocols: The protocol of each path that takes prediction requests.
            manager: Has the model in service.
            batcher: Scores the rows.
            model_name: The registered model's name.
            settings: The limits of a request.
            privacy: Decides whether exceptions, which may quote values, are logged with their message.
        """
        self._app = app
        self._protocols = protocols
        self._manager = manager
        self._requests = RecentRequests(batcher, settings.repeat_window_seconds)
        self._model_name = model_name
        self._settings = settings
        self._privacy = privacy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection, as ASGI specifies."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        protocol = self._protocols.get(scope["path"]) or self._protocols.get(self._strip_version(scope["path"]))
        if protocol is None:
            await self._forward(scope, receive, send)
            return
        started = perf_counter()
        status, version = 500, ""  # counted if the client disconnects before it has a response
        try:
            status, version, response = await self._respond(protocol, scope, receive)
            await _send(send, status, response)
        finally:
            metrics.REQUEST_SECONDS.observe(perf_counter() - started)
            metrics.REQUESTS.labels(protocol.name, status, version).inc()

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read and limit the body, then hand the request to the application."""
        try:
            body = await self._read_body(dict(scope["headers"]), receive)
        except RequestError as error:
            await _send(send, error.status, _error_response(DEFAULT_PROTOCOL, error))
            return
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_body_first() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(scope, receive_body_first, send)

    @staticmethod
    def _strip_version(path: str) -> str:
        match = VERSIONED_INFER_PATH.fullmatch(path)
        return match["prefix"] + match["suffix"] if match else path

    async def _respond(
        self, protocol: InferenceProtocol, scope: Scope, receive: Receive
    ) -> tuple[int, str, EncodedResponse]:
        """Return status, serving version (empty without predictions) and response. Does not raise."""
        try:
            version, response = await self._predict(protocol, scope, receive)
        except RequestError as error:
            return error.status, "", _error_response(protocol, error)
        except Exception as error:  # noqa: BLE001  # a defect, of whatever kind: the client gets an answer
            reason = self._privacy.describe_error(error)
            frames = format_tb(error.__traceback__)  # without the message, and without the errors that led to it
            log.error("request.failed", path=scope["path"], error=reason, trace="".join(frames))
            return 500, "", _error_response(protocol, RequestError(500, "internal error; see the predictor's log"))
        return 200, version, response

    async def _predict(
        self, protocol: InferenceProtocol, scope: Scope, receive: Receive
    ) -> tuple[str, EncodedResponse]:
        """Return serving version and response.

        Raises:
            RequestError: There are no predictions for this request.
        """
        if scope["method"] != "POST":
            raise RequestError(405, "only the method POST is allowed here")
        headers = dict(scope["headers"])
        body = await self._read_body(headers, receive)
        time = _event_time(headers)
        model = self._serving_model(scope["path"])
        try:
            if protocol.blocking:
                request = await asyncio.to_thread(protocol.decode, model, body, headers)
            else:
                request = protocol.decode(model, body, headers)
            self._require_row_count(protocol, request.row_count)
            request = request._replace(annotations=_annotations(request, headers))
        except InvalidAnnotations as error:
            detail = {"type": "annotations", "loc": error.place, "msg": str(error)}
            raise RequestError(protocol.invalid_status, str(error), [detail]) from error
        result = await self._score(protocol, model, request, time)
        version = result.model.version
        response = protocol.encode(self._model_name, result, request)
        id_headers = (b"driftloop-id", result.id.encode()), (b"driftloop-version", version.encode())
        return version, response._replace(headers=(*response.headers, *id_headers))

    def _serving_model(self, path: str) -> ServingModel:
        """Return the model in service, which a path with a version must name."""
        model = self._manager.serving
        if model is None:
            raise RequestError(503, "no version is in service; /readyz says why", retryable=True)
        match = VERSIONED_INFER_PATH.fullmatch(path)
        if match and match["version"] != model.version:
            raise RequestError(404, f"version {model.version} is in service, not version {match['version']}")
        return model

    def _require_row_count(self, protocol: InferenceProtocol, row_count: int) -> None:
        max_rows = self._settings.max_rows
        if not 0 < row_count <= max_rows:
            raise RequestError(
                422 if row_count else protocol.invalid_status,
                f"a request has 1 to {max_rows} rows (DRIFTLOOP_PREDICTOR__MAX_ROWS), and this one has {row_count}",
            )

    async def _score(
        self, protocol: InferenceProtocol, model: ServingModel, request: DecodedRequest, time: datetime
    ) -> PredictionResult:
        try:
            return await self._requests.submit(model, request.columns, request.row_count, time, request.annotations)
        except PredictionFailed as error:
            raise RequestError(protocol.invalid_status, str(error)) from error
        except EventTooLarge as error:
            raise RequestError(413, str(error)) from error
        except (QueueFull, OutboxUnavailable) as error:
            raise RequestError(503, str(error), retryable=True) from error

    async def _read_body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Return the whole body.

        Raises:
            RequestError: The body is too large, too slow, compressed or incomplete.
        """
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise RequestError(415, "compressed bodies are not supported: send the body without Content-Encoding")
        max_bytes = self._settings.max_body_bytes
        too_large = RequestError(413, f"a body has at most {max_bytes:,} bytes (DRIFTLOOP_PREDICTOR__MAX_BODY_BYTES)")
        if int(headers.get(b"content-length", b"0")) > max_bytes:
            raise too_large
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._settings.body_timeout_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RequestError(400, "the client disconnected before its request was complete")
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    if size > max_bytes:
                        raise too_large
                    if not message.get("more_body", False):
                        break
        except TimeoutError as error:
            raise RequestError(
                408,
                f"the request was not complete after {self._settings.body_timeout_seconds:g} s "
                "(DRIFTLOOP_PREDICTOR__BODY_TIMEOUT_SECONDS)",
            ) from error
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _error_response(protocol: InferenceProtocol, error: RequestError) -> EncodedResponse:
    headers: list[tuple[bytes, bytes]] = []
    if error.retryable:
        headers.append((b"retry-after", RETRY_AFTER_SECONDS))
    if error.status in (408, 413):  # the rest of the body will not be read
        headers.append((b"connection", b"close"))
    if error.status == 405:
        headers.append((b"allow", b"POST"))
    return EncodedResponse(protocol.encode_error(error), tuple(headers))


async def _send(send: Send, status: int, response: EncodedResponse) -> None:
    headers = [
        (b"content-type", response.content_type),
        (b"content-length", b"%d" % len(response.body)),
        *response.headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


def _annotations(request: DecodedRequest, headers: Mapping[bytes, bytes]) -> Annotations:
    """Return keys and context of a request; the header, or else its id, is the key of a request of one row.

    Raises:
        InvalidAnnotations: They do not fit the rows, or the key is invalid.
    """
    annotations = request.annotations
    if (value := headers.get(KEY_HEADER)) is not None:
        place = ("header", "Driftloop-Key")
        if annotations.keys is not None:
            raise InvalidAnnotations(place, "the body has keys as well")
        if request.row_count != 1:
            raise InvalidAnnotations(place, f"it is the key of one row, and the request has {request.row_count}")
        annotations = annotations._replace(keys=[_validated_key(value, place)])
    elif annotations.keys is None and request.id and request.row_count == 1:
        annotations = annotations._replace(keys=[_validated_key(request.id.encode(), ("body", "id"))])
    annotations.require_row_count(request.row_count)
    return annotations


def _validated_key(value: bytes, place: tuple[str, str]) -> str:
    try:
        return _key_adapter.validate_python(value.decode())
    except (ValidationError, UnicodeDecodeError) as error:
        message = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "it is not valid UTF-8"
        raise InvalidAnnotations(place, message) from error


def _event_time(headers: Mapping[bytes, bytes]) -> datetime:
    """Return the event time of the request: now, or the time in the header, which replays of the past send.

    Raises:
        RequestError: The header is not a valid time.
    """
    value = headers.get(TIME_HEADER)
    if value is None:
        return now()
    try:
        return _time_adapter.validate_python(value.decode("latin-1"))
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        detail = {"type": "time", "loc": ("header", "Driftloop-Time"), "msg": message}
        raise RequestError(422, f"the header Driftloop-Time: {message}", [detail]) from error
