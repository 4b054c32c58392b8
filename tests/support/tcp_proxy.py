"""A TCP proxy between two parts, whose network can be cut, slowed, reset or left half open."""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Literal, Self

Trouble = Literal["cut", "slow", "reset", "half-open"]
"""What is wrong with the network:

- ``cut``: connections are closed, and new ones are refused;
- ``slow``: each piece of up to 64 KiB takes :data:`SLOW_SECONDS`, in each direction;
- ``reset``: connections end with a reset, and so does each new one;
- ``half-open``: connections stay and new ones are accepted, but nothing gets through. At the end all of them end with a
  reset, which is what the side that remembers gets from the side that has forgotten.
"""
SLOW_SECONDS = 0.3
PIECE_BYTES = 2**16
LINGER_NOT = struct.pack("ii", 1, 0)  # close() sends a reset


class TcpProxy:
    """Passes connections to a port of this machine. A context manager: it listens inside the block."""

    def __init__(self, port: int, target: int) -> None:
        """Describe a proxy.

        Args:
            port: Where it listens.
            target: Where connections are passed to.
        """
        self.port = port
        self._target = target
        self._trouble: Trouble | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections, and stop listening."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextmanager
    def trouble(self, trouble: Trouble) -> Iterator[None]:
        """Let something be wrong with the network for the duration of the block."""
        self._run(self._begin(trouble))
        try:
            yield
        finally:
            self._run(self._end())

    @property
    def connections(self) -> int:
        """The number of open connections from clients."""
        return len(self._tasks)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _begin(self, trouble: Trouble) -> None:
        self._trouble = trouble
        if trouble == "cut":
            await self._stop_listening()
        if trouble in ("cut", "reset"):
            self._end_connections(reset=trouble == "reset")

    async def _end(self) -> None:
        if self._trouble == "half-open":
            self._end_connections(reset=True)
        self._trouble = None
        if self._server is None:
            await self._listen()

    async def _close(self) -> None:
        await self._stop_listening()
        self._end_connections(reset=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _end_connections(self, *, reset: bool) -> None:
        for writer in list(self._writers):
            _close(writer, reset=reset)
        for task in list(self._tasks):
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        opened = [writer]
        try:
            if self._trouble == "reset":
                _close(writer, reset=True)
                return
            await self._while_half_open()
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self._target)
            opened.append(target_writer)
            self._writers.add(target_writer)
            await asyncio.gather(self._pass_on(reader, target_writer), self._pass_on(target_reader, writer))
        except (OSError, asyncio.CancelledError):  # the target refuses, one side has gone, or the connection is ended
            pass
        finally:
            for each in opened:
                _close(each, reset=False)
                self._writers.discard(each)
            self._tasks.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on in one direction, until that side has said everything."""
        while data := await reader.read(PIECE_BYTES):
            await self._while_half_open()
            if self._trouble == "slow":
                await asyncio.sleep(SLOW_SECONDS)
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            with suppress(OSError):
                writer.write_eof()

    async def _while_half_open(self) -> None:
        while self._trouble == "half-open":
            await asyncio.sleep(0.05)


def _close(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    """Close a connection, if it is open, at once or with a reset."""
    if reset and (connection := writer.get_extra_info("socket")) is not None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        writer.transport.abort()
    else:
        writer.close()
