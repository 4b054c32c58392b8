"""Traces: the way of a request, of a window or of a retrain through the services. Off unless they are sent somewhere.

Off, each function here returns at once, and OpenTelemetry's SDK is never imported. Between processes a trace goes on as
W3C's ``traceparent``: a header of a request, a header of a message, a field of an event.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal

from driftloop.settings import Tracing

if TYPE_CHECKING:
    import httpx
    from starlette.types import ASGIApp

    from driftloop.telemetry.otel import Spans

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attribute = str | int | float | bool
OFF: AbstractContextManager[None] = nullcontext()

_spans: Spans | None = None


def start(service: str, settings: Tracing) -> None:
    """Sends what this process does as traces of ``service``, where the settings say to where.

    Without OpenTelemetry it says what to install, and ends the process (exit code 2).
    """
    global _spans  # noqa: PLW0603  # one a process, as the place of the current span is
    if settings.endpoint is None:
        return
    try:
        from driftloop.telemetry.otel import Spans  # noqa: PLC0415
    except ImportError as error:
        print(f"DRIFTLOOP_TRACING__ENDPOINT needs driftloop's extra `tracing`: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    _spans = Spans(service, settings.endpoint, settings.share)


def stop() -> None:
    """Sends what has ended, for a few seconds at most, and nothing from then on."""
    global _spans
    ended, _spans = _spans, None
    if ended is not None:
        ended.close()


@contextmanager
def running(service: str, settings: Tracing) -> Iterator[None]:
    """What the block does is traced: :func:`start` before it, :func:`stop` behind it."""
    start(service, settings)
    try:
        yield
    finally:
        stop()


def on() -> bool:
    """Whether anything is traced here."""
    return _spans is not None


def current() -> str | None:
    """The ``traceparent`` of the span that is under way; ``None`` where none is, or none that is sent."""
    return None if _spans is None else _spans.current()


def ids() -> dict[str, str]:
    """``trace_id`` and ``span_id`` of the span that is under way, for a line of the log; empty where there is none."""
    return {} if _spans is None else _spans.ids()


def span(
    name: str, kind: Kind = "internal", of: Iterable[str | None] = (), **attributes: Attribute
) -> AbstractContextManager[str | None]:
    """A span as long as the block; gives its ``traceparent``. An exception that leaves the block is its error.

    ``of`` are the spans, by their ``traceparent``, that the work is done for: it is a child of the first, and is linked
    to the others (as many as OpenTelemetry's limit allows: 128). Without any it is a child of the span under way, or
    begins a trace.
    """
    return OFF if _spans is None else _spans.span(name, kind, of, attributes)


def tell(**attributes: Attribute) -> None:
    """More of the span that is under way."""
    if _spans is not None:
        _spans.tell(attributes)


def served(app: ASGIApp) -> ASGIApp:
    """The application, with a span for each POST: it goes on with the trace of who asks."""
    return app if _spans is None else _spans.served(app)


def asking(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """The client, with a span for each request, which hands the trace on."""
    if _spans is not None:
        _spans.instrument(client)
    return client
