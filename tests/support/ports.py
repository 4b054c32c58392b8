"""Ports for the servers that tests and benchmarks start."""

import socket

_held: list[socket.socket] = []


def reserve_ports(count: int) -> list[int]:
    """Return different ports on which nobody listens, and hold them until this process ends.

    Each port stays bound by a socket that does not listen. Linux gives such a port to nobody who asks for a free one,
    and lets a server that sets SO_REUSEADDR, as all servers here do, bind it by number.
    """
    sockets = [socket.socket() for _ in range(count)]
    for held in sockets:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
    _held.extend(sockets)
    return [int(held.getsockname()[1]) for held in sockets]
