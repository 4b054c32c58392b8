"""Load client that records each response: when it came and for which row, its status, version, id and prediction.

It runs as a process of its own and speaks plain HTTP/1.1 over persistent connections, because it shares the processors
with the server under test. Measured with 32 connections, it takes 0.06 ms of processor time per request, aiohttp takes
0.41 ms and httpx more. wrk takes less, but does not record responses.

For hours of load it writes what came in each interval, instead of keeping each response in memory.
"""

import argparse
import asyncio
import itertools
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import uvloop

DRAIN_SECONDS = 15  # after the end, for requests in flight
RETRY_SECONDS = 0.05  # after a refused connection or a status 503: a server that starts needs the processor

RETRY_AFTER = re.compile(rb"\r\nretry-after: *([^\r]+)")


class Responses(NamedTuple):
    """Arrays with one entry per request, in the order of the responses."""

    start: npt.NDArray[np.float64]
    """When the request was sent, in seconds since 1970."""
    end: npt.NDArray[np.float64]
    """When the response arrived."""
    row: npt.NDArray[np.int64]
    """The number of the request body that was sent; -1 if there was no connection."""
    status: npt.NDArray[np.int64]
    """0 if there was no response."""
    version: npt.NDArray[np.str_]
    id: npt.NDArray[np.str_]
    prediction: npt.NDArray[np.float64]
    """The prediction for the first row of the request."""

    @property
    def milliseconds(self) -> npt.NDArray[np.float64]:
        """The duration of each request."""
        return (self.end - self.start) * 1e3


class Interval(NamedTuple):
    """What came within some seconds."""

    end: float
    """In seconds since 1970."""
    statuses: dict[int, int]
    """Numbers of responses by status; 0 is no response."""
    retry_after: dict[str, int]
    """Numbers of responses by the value of their header Retry-After, of those that had one."""
    milliseconds: list[float]
    """The duration of each request with status 200."""


