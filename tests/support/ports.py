"""Ports for the servers that tests and benchmarks start."""

import socket

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
