"""What the HTTP interfaces of all services have in common: they answer HEAD, and no foreign web page writes to them.

Plain ASGI, because the predictor's fast path has no room for a framework's middleware.
"""

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from driftloop.setting_values import ANY_ORIGIN

READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def answer_head(app: ASGIApp) -> ASGIApp:
    """Return ``app`` with HEAD wherever it has GET: the same status and headers, without a body."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await app(scope, receive, send)
            return

        async def send_headers(message: Message) -> None:
            # The response ends here, so that a server also ends a stream that would go on.
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body"})

        await app({**scope, "method": "GET"}, receive, send_headers)

    return answer


def refuse_foreign_pages(app: ASGIApp, allowed_origins: Collection[str] = (), hint: str = "") -> ASGIApp:
    """Return ``app`` with a 403 for requests by which a web page of another host would write.

    A browser sends such requests to any address that it reaches, such as one on localhost, and names the page's origin
    in a header. Other clients send no such header.

    Args:
        app: The application.
        allowed_origins: Origins of other hosts whose pages may write; ``*`` stands for all.
        hint: What to do about a 403, for its message.
    """

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in READING_METHODS:
            foreign = [origin for origin in _headers(scope, b"origin") if not is_allowed(origin, scope)]
            if foreign:
                message = f"a web page of {foreign[0]} must not write here{hint}"
                await JSONResponse({"detail": message}, 403)(scope, receive, send)
                return
        await app(scope, receive, send)

    def is_allowed(origin: str, scope: Scope) -> bool:
        return origin in allowed_origins or ANY_ORIGIN in allowed_origins or _host(origin) in _headers(scope, b"host")

    return refuse


def _headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1").lower() for header, value in scope["headers"] if header == name]


def _host(origin: str) -> str | None:
    """Return host and port of an origin as the header ``Host`` has them; ``None`` for an opaque origin."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