@contextmanager
def run_client(
    url: str,
    bodies: Path,
    connections: int,
    seconds: float,
    file: Path,
    pause: float = 0,
    rate: float = 0,
    interval: float = 0,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the client as a process; it is killed at the end of the block if it is still running.

    Args:
        url: The address of predictions.
        bodies: A file with a request body per line, sent in turn.
        connections: The number of connections; each waits for its response.
        seconds: How long requests are sent, unless the process is terminated earlier.
        file: Where the client writes its responses; :func:`collect_responses` reads them.
        pause: Seconds between a response and the next request of the connection.
        rate: Requests a second of all connections together, at most; 0 for as many as there are responses.
        interval: Seconds that are summed up; then :func:`read_intervals` reads the file. 0 for single responses.
    """
    options = [
        *("--connections", str(connections), "--seconds", f"{seconds:g}"),
        *("--out", str(file), "--pause", f"{pause:g}", "--rate", f"{rate:g}", "--interval", f"{interval:g}"),
    ]
    process = subprocess.Popen([sys.executable, __file__, url, str(bodies), *options])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def collect_responses(process: "subprocess.Popen[bytes]", seconds: float, file: Path) -> Responses:
    """Wait for the client to end, which takes about ``seconds``, and return its responses."""
    if process.wait(seconds + DRAIN_SECONDS + 30):
        raise RuntimeError(f"the client ended with exit code {process.returncode}")
    with np.load(file) as arrays:
        responses = Responses(**{name: arrays[name] for name in Responses._fields})
    if not (responses.status == 200).any():
        raise RuntimeError("no request was successful")
    return responses


def read_intervals(file: Path) -> list[Interval]:
    """Return the intervals that a client has written."""
    lines = map(json.loads, file.read_text().splitlines())
    return [
        Interval(**{**line, "statuses": {int(status): n for status, n in line["statuses"].items()}}) for line in lines
    ]


class _Response(NamedTuple):
    start: float
    end: float
    row: int
    status: int
    version: str
    id: str
    prediction: float


class _LoadRun:
    def __init__(
        self, requests: list[bytes], host: str, port: int, stop_at: float, pause: float, seconds_per_request: float
    ) -> None:
        self.requests = itertools.cycle(enumerate(requests))
        self.host, self.port, self.stop_at, self.pause = host, port, stop_at, pause
        self.seconds_per_request = seconds_per_request
        """Of one connection; 0 for no such bound."""
        self.responses: list[_Response] = []
        self.retry_after: Counter[str] = Counter()
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
                self.responses.append(_Response(now, now, -1, 0, "", "", np.nan))
                await asyncio.sleep(RETRY_SECONDS)

    def reconnect(self) -> None:
        task = asyncio.get_running_loop().create_task(self.connect())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def take_interval(self) -> Interval:
        """Return what has come since the last call, and forget it."""
        taken, self.responses = self.responses, []
        retry_after, self.retry_after = self.retry_after, Counter()
        return _sum_up(taken, retry_after)


class _Connection(asyncio.Protocol):
    def __init__(self, run: _LoadRun) -> None:
        self.run = run
        self.buffer = b""
        self.sent_at = 0.0
        self.due = 0.0
        self.row = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's class is another one with the same methods
        self.run.connections.add(self)
        if self.run.seconds_per_request:  # or else all connections would send at once
            self.send_after(random.uniform(0, self.run.seconds_per_request))
        else:
            self.send()

    def send(self) -> None:
        if self.run.is_over or self.transport.is_closing():
            self.transport.close()
            return
        self.run.in_flight.add(self)
        self.sent_at = time.time()
        self.row, request = next(self.run.requests)
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        lowered = head.lower()
        _, has_length, rest = lowered.partition(b"\r\ncontent-length:")
        if not has_length:
            raise RuntimeError(f"a response without Content-Length: {head!r}")
        if len(body) < int(rest.partition(b"\r\n")[0]):
            return
        self.buffer = b""
        status = int(head[9:12])
        content: dict[str, Any] = (
            json.loads(body) if status == 200 else {"version": "", "id": "", "predictions": [np.nan]}
        )
        self.record(status, content["version"], content["id"], content["predictions"][0])
        if match := RETRY_AFTER.search(lowered):
            self.run.retry_after[match[1].decode()] += 1
        if b"\r\nconnection: close" in lowered:
            self.transport.close()
        elif pause := self.pause(status):
            self.send_after(pause)
        else:
            self.send()

    def pause(self, status: int) -> float:
        """Return the seconds until the next request. A request that is late does not make later ones come sooner."""
        pause = RETRY_SECONDS if status == 503 else self.run.pause
        if self.run.seconds_per_request:
            now = time.monotonic()
            self.due = max(self.due + self.run.seconds_per_request, now)
            pause = max(pause, self.due - now)
        return pause

    def send_after(self, pause: float) -> None:
        self.due = time.monotonic() + pause
        asyncio.get_running_loop().call_later(pause, self.send)

    def connection_lost(self, _: Exception | None) -> None:
        self.run.connections.discard(self)
        if self in self.run.in_flight:
            self.record(0, "", "", np.nan)
        if not self.run.is_over:
            self.run.reconnect()

    def record(self, status: int, version: str, identity: str, prediction: float) -> None:
        self.run.in_flight.discard(self)
        response = _Response(self.sent_at, time.time(), self.row, status, version, identity, prediction)
        self.run.responses.append(response)


def _sum_up(responses: Sequence[_Response], retry_after: Counter[str]) -> Interval:
    return Interval(
        time.time(),
        dict(Counter(response.status for response in responses)),
        dict(retry_after),
        [round((response.end - response.start) * 1e3, 2) for response in responses if response.status == 200],
    )


async def _write_intervals(run: _LoadRun, seconds: float, file: Path) -> None:
    with file.open("w") as out:
        while not run.is_over:
            await asyncio.sleep(seconds)
            out.write(json.dumps(run.take_interval()._asdict()) + "\n")


async def _run_load(run: _LoadRun, connections: int, interval: float, file: Path) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, run.stop)
    await asyncio.gather(*(run.connect() for _ in range(connections)))
    writing = asyncio.create_task(_write_intervals(run, interval, file)) if interval else None
    while not run.is_over:
        await asyncio.sleep(0.1)
    for _ in range(int(DRAIN_SECONDS / 0.1)):
        if not run.in_flight:
            break
        await asyncio.sleep(0.1)
    for connection in list(run.in_flight):
        connection.record(0, "", "", np.nan)
    for connection in list(run.connections):
        connection.transport.close()
    if writing is not None:
        await writing
        with file.open("a") as out:  # what came after the last whole interval
            out.write(json.dumps(run.take_interval()._asdict()) + "\n")


def main() -> None:
    """Send requests until the time is over, then write the responses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="address that requests are sent to")
    parser.add_argument("bodies", type=Path, help="file with one request body per line, sent in turn")
    parser.add_argument(
        "--connections",
        type=int,
        default=64,
        help="number of connections; each waits for its response (default: %(default)s)",
    )
    parser.add_argument("--seconds", type=float, default=10, help="how long requests are sent (default: %(default)s)")
    parser.add_argument("--pause", type=float, default=0, help="seconds between a response and the next request")
    parser.add_argument("--rate", type=float, default=0, help="requests a second of all connections, at most")
    parser.add_argument("--interval", type=float, default=0, help="seconds of a line of sums, in place of arrays")
    parser.add_argument("--out", type=Path, required=True, help="file for the responses, as NumPy arrays (.npz)")
    options = parser.parse_args()
    url = urlsplit(options.url)
    host, port = url.hostname or "127.0.0.1", url.port or 80
    requests = [
        f"POST {url.path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(line.encode())}\r\n\r\n{line}".encode()
        for line in options.bodies.read_text().splitlines()
    ]
    seconds_per_request = options.connections / options.rate if options.rate else 0.0
    run = _LoadRun(requests, host, port, time.monotonic() + options.seconds, options.pause, seconds_per_request)
    uvloop.run(_run_load(run, options.connections, options.interval, options.out))
    if options.interval:
        return
    columns = zip(*run.responses, strict=True) if run.responses else ([] for _ in Responses._fields)
    arrays = dict(zip(Responses._fields, map(np.array, columns), strict=True))
    np.savez(options.out, allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()
