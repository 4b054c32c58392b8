"""The one way in: limits for every request; protocol, batch and answer for those for predictions, in this order.

Plain ASGI before the FastAPI application: a request's way through its routing and middleware costs more than all else
that is done for one row.
"""

import asyncio
import re
from collections.abc import Mapping
from datetime import datetime
from time import perf_counter

import structlog
from pydantic import TypeAdapter, ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from driftloop.events import Time, now
from predictor import metrics
from predictor.http.protocols.base import Problem, Reply, WireFormat
from predictor.http.protocols.native import Own
from predictor.outbox.outbox import NotKept, TooLarge
from predictor.serving.batching import Batcher, QueueFull
from predictor.serving.model_manager import Champion, Unscorable
from predictor.settings import Predictor

log = structlog.get_logger(__name__)

TIME_HEADER = b"driftloop-time"
RETRY_AFTER = b"2"  # seconds; a queue is empty again, and a version looked up, about then
VERSIONED = re.compile(r"(?P<before>/v2/models/[^/]+)/versions/(?P<version>[^/]+)(?P<after>/infer)")
OTHERS = Own()  # the words of what is no request for predictions
_time: TypeAdapter[datetime] = TypeAdapter(Time)


class Front:
    """Answers on the paths of the protocols, and hands everything else to the application, its body read."""

    def __init__(
        self,
        app: ASGIApp,
        paths: Mapping[str, WireFormat],
        champion: Champion,
        batcher: Batcher,
        model: str,
        settings: Predictor,
    ) -> None:
        """``paths`` says which protocol is spoken where."""
        self._app = app
        self._paths = paths
        self._champion = champion
        self._batcher = batcher
        self._model = model
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        protocol = self._paths.get(scope["path"]) or self._paths.get(self._without_version(scope["path"]))
        if protocol is None:
            await self._elsewhere(scope, receive, send)
            return
        began = perf_counter()
        status, version = 500, ""  # unless there is an answer
        try:
            status, version, reply = await self._reply(protocol, scope, receive)
            await _send(send, status, reply)
        finally:
            metrics.SECONDS.observe(perf_counter() - began)
            metrics.REQUESTS.labels(protocol.name, status, version).inc()

    async def _elsewhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self._body(dict(scope["headers"]), receive)
        except Problem as problem:
            await _send(send, problem.status, _refusal(OTHERS, problem))
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def once() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, once, send)

    @staticmethod
    def _without_version(path: str) -> str:
        versioned = VERSIONED.fullmatch(path)
        return versioned["before"] + versioned["after"] if versioned else path

    async def _reply(self, protocol: WireFormat, scope: Scope, receive: Receive) -> tuple[int, str, Reply]:
        try:
            version, reply = await self._answer(protocol, scope, receive)
        except Problem as problem:
            return problem.status, "", _refusal(protocol, problem)
        except Exception:
            log.exception("a request failed", path=scope["path"])
            return 500, "", _refusal(protocol, Problem(500, "the predictor failed; its log says why"))
        return 200, version, reply

    async def _answer(self, protocol: WireFormat, scope: Scope, receive: Receive) -> tuple[str, Reply]:
        if scope["method"] != "POST":
            raise Problem(405, "only POST is answered here")
        headers = dict(scope["headers"])
        body = await self._body(headers, receive)
        time = _happened(headers)
        serving = self._champion.serving
        if serving is None:
            raise Problem(503, "no version is in service; /readyz says why", retry=True)
        asked_for = VERSIONED.fullmatch(scope["path"])
        if asked_for and asked_for["version"] != serving.version:
            raise Problem(404, f"version {serving.version} is in service, and not version {asked_for['version']}")
        if protocol.slow:
            asked = await asyncio.to_thread(protocol.read, serving, body, headers)
        else:
            asked = protocol.read(serving, body, headers)
        most = self._settings.max_rows
        if not 0 < asked.rows <= most:
            raise Problem(
                422 if asked.rows else protocol.wrong,
                f"a request has 1 to {most} rows (DRIFTLOOP_PREDICTOR__MAX_ROWS), and this one {asked.rows}",
            )
        try:
            answer = await self._batcher.score(serving, asked.columns, asked.rows, time)
        except Unscorable as error:
            raise Problem(protocol.wrong, str(error)) from error
        except TooLarge as error:
            raise Problem(413, str(error)) from error
        except (QueueFull, NotKept) as error:
            raise Problem(503, str(error), retry=True) from error
        version = answer.serving.version
        reply = protocol.write(self._model, answer, asked)
        named = (b"driftloop-id", answer.id.encode()), (b"driftloop-version", version.encode())
        return version, reply._replace(headers=(*reply.headers, *named))

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """The whole body. Raises :class:`Problem` where it is too large, too slow, compressed or broken off."""
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise Problem(415, "compressed bodies are not read: send it as it is")
        limit = self._settings.max_body_bytes
        too_large = Problem(413, f"a body has at most {limit:,} bytes (DRIFTLOOP_PREDICTOR__MAX_BODY_BYTES)")
        if int(headers.get(b"content-length", b"0")) > limit:
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Problem(400, "the client went away before its request was complete")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise too_large
                    if not message.get("more_body", False):
                        break
        except TimeoutError as error:
            raise Problem(
                408,
                f"the request was not complete after {self._settings.body_seconds:g} s "
                "(DRIFTLOOP_PREDICTOR__BODY_SECONDS)",
            ) from error
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _refusal(protocol: WireFormat, problem: Problem) -> Reply:
    headers: list[tuple[bytes, bytes]] = []
    if problem.retry:
        headers.append((b"retry-after", RETRY_AFTER))
    if problem.status in (408, 413):  # what is left of the body will not be read
        headers.append((b"connection", b"close"))
    if problem.status == 405:
        headers.append((b"allow", b"POST"))
    return Reply(protocol.refuse(problem), tuple(headers))


async def _send(send: Send, status: int, reply: Reply) -> None:
    headers = [
        (b"content-type", reply.content_type),
        (b"content-length", b"%d" % len(reply.body)),
        *reply.headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def _happened(headers: Mapping[bytes, bytes]) -> datetime:
    """When the request's rows happened: now, unless a replay of the past says otherwise."""
    given = headers.get(TIME_HEADER)
    if given is None:
        return now()
    try:
        return _time.validate_python(given.decode("latin-1"))
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        detail = {"type": "time", "loc": ("header", "Driftloop-Time"), "msg": message}
        raise Problem(422, f"the header Driftloop-Time: {message}", [detail]) from error
