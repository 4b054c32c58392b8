"""Ports for the servers that tests and benchmarks start."""

import socket
from contextlib import suppress

_reserved: list[socket.socket] = []


def reserve_ports(count: int) -> list[int]:
    """Return different ports on which no process listens, and reserve them until this process ends.

    Each port stays bound by a socket that does not listen. Linux does not assign such a port to a process that asks for
    any free port, and lets a server that sets SO_REUSEADDR, as all servers here do, bind it by number.
    """
    sockets = [socket.socket() for _ in range(count)]
    for reserved in sockets:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
    _reserved.extend(sockets)
    return [int(reserved.getsockname()[1]) for reserved in sockets]


def reserve_port_series(length: int, step: int) -> list[int]:
    """Return ports that are ``step`` apart, reserved like those of :func:`reserve_ports`."""
    while True:
        (first,) = reserve_ports(1)
        wanted = [first + number * step for number in range(1, length)]
        with suppress(OSError, OverflowError):  # one of them is in use, or too large
            for port in wanted:
                follower = socket.socket()
                _reserved.append(follower)
                follower.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                follower.bind(("127.0.0.1", port))
            return [first, *wanted]
