"""One trace from the request to the window's verdict, and one from a retrain to the swap, as a real Zipkin has them."""

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
from tests.support.otlp_collector import Collector, Span, forward, zipkin
from tests.support.running_stack import run_command
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("version_1")


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with zipkin(tmp_path_factory.mktemp("zipkin") / "log") as url:
        yield url


@pytest.fixture(scope="module")
def asked(stack: Stack, collector: Collector) -> list[Span]:
    """The producer's requests for predictions, all of them traced."""
    produced = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("driftloop-producer")), "--from", "2013-01-20", "--to", "2013-01-21"),
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
def window(collector: Collector, asked: list[Span]) -> Span:
    """The window that most of the requests are in, once all of them are in one."""
    traces = {span.trace for span in asked}

    def judged() -> Span | None:
        requests = {span.trace for span in collector.spans if span.name == "POST /predict"} & traces
        windows = [
            span
            for span in collector.spans
            if span.name == "window" and span.attributes["driftloop.window"].startswith("predictions")
        ]
        ours = [span for span in windows if span.trace in requests]
        reached = {span.trace for span in ours} | {link.split("-")[0] for span in ours for link in span.links}
        return max(ours, key=lambda span: len(span.links)) if requests and requests <= reached else None

    return wait_until(judged, "windows of all traced events")


def test_a_request_is_one_trace_up_to_the_verdict_on_its_window(
    collector: Collector, backend: str, window: Span
) -> None:
    forward([span for span in collector.spans if span.trace == window.trace], backend)
    tree = wait_until(lambda: traced(backend, window.trace, 7), "Zipkin has the trace")
    way = path_to(tree, "verdict")
    assert way == [
        ("producer", "CLIENT", "post"),
        ("predictor", "SERVER", "post /predict"),
        ("relay", "PRODUCER", "publish predictions"),
        ("drift_worker", "CONSUMER", "window"),
        ("drift_worker", None, "verdict"),
    ]
    assert path_to(tree, "outbox.append") == [
        *way[:2],
        ("predictor", None, "batch"),
        ("predictor", None, "outbox.append"),
    ]
    (verdict,) = [span for span in tree if span["name"] == "verdict"]
    assert verdict["tags"]["driftloop.window"] == window.attributes["driftloop.window"]
    assert verdict["tags"]["driftloop.verdict"] in ("no_drift", "drift", "inconclusive")


def test_a_window_is_linked_to_the_hops_that_its_other_events_came_by(
    collector: Collector, asked: list[Span], window: Span
) -> None:
    hops = {span.key: span for span in collector.spans if span.name == "publish predictions"}
    assert window.links
    assert {hops[link].trace for link in window.links} < {span.trace for span in asked}
    answered = [span for span in collector.spans if span.name == "POST /predict" and span.trace == window.trace]
    assert hops[next(key for key in hops if key.startswith(window.trace))].parent == answered[0].id


def test_outcomes_carry_the_trace_of_the_request_that_reported_them(collector: Collector, asked: list[Span]) -> None:
    ours = {span.trace for span in asked}
    spans = wait_until(
        lambda: [span for span in collector.spans if span.name == "publish outcomes"] or None, "outcomes"
    )
    assert {span.trace for span in spans} <= ours


def test_the_verdict_goes_on_with_the_trace(stack: Stack, window: Span) -> None:
    def published() -> DriftVerdict | None:
        found = [event for event in reader.read_last(stack.kafka, "drift", 300) if isinstance(event, DriftVerdict)]
        return next((event for event in found if event.window.name == window.attributes["driftloop.window"]), None)

    verdict = wait_until(published, "the verdict is on its topic")
    assert verdict.traceparent is not None
    assert verdict.traceparent.split("-")[1] == window.trace


