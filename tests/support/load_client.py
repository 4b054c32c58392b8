"""A client that remembers each answer: when it came and about which row, its status, version, id and prediction.

A process of its own, written to take little of the machine: HTTP/1.1 over kept connections, nothing more.
"""

import argparse
import asyncio
import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import uvloop

DRAIN_SECONDS = 15  # after the end, for what is still under way
RETRY_SECONDS = 0.05  # after a connection or a request was refused: a server that starts needs the processor too


class Responses(NamedTuple):
    """One entry a request, in the order of their answers."""

    start: npt.NDArray[np.float64]
    """Seconds since 1970."""
    end: npt.NDArray[np.float64]
    row: npt.NDArray[np.int64]
    """Which of the bodies was sent."""
    status: npt.NDArray[np.int64]
    """0 where no answer came."""
    version: npt.NDArray[np.str_]
    id: npt.NDArray[np.str_]
    prediction: npt.NDArray[np.float64]
    """Of the request's first row."""

    @property
    def milliseconds(self) -> npt.NDArray[np.float64]:
        """How long each took."""
        return (self.end - self.start) * 1e3


@contextmanager
def run_client(
    url: str, bodies: Path, connections: int, seconds: float, file: Path, pause: float = 0
) -> Iterator["subprocess.Popen[bytes]"]:
    """The client as a process; see :func:`collect`. It stops asking after so many seconds, or when it is terminated.

    Killed at the end of the block, if it has not ended by then.
    """
    options = [
        "--connections",
        str(connections),
        "--seconds",
        f"{seconds:g}",
        "--out",
        str(file),
        "--pause",
        f"{pause:g}",
    ]
    process = subprocess.Popen([sys.executable, __file__, url, str(bodies), *options])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def collect_responses(process: "subprocess.Popen[bytes]", seconds: float, file: Path) -> Responses:
    """What the client saw, once it has ended, which it does after so many ``seconds``."""
    if process.wait(seconds + DRAIN_SECONDS + 30):
        raise RuntimeError(f"the client ended with exit code {process.returncode}")
    with np.load(file) as arrays:
        answers = Responses(**{name: arrays[name] for name in Responses._fields})
    if not (answers.status == 200).any():
        raise RuntimeError("not one request was answered")
    return answers


class _LoadRun:
    def __init__(self, requests: list[bytes], host: str, port: int, stop_at: float, pause: float) -> None:
        self.requests = itertools.cycle(enumerate(requests))
        self.host, self.port, self.stop_at, self.pause = host, port, stop_at, pause
        self.responses: list[tuple[float, float, int, int, str, str, float]] = []
        self.connections: set[_Connection] = set()
        self.in_flight: set[_Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        self.stop_at = 0

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.stop_at

    async def connect(self) -> None:
        while not self.is_over:
            try:
                await asyncio.get_running_loop().create_connection(lambda: _Connection(self), self.host, self.port)
                return
            except OSError:
                now = time.time()
                self.responses.append((now, now, -1, 0, "", "", np.nan))
                await asyncio.sleep(RETRY_SECONDS)

    def reconnect(self) -> None:
        task = asyncio.get_running_loop().create_task(self.connect())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class _Connection(asyncio.Protocol):
    def __init__(self, run: _LoadRun) -> None:
        self.run = run
        self.buffer = b""
        self.began = 0.0
        self.row = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's has its methods, and another class
        self.run.connections.add(self)
        self.ask()

    def ask(self) -> None:
        if self.run.is_over or self.transport.is_closing():
            self.transport.close()
            return
        self.run.in_flight.add(self)
        self.began = time.time()
        self.row, request = next(self.run.requests)
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        lowered = head.lower()
        _, found, rest = lowered.partition(b"\r\ncontent-length:")
        if not found:
            raise RuntimeError(f"an answer without a length: {head!r}")
        if len(body) < int(rest.partition(b"\r\n")[0]):
            return
        self.buffer = b""
        status = int(head[9:12])
        answer: dict[str, Any] = (
            json.loads(body) if status == 200 else {"version": "", "id": "", "predictions": [np.nan]}
        )
        self.note(status, answer["version"], answer["id"], answer["predictions"][0])
        if b"\r\nconnection: close" in lowered:
            self.transport.close()
        elif pause := RETRY_SECONDS if status == 503 else self.run.pause:
            asyncio.get_running_loop().call_later(pause, self.ask)
        else:
            self.ask()

    def connection_lost(self, _: Exception | None) -> None:
        self.run.connections.discard(self)
        if self in self.run.in_flight:
            self.note(0, "", "", np.nan)
        if not self.run.is_over:
            self.run.reconnect()

    def note(self, status: int, version: str, identity: str, prediction: float) -> None:
        self.run.in_flight.discard(self)
        self.run.responses.append((self.began, time.time(), self.row, status, version, identity, prediction))


async def _ask(run: _LoadRun, connections: int) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, run.stop)
    await asyncio.gather(*(run.connect() for _ in range(connections)))
    while not run.is_over:
        await asyncio.sleep(0.1)
    for _ in range(int(DRAIN_SECONDS / 0.1)):
        if not run.in_flight:
            break
        await asyncio.sleep(0.1)
    for connection in list(run.in_flight):
        connection.note(0, "", "", np.nan)
    for connection in list(run.connections):
        connection.transport.close()


def main() -> None:
    """Asks until the time is over, then writes down what it saw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="where rows are sent to")
    parser.add_argument("bodies", type=Path, help="a file of request bodies, one a line, sent in turn")
    parser.add_argument("--connections", type=int, default=64, help="each waits for its answer (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="how long (default: %(default)s)")
    parser.add_argument("--pause", type=float, default=0, help="seconds between an answer and the next request")
    parser.add_argument("--out", type=Path, required=True, help="where the answers go, as NumPy arrays (.npz)")
    options = parser.parse_args()
    url = urlsplit(options.url)
    host, port = url.hostname or "127.0.0.1", url.port or 80
    requests = [
        f"POST {url.path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(line.encode())}\r\n\r\n{line}".encode()
        for line in options.bodies.read_text().splitlines()
    ]
    run = _LoadRun(requests, host, port, time.monotonic() + options.seconds, options.pause)
    uvloop.run(_ask(run, options.connections))
    columns = zip(*run.responses, strict=True) if run.responses else ([] for _ in Responses._fields)
    arrays = dict(zip(Responses._fields, map(np.array, columns), strict=True))
    np.savez(options.out, allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()
