"""One trace from the request to the window's verdict, and one from a retrain to the swap, built by a real Zipkin."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from driftloop.events import DriftVerdict, ModelStateChanged
from driftloop.kafka import reader
from stack.running import Stack
from tests.support.otlp_collector import Collector, Span, running_zipkin, send_to_zipkin
from tests.support.running_stack import run_command
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("version_1")


@pytest.fixture(scope="module")
def zipkin_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run Zipkin; return its URL."""
    with running_zipkin(tmp_path_factory.mktemp("zipkin") / "log") as url:
        yield url


@pytest.fixture(scope="module")
def producer_spans(stack: Stack, collector: Collector) -> list[Span]:
    """Stream two days, more rows than a window has, with all requests traced; return the producer's spans."""
    produced = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("driftloop-producer")), "--from", "2013-01-20", "--to", "2013-01-22"),
            *("--rate", "max", "--rows", "100"),
        ],
        env={**os.environ, **stack.environment, "DRIFTLOOP_TRACING__SAMPLE_RATIO": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert produced.returncode == 0, produced.stdout + produced.stderr
    return [span for span in collector.spans if span.service == "producer"]


@pytest.fixture(scope="module")
def slice_span(collector: Collector, producer_spans: list[Span]) -> Span:
    """Wait until each request is in the trace of a slice or linked to one; return the slice with the most links."""
    traces = {span.trace for span in producer_spans}

    def slice_with_all_requests() -> Span | None:
        requests = {span.trace for span in collector.spans if span.name == "POST /predict"} & traces
        slices = [
            span
            for span in collector.spans
            if span.name == "slice" and span.attributes["driftloop.slice"].startswith("predictions")
        ]
        slices_of_requests = [span for span in slices if span.trace in requests]
        traces_in_slices = {span.trace for span in slices_of_requests} | {
            link.split("-")[0] for span in slices_of_requests for link in span.links
        }
        return (
            max(slices_of_requests, key=lambda span: len(span.links))
            if requests and requests <= traces_in_slices
            else None
        )

    return wait_until(slice_with_all_requests, "all traced requests are in slices")


@pytest.fixture(scope="module")
def window_name(collector: Collector, slice_span: Span) -> str:
    """Return the window that ends with the slice: with rows of one version, a slice closes when a window is full."""
    verdicts = [span for span in collector.spans if span.trace == slice_span.trace and span.name == "verdict"]
    return str(verdicts[0].attributes["driftloop.window"])


def test_trace_of_request_extends_to_verdict_on_its_window(
    collector: Collector, zipkin_url: str, slice_span: Span, window_name: str
) -> None:
    send_to_zipkin([span for span in collector.spans if span.trace == slice_span.trace], zipkin_url)
    tree = wait_until(lambda: zipkin_trace(zipkin_url, slice_span.trace, 7), "Zipkin has the trace")
    verdict_path = path_to(tree, "verdict")
    assert verdict_path == [
        ("producer", "CLIENT", "post"),
        ("predictor", "SERVER", "post /predict"),
        ("relay", "PRODUCER", "publish predictions"),
        ("drift_worker", "CONSUMER", "slice"),
        ("drift_worker", None, "verdict"),
    ]
    assert path_to(tree, "outbox.append") == [
        *verdict_path[:2],
        ("predictor", None, "batch"),
        ("predictor", None, "outbox.append"),
    ]
    (verdict,) = [span for span in tree if span["name"] == "verdict"]
    assert verdict["tags"]["driftloop.window"] == window_name
    assert verdict["tags"]["driftloop.verdict"] in ("no_drift", "drift", "inconclusive")


def test_slice_span_links_to_publish_spans_of_its_other_events(
    collector: Collector, producer_spans: list[Span], slice_span: Span
) -> None:
    publish_spans = {span.key: span for span in collector.spans if span.name == "publish predictions"}
    assert slice_span.links
    assert {publish_spans[link].trace for link in slice_span.links} < {span.trace for span in producer_spans}
    request_spans = [
        span for span in collector.spans if span.name == "POST /predict" and span.trace == slice_span.trace
    ]
    assert (
        publish_spans[next(key for key in publish_spans if key.startswith(slice_span.trace))].parent
        == request_spans[0].id
    )


def test_outcomes_carry_trace_of_the_request_that_reported_them(
    collector: Collector, producer_spans: list[Span]
) -> None:
    request_traces = {span.trace for span in producer_spans}
    spans = wait_until(
        lambda: [span for span in collector.spans if span.name == "publish outcomes"] or None, "outcomes are published"
    )
    assert {span.trace for span in spans} <= request_traces


def test_verdict_event_carries_trace_of_its_slice(stack: Stack, slice_span: Span, window_name: str) -> None:
    def verdict_of_window() -> DriftVerdict | None:
        verdicts = [event for event in reader.read_last(stack.kafka, "drift", 300) if isinstance(event, DriftVerdict)]
        return next((event for event in verdicts if event.window.name == window_name), None)

    verdict = wait_until(verdict_of_window, "the verdict is on its topic")
    assert verdict.traceparent is not None
    assert verdict.traceparent.split("-")[1] == slice_span.trace


def test_explain_shows_trace_and_slice_of_prediction(stack: Stack, collector: Collector, slice_span: Span) -> None:
    (request_span,) = [
        span for span in collector.spans if span.name == "POST /predict" and span.trace == slice_span.trace
    ]
    explained = run_command(stack, "driftloop", "explain", request_span.attributes["driftloop.event_id"], "--row", "0")
    assert slice_span.trace in explained.stdout, explained.stdout + explained.stderr
    assert slice_span.attributes["driftloop.slice"] in explained.stdout


def test_logs_are_json_lines_with_window_version_and_trace_without_api_key(
    stack: Stack, slice_span: Span, window_name: str
) -> None:
    def lines(service: str) -> list[dict[str, Any]]:
        text = (stack.folder / "logs" / f"{service}.log").read_text()
        assert stack.environment["DRIFTLOOP_TRAINER__API_KEY"] not in text
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    for service in ("predictor", "trainer", "drift_worker"):
        assert lines(service)
    window_lines = [line for line in lines("drift_worker") if line.get("window") == window_name]
    line = next(line for line in window_lines if line["event"] == "drift.window_judged")
    champion = stack.registry.champion()
    assert (line["trace_id"], line["service"], line["version"]) == (slice_span.trace, "drift_worker", champion)
    assert line["event_id"].startswith(line["window"])


def test_trace_of_retrain_extends_through_promotion_to_swap(
    stack: Stack, collector: Collector, zipkin_url: str
) -> None:
    def swap_to_first_version() -> Span | None:
        swaps = [span for span in collector.spans if span.name == "swap"]
        return next((span for span in swaps if span.attributes["driftloop.version"] == "1"), None)

    swap = wait_until(swap_to_first_version, "the span of the swap to the first version is exported")
    spans = wait_until(lambda: complete_retrain_trace(collector, swap.trace), "all spans of the retrain are exported")
    send_to_zipkin(spans, zipkin_url)
    tree = wait_until(lambda: zipkin_trace(zipkin_url, swap.trace, len(spans)), "Zipkin has the trace")
    swap_path = path_to(tree, "swap")
    assert swap_path == [
        ("cli", None, "retrain.request"),
        ("trainer", "CONSUMER", "retrain"),
        ("trainer", None, "registration"),
        ("predictor", None, "swap"),
    ]
    assert path_to(tree, "promoted") == [*swap_path[:3], ("trainer", None, "promoted")]
    phases = [span["name"] for span in tree if span["localEndpoint"]["serviceName"] == "trainer"]
    assert {"data", "training", "smoke_test"} < set(phases)
    states = [event for event in reader.read_last(stack.kafka, "models", 10**6) if isinstance(event, ModelStateChanged)]
    first = next(event for event in states if event.version == "1" and event.state == "promoted")
    assert first.traceparent is not None
    assert first.traceparent.split("-")[1] == swap.trace


@pytest.mark.usefixtures("producer_spans")
def test_probes_and_scrapes_are_not_traced(stack: Stack, collector: Collector) -> None:
    httpx.get(stack.components["predictor"].url + "/metrics").raise_for_status()
    assert {span.attributes["http.request.method"] for span in collector.spans if span.kind == "SERVER"} == {"POST"}


def complete_retrain_trace(collector: Collector, trace: str) -> list[Span] | None:
    """Return the spans of a retrain's trace once its last two are among them, else None."""
    spans = [span for span in collector.spans if span.trace == trace]
    return spans if {"promoted", "retrain"} <= {span.name for span in spans} else None


def zipkin_trace(zipkin_url: str, trace: str, min_spans: int) -> list[dict[str, Any]] | None:
    """Return a trace once Zipkin has at least ``min_spans`` spans of it, else None."""
    response = httpx.get(f"{zipkin_url}/api/v2/trace/{trace}", timeout=10)
    spans: list[dict[str, Any]] = response.json() if response.is_success else []
    return spans if len(spans) >= min_spans else None


def path_to(tree: list[dict[str, Any]], name: str) -> list[tuple[str, str | None, str]]:
    """Return service, kind and name of each span from the root to the first span with this name."""
    by_id = {span["id"]: span for span in tree}
    span: Mapping[str, Any] | None = next(span for span in tree if span["name"] == name)
    path = []
    while span is not None:
        path.append((span["localEndpoint"]["serviceName"], span.get("kind"), span["name"]))
        span = by_id.get(span.get("parentId", ""))
    return path[::-1]
