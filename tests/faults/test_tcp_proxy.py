"""The proxy that faults of the network are made with: what it passes on, and what its clients see."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.ports import reserve_ports
from tests.support.tcp_proxy import SLOW_SECONDS, TcpProxy
from tests.support.waiting import wait_until

SHORT_SECONDS = 0.5  # in which nothing may come


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that says what it hears."""

    def echo(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(1_000):
                connection.sendall(data)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(echo_port: int) -> Iterator[TcpProxy]:
    with TcpProxy(reserve_ports(1)[0], echo_port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: TcpProxy) -> Iterator[socket.socket]:
    with connect(proxy) as client:
        assert ask(client) == b"x"
        yield client


def connect(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=60)


def ask(client: socket.socket) -> bytes:
    client.sendall(b"x")
    return client.recv(1_000)


def ask_again(proxy: TcpProxy) -> bytes:
    with connect(proxy) as client:
        return ask(client)


def test_cut_network_ends_connections_and_refuses_new_ones(proxy: TcpProxy, client: socket.socket) -> None:
    with proxy.trouble("cut"):
        assert client.recv(1_000) == b""
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
    assert ask_again(proxy) == b"x"


def test_reset_network_resets_connections_and_each_new_one(proxy: TcpProxy, client: socket.socket) -> None:
    with proxy.trouble("reset"):
        with pytest.raises(ConnectionResetError):
            client.recv(1_000)
        with pytest.raises(ConnectionResetError):
            ask_again(proxy)
    assert ask_again(proxy) == b"x"


def test_slow_network_delays_each_direction(proxy: TcpProxy, client: socket.socket) -> None:
    with proxy.trouble("slow"):
        began = time.monotonic()
        assert ask(client) == b"x"
        assert time.monotonic() - began >= 2 * SLOW_SECONDS
    assert ask(client) == b"x"


def test_half_open_network_is_silent_and_ends_with_a_reset(proxy: TcpProxy, client: socket.socket) -> None:
    with proxy.trouble("half-open"):
        with connect(proxy) as another:
            for each in (client, another):
                each.settimeout(SHORT_SECONDS)
                with pytest.raises(TimeoutError):
                    ask(each)
        client.settimeout(60)
    with pytest.raises(ConnectionResetError):
        client.recv(1_000)
    assert ask_again(proxy) == b"x"


def test_proxy_forgets_connections_that_have_ended(proxy: TcpProxy, client: socket.socket) -> None:
    assert proxy.connections == 1
    client.close()
    wait_until(lambda: proxy.connections == 0 or None, "the connection has ended")
