"""Traces that follow a request, a window or a retrain through the services. Off unless an endpoint is set.

While tracing is off, each function returns at once and OpenTelemetry's SDK is not imported. Between processes a trace
is continued by the W3C ``traceparent``: a header of a request, a header of a message, a field of an event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal

from driftloop.settings import InvalidSettings, TracingSettings

if TYPE_CHECKING:
    import httpx
    from starlette.types import ASGIApp

    from driftloop.telemetry.otel import OtelTracer

SpanKindName = Literal["internal", "server", "client", "producer", "consumer"]
AttributeValue = str | int | float | bool
NO_SPAN: AbstractContextManager[None] = nullcontext()

_tracer: OtelTracer | None = None


def start(service: str, settings: TracingSettings) -> None:
    """Start to trace this process as ``service``, if the settings have an endpoint.

    Raises:
        InvalidSettings: The endpoint is set, but OpenTelemetry is not installed.
    """
    global _tracer  # noqa: PLW0603  # one a process, like OpenTelemetry's current span
    if settings.endpoint is None:
        return
    try:
        from driftloop.telemetry.otel import OtelTracer  # noqa: PLC0415
    except ImportError as error:
        raise InvalidSettings(
            f"DRIFTLOOP_TRACING__ENDPOINT: install driftloop[tracing] to send traces, or unset it: {error}"
        ) from error
    _tracer = OtelTracer(service, settings.endpoint, settings.sample_ratio)


def stop() -> None:
    """Stop to trace; spans that have ended are exported for a few seconds at most."""
    global _tracer
    tracer, _tracer = _tracer, None
    if tracer is not None:
        tracer.close()


@contextmanager
def tracing_session(service: str, settings: TracingSettings) -> Iterator[None]:
    """Trace this process as ``service`` until the block ends.

    Raises:
        InvalidSettings: The endpoint is set, but OpenTelemetry is not installed.
    """
    start(service, settings)
    try:
        yield
    finally:
        stop()


def is_enabled() -> bool:
    """Return whether this process is traced."""
    return _tracer is not None


def current_traceparent() -> str | None:
    """Return the ``traceparent`` of the current span; ``None`` if there is none or if it is not sampled."""
    return None if _tracer is None else _tracer.current_traceparent()


def log_context() -> dict[str, str]:
    """Return ``trace_id`` and ``span_id`` of the current span, to be added to a log event; empty without a span."""
    return {} if _tracer is None else _tracer.log_context()


def span(
    name: str, kind: SpanKindName = "internal", parents: Iterable[str | None] = (), **attributes: AttributeValue
) -> AbstractContextManager[str | None]:
    """Open a span for the duration of the block; the block gets its ``traceparent``.

    An exception that leaves the block marks the span as failed.

    Args:
        name: What the span is called.
        kind: OpenTelemetry's kind of span.
        parents: ``traceparent`` of each span that the work is done for. The new span is a child of the first and is
            linked to the others, up to OpenTelemetry's limit of 128. Without parents it is a child of the current
            span, or starts a trace.
        **attributes: Attributes of the span; each name gets the prefix ``driftloop.``.
    """
    return NO_SPAN if _tracer is None else _tracer.span(name, kind, parents, attributes)


def set_attributes(**attributes: AttributeValue) -> None:
    """Set attributes of the current span; each name gets the prefix ``driftloop.``."""
    if _tracer is not None:
        _tracer.set_attributes(attributes)


def instrument_asgi(app: ASGIApp) -> ASGIApp:
    """Return ``app`` with a span for each POST, which continues the client's trace if the request has one."""
    return app if _tracer is None else _tracer.instrument_asgi(app)


def instrument_httpx(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Return ``client``, which now opens a span for each request and sends its ``traceparent``."""
    if _tracer is not None:
        _tracer.instrument_httpx(client)
    return client