def test_what_is_known_of_a_prediction_names_its_trace(stack: Stack, collector: Collector, window: Span) -> None:
    (answered,) = [span for span in collector.spans if span.name == "POST /predict" and span.trace == window.trace]
    explained = run_command(stack, "driftloop", "explain", answered.attributes["driftloop.event_id"], "--row", "0")
    assert window.trace in explained.stdout, explained.stdout + explained.stderr
    assert window.attributes["driftloop.window"] in explained.stdout


def test_the_log_is_one_object_a_line_with_window_version_and_trace_and_holds_no_secret(
    stack: Stack, window: Span
) -> None:
    def lines(service: str) -> list[dict[str, Any]]:
        text = (stack.folder / "logs" / f"{service}.log").read_text()
        assert stack.environment["DRIFTLOOP_TRAINER__API_KEY"] not in text
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    for service in ("predictor", "trainer", "drift_worker"):
        assert lines(service)
    judged = [line for line in lines("drift_worker") if line.get("window") == window.attributes["driftloop.window"]]
    line = next(line for line in judged if line["event"] == "drift.window_judged")
    champion = stack.registry.champion()
    assert (line["trace_id"], line["service"], line["version"]) == (window.trace, "drift_worker", champion)
    assert line["event_id"].startswith(line["window"])


def test_a_retrain_is_one_trace_through_training_and_promotion_to_the_swap(
    stack: Stack, collector: Collector, backend: str
) -> None:
    def swapped() -> Span | None:
        swaps = [span for span in collector.spans if span.name == "swap"]
        return next((span for span in swaps if span.attributes["driftloop.version"] == "1"), None)

    swap = wait_until(swapped, "the first version was swapped in")
    ours = wait_until(lambda: with_end(collector, swap.trace), "the retrain's spans are there")
    forward(ours, backend)
    tree = wait_until(lambda: traced(backend, swap.trace, len(ours)), "Zipkin has the trace")
    way = path_to(tree, "swap")
    assert way == [
        ("cli", None, "retrain.request"),
        ("trainer", "CONSUMER", "retrain"),
        ("trainer", None, "registration"),
        ("predictor", None, "swap"),
    ]
    assert path_to(tree, "promoted") == [*way[:3], ("trainer", None, "promoted")]
    phases = [span["name"] for span in tree if span["localEndpoint"]["serviceName"] == "trainer"]
    assert {"data", "training", "smoke_test"} < set(phases)
    states = [event for event in reader.read_last(stack.kafka, "models", 10**6) if isinstance(event, ModelStateChanged)]
    first = next(event for event in states if event.version == "1" and event.state == "promoted")
    assert first.traceparent is not None
    assert first.traceparent.split("-")[1] == swap.trace


@pytest.mark.usefixtures("asked")
def test_probes_and_scrapes_are_not_traced(stack: Stack, collector: Collector) -> None:
    httpx.get(stack.components["predictor"].url + "/metrics").raise_for_status()
    assert {span.attributes["http.request.method"] for span in collector.spans if span.kind == "SERVER"} == {"POST"}


def with_end(collector: Collector, trace: str) -> list[Span] | None:
    """The spans of a retrain's trace, once its end is among them."""
    found = [span for span in collector.spans if span.trace == trace]
    return found if {"promoted", "retrain"} <= {span.name for span in found} else None


def traced(backend: str, trace: str, spans: int) -> list[dict[str, Any]] | None:
    """A trace of at least so many spans, once Zipkin has it."""
    answer = httpx.get(f"{backend}/api/v2/trace/{trace}", timeout=10)
    found: list[dict[str, Any]] = answer.json() if answer.is_success else []
    return found if len(found) >= spans else None


def path_to(tree: list[dict[str, Any]], name: str) -> list[tuple[str, str | None, str]]:
    """From the root: service, kind and name of each span on the way to the first one of a name."""
    by_id = {span["id"]: span for span in tree}
    at: Mapping[str, Any] | None = next(span for span in tree if span["name"] == name)
    way = []
    while at is not None:
        way.append((at["localEndpoint"]["serviceName"], at.get("kind"), at["name"]))
        at = by_id.get(at.get("parentId", ""))
    return way[::-1]
