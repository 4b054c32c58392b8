"""Traces, in one process: what begins one, what is handed on, and that all of it is nothing while it is off."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from starlette.types import Message, Receive, Scope, Send

from driftloop.events import Outcome
from driftloop.kafka.codec import read, write
from driftloop.settings import Tracing
from driftloop.telemetry import tracing
from tests.support.otlp_collector import Collector, collector

SENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_SENT = f"{SENT[:-2]}00"


@pytest.fixture
def taken() -> Iterator[Collector]:
    with collector() as taken:
        yield taken


def outcome() -> Outcome:
    return Outcome(prediction_id="p", index=0, outcome=1)


def test_without_an_endpoint_nothing_is_traced_and_no_sdk_is_imported() -> None:
    code = """
import sys
from driftloop import events
from driftloop.kafka import consumer_loop
from driftloop.telemetry import health, tracing
from driftloop.settings import Tracing
with tracing.running("test", Tracing()), tracing.span("work", of=["00-0-0-01"]) as traceparent:
    tracing.tell(more=1)
    assert (traceparent, tracing.current(), tracing.ids()) == (None, None, {})
    assert tracing.served(len) is len
assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")]  # FastAPI has the API
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_event_carries_the_span_that_it_was_made_in_as_headers(taken: Collector) -> None:
    with tracing.running("test", Tracing(endpoint=taken.url)), tracing.span("work", window="w") as traceparent:
        message = write(outcome(), "test")
        assert tracing.ids()["trace_id"] in str(traceparent)
    headers = dict(message.headers)
    assert headers["traceparent"].decode() == headers["ce_traceparent"].decode() == traceparent
    assert b"traceparent" not in (message.value or b"")
    assert read(message.value, message.headers).traceparent == traceparent
    (span,) = taken.spans
    assert (span.service, span.name, span.attributes) == ("test", "work", {"driftloop.window": "w"})
    assert str(traceparent).startswith(f"00-{span.trace}-{span.id}-")


def test_an_event_from_elsewhere_has_the_trace_of_its_headers_or_none(taken: Collector) -> None:
    plain = write(outcome(), "test")
    with tracing.running("test", Tracing(endpoint=taken.url)), tracing.span("reads"):
        assert read(plain.value, plain.headers).traceparent is None
        for name in ("traceparent", "ce_traceparent"):
            assert read(plain.value, [*plain.headers, (name, SENT.encode())]).traceparent == SENT
            for wrong in (b"", b"no trace", b"\xff", SENT.upper().encode()):
                assert read(plain.value, [*plain.headers, (name, wrong)]).traceparent is None


def test_work_for_several_is_a_child_of_the_first_and_linked_to_the_others(taken: Collector) -> None:
    with tracing.running("test", Tracing(endpoint=taken.url)):
        others = []
        for _ in range(3):
            with tracing.span("asks") as traceparent:
                others.append(str(traceparent))
        with tracing.span("batch", of=[others[0], None, "no trace", *others[1:]]):
            pass
        with tracing.span("alone", of=["no trace"]):
            pass
    asks, batch, alone = taken.spans[:3], taken.spans[3], taken.spans[4]
    assert (batch.trace, batch.parent) == (asks[0].trace, asks[0].id)
    assert batch.links == [asks[1].key, asks[2].key]
    assert (alone.parent, alone.links) == ("", [])


def test_an_error_that_leaves_a_span_is_the_spans(taken: Collector) -> None:
    with pytest.raises(ZeroDivisionError), tracing.running("test", Tracing(endpoint=taken.url)), tracing.span("work"):
        raise ZeroDivisionError
    assert [span.failed for span in taken.spans] == [True]


@pytest.mark.parametrize(
    ("share", "given", "traced"),
    [(0, None, False), (1, None, True), (0, SENT, True), (1, NOT_SENT, False), (0, "no trace", False)],
)
def test_a_request_is_traced_by_share_or_as_who_asks_says(
    taken: Collector, share: float, given: str | None, traced: bool
) -> None:
    inside: list[str | None] = []

    async def app(_: Scope, __: Receive, send: Send) -> None:
        inside.append(tracing.current())
        headers = [(b"driftloop-id", b"i"), (b"driftloop-version", b"7")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    ask(app, Tracing(endpoint=taken.url, share=share), given)
    assert [current is not None for current in inside] == [traced]
    assert len(taken.spans) == traced
    for span in taken.spans:
        assert (span.name, span.kind, span.failed) == ("POST /predict", "SERVER", False)
        assert span.attributes["driftloop.event_id"] == "i"
        assert span.attributes["driftloop.version"] == "7"
        assert span.attributes["http.response.status_code"] == 200
        assert (span.trace, span.parent) == ((SENT[3:35], SENT[36:52]) if given else (span.trace, ""))


def test_made_up_paths_make_no_names_and_a_failure_is_an_error(taken: Collector) -> None:
    for status in (404, 500):

        async def app(_: Scope, __: Receive, send: Send, status: int = status) -> None:
            await send({"type": "http.response.start", "status": status, "headers": []})

        ask(app, Tracing(endpoint=taken.url, share=1), None)
    assert [(span.name, span.failed) for span in taken.spans] == [("POST", False), ("POST /predict", True)]


def test_a_collector_that_is_away_holds_up_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with tracing.running("test", Tracing(endpoint="http://127.0.0.1:9")), tracing.span("work"):
        pass
    assert not tracing.on()
    assert "Connection" in caplog.text


def ask(app: object, settings: Tracing, given: str | None) -> None:
    """One request to an application that is traced."""
    headers = [(b"traceparent", given.encode())] if given else []
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers}

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(_: Message) -> None:
        return None

    with tracing.running("test", settings):
        asyncio.run(tracing.served(app)(scope, receive, send))  # type: ignore[arg-type]  # a scope of its least
