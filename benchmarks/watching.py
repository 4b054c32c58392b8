"""What metrics and traces cost: predictors with and without them, asked in turns."""

import statistics
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from stack.running import Stack
from tests.support.ports import reserve_ports
from tests.support.processes import Server
from tests.support.stack_fixture import ROOT

UNMEASURED = [sys.executable, "-m", "benchmarks.peers.unmeasured"]


class _Discard(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def collector() -> Iterator[str]:
    """The address of what takes traces and throws them away, in this process."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Discard)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def predictors(stack: Stack, endpoint: str) -> dict[str, Server]:
    """A predictor as it is by default, and three others, each with a port and an outbox of its own; none is started."""
    part = stack.parts["predictor"]

    def traced(share: str) -> Mapping[str, str]:
        return {"DRIFTLOOP_TRACING__ENDPOINT": endpoint, "DRIFTLOOP_TRACING__SAMPLE_RATIO": share}

    kinds: Sequence[tuple[str, list[str], Mapping[str, str]]] = (
        ("default", part.command, {}),
        ("no metrics", UNMEASURED, {}),
        ("tracing 0 %", part.command, traced("0")),
        ("tracing 1 %", part.command, traced("0.01")),
    )
    made = {}
    for (name, command, settings), port in zip(kinds, reserve_ports(len(kinds)), strict=True):
        folder = stack.folder / name.replace(" ", "-").replace("-%", "")
        environment = {
            **part.environment,
            "DRIFTLOOP_PREDICTOR__PORT": str(port),
            "DRIFTLOOP_PREDICTOR__DATA_DIR": str(folder),
            **settings,
        }
        url = f"http://127.0.0.1:{port}/readyz"
        made[name] = Server(name, command, environment, url, stack.folder / "logs" / f"{folder.name}.log", ROOT)
    return made


def ratios(rates: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Requests a second as shares of those of the default, each of its own round; the medians."""

    def share(of: str, beside: str) -> float:
        return statistics.median(a / b for a, b in zip(rates[of], rates[beside], strict=True))

    return {
        "tracing_0_ratio": share("tracing 0 %", "default"),
        "tracing_1_ratio": share("tracing 1 %", "default"),
        "metrics_ratio": share("default", "no metrics"),
    }


@contextmanager
def started(servers: Mapping[str, Server]) -> Iterator[None]:
    """All of them are ready in the block."""
    with ExitStack() as running:
        for server in servers.values():
            running.enter_context(server)
        yield
