"""Traces in one process: what starts one, how it is propagated, and that tracing does nothing while it is off."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from starlette.types import Message, Receive, Scope, Send

from driftloop.events import Outcome
from driftloop.kafka.codec import decode, encode
from driftloop.settings import TracingSettings
from driftloop.telemetry import tracing
from tests.support.otlp_collector import Collector, running_collector

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_SAMPLED = f"{SAMPLED[:-2]}00"


@pytest.fixture
def received() -> Iterator[Collector]:
    with running_collector() as received:
        yield received


def outcome() -> Outcome:
    return Outcome(prediction_id="p", index=0, outcome=1, traceparent=tracing.current_traceparent())


def test_tracing_without_an_endpoint_does_nothing_and_imports_no_sdk() -> None:
    code = """
import sys
from driftloop import events
from driftloop.kafka import consumer_loop
from driftloop.telemetry import health, tracing
from driftloop.settings import TracingSettings
with tracing.tracing_session("test", TracingSettings()), tracing.span("work", parents=["00-0-0-01"]) as traceparent:
    tracing.set_attributes(more=1)
    assert (traceparent, tracing.current_traceparent(), tracing.log_context()) == (None, None, {})
    assert tracing.instrument_asgi(len) is len
assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")]  # FastAPI has the API
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_event_carries_the_span_it_was_created_in_as_headers(received: Collector) -> None:
    with (
        tracing.tracing_session("test", TracingSettings(endpoint=received.url)),
        tracing.span("work", window="w") as traceparent,
    ):
        message = encode(outcome(), "test")
        assert tracing.log_context()["trace_id"] in str(traceparent)
    headers = dict(message.headers)
    assert headers["traceparent"].decode() == headers["ce_traceparent"].decode() == traceparent
    assert b"traceparent" not in (message.value or b"")
    assert decode(message.value, message.headers).traceparent == traceparent
    (span,) = received.spans
    assert (span.service, span.name, span.attributes) == ("test", "work", {"driftloop.window": "w"})
    assert str(traceparent).startswith(f"00-{span.trace}-{span.id}-")


def test_event_of_another_producer_has_the_trace_of_its_headers_or_none(received: Collector) -> None:
    plain = encode(outcome(), "test")
    with tracing.tracing_session("test", TracingSettings(endpoint=received.url)), tracing.span("reads"):
        assert decode(plain.value, plain.headers).traceparent is None
        for name in ("traceparent", "ce_traceparent"):
            assert decode(plain.value, [*plain.headers, (name, SAMPLED.encode())]).traceparent == SAMPLED
            for wrong in (b"", b"no trace", b"\xff", SAMPLED.upper().encode()):
                assert decode(plain.value, [*plain.headers, (name, wrong)]).traceparent is None


def test_span_with_several_parents_is_a_child_of_the_first_and_linked_to_the_others(received: Collector) -> None:
    with tracing.tracing_session("test", TracingSettings(endpoint=received.url)):
        parents = []
        for _ in range(3):
            with tracing.span("request") as traceparent:
                parents.append(str(traceparent))
        with tracing.span("batch", parents=[parents[0], None, "no trace", *parents[1:]]):
            pass
        with tracing.span("alone", parents=["no trace"]):
            pass
    requests, batch, alone = received.spans[:3], received.spans[3], received.spans[4]
    assert (batch.trace, batch.parent) == (requests[0].trace, requests[0].id)
    assert batch.links == [requests[1].key, requests[2].key]
    assert (alone.parent, alone.links) == ("", [])


def test_exception_that_leaves_a_span_marks_it_as_failed(received: Collector) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        tracing.tracing_session("test", TracingSettings(endpoint=received.url)),
        tracing.span("work"),
    ):
        raise ZeroDivisionError
    assert [span.failed for span in received.spans] == [True]


@pytest.mark.parametrize(
    ("ratio", "traceparent", "traced"),
    [(0, None, False), (1, None, True), (0, SAMPLED, True), (1, NOT_SAMPLED, False), (0, "no trace", False)],
)
def test_request_is_sampled_by_ratio_or_as_its_traceparent_says(
    received: Collector, ratio: float, traceparent: str | None, traced: bool
) -> None:
    inside: list[str | None] = []

    async def app(_: Scope, __: Receive, send: Send) -> None:
        inside.append(tracing.current_traceparent())
        headers = [(b"driftloop-id", b"i"), (b"driftloop-version", b"7")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    request(app, TracingSettings(endpoint=received.url, sample_ratio=ratio), traceparent)
    assert [current is not None for current in inside] == [traced]
    assert len(received.spans) == traced
    for span in received.spans:
        assert (span.name, span.kind, span.failed) == ("POST /predict", "SERVER", False)
        assert span.attributes["driftloop.event_id"] == "i"
        assert span.attributes["driftloop.version"] == "7"
        assert span.attributes["http.response.status_code"] == 200
        assert (span.trace, span.parent) == ((SAMPLED[3:35], SAMPLED[36:52]) if traceparent else (span.trace, ""))


def test_unknown_path_is_not_a_span_name_and_a_server_error_marks_the_span_as_failed(received: Collector) -> None:
    for status in (404, 500):

        async def app(_: Scope, __: Receive, send: Send, status: int = status) -> None:
            await send({"type": "http.response.start", "status": status, "headers": []})

        request(app, TracingSettings(endpoint=received.url, sample_ratio=1), None)
    assert [(span.name, span.failed) for span in received.spans] == [("POST", False), ("POST /predict", True)]


def test_unreachable_collector_delays_nothing_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with tracing.tracing_session("test", TracingSettings(endpoint="http://127.0.0.1:9")), tracing.span("work"):
        pass
    assert not tracing.is_enabled()
    assert "Connection" in caplog.text


def request(app: object, settings: TracingSettings, traceparent: str | None) -> None:
    """Send one request to an instrumented application."""
    headers = [(b"traceparent", traceparent.encode())] if traceparent else []
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers}

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(_: Message) -> None:
        return None

    with tracing.tracing_session("test", settings):
        asyncio.run(tracing.instrument_asgi(app)(scope, receive, send))  # type: ignore[arg-type]  # a minimal scope
