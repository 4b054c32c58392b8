"""Every service answers HEAD like GET, and refuses writes by web pages of other hosts."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from driftloop.asgi import answer_head, refuse_foreign_pages
from driftloop.telemetry.http import serve_in_thread
from tests.support.ports import reserve_ports

HERE = "http://127.0.0.1:8000"


async def endless(_: Request) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        while True:
            yield "\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(lines())


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.method * 1_000, 201 if request.method == "GET" else 202, {"X-Key": "value"})


METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
APP = Starlette(
    routes=[Route("/", echo, methods=METHODS), Route("/post", echo, methods=["POST"]), Route("/wait", endless)]
)
APP.add_middleware(GZipMiddleware)


def request(method: str, origins: tuple[str, ...] = (), **headers: str) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(refuse_foreign_pages(APP, origins, ": change the setting"))
        async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
            return await client.request(method, "/", headers=headers)

    return asyncio.run(send())


def test_head_has_status_and_headers_of_get_without_body() -> None:
    (port,) = reserve_ports(1)
    with (
        serve_in_thread(answer_head(APP), "127.0.0.1", port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client,
    ):
        for path, status in (("/", 201), ("/post", 405), ("/nothing", 404)):
            get, head = client.get(path), client.head(path)
            assert (get.status_code, head.status_code, head.content) == (status, status, b"")
            assert head.headers.items() - {("date", head.headers["date"])} == get.headers.items() - {
                ("date", get.headers["date"])
            }
        assert client.head("/wait").status_code == 200  # the stream ends with the request
        assert client.get("/").text.startswith("GET")  # on the same connection


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1:9000", "http://localhost:8000", "null", "http://["]
)
def test_page_of_another_host_cannot_write(method: str, origin: str) -> None:
    response = request(method, Origin=origin)
    assert response.status_code == 403
    assert response.json()["detail"] == f"a web page of {origin} must not write here: change the setting"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_own_pages_and_other_clients_write(method: str) -> None:
    assert request(method).status_code == 202
    assert request(method, Origin=HERE).status_code == 202
    assert request(method, Origin="https://127.0.0.1:8000").status_code == 202  # behind a proxy that ends TLS
    assert request(method, Origin="https://DriftLoop.example", Host="driftloop.example").status_code == 202


def test_allowed_pages_write_and_all_pages_send_get() -> None:
    assert request("POST", ("https://a.example",), Origin="https://a.example").status_code == 202
    assert request("POST", ("https://a.example",), Origin="https://b.example").status_code == 403
    assert request("POST", ("*",), Origin="https://b.example").status_code == 202
    assert request("GET", Origin="https://b.example").status_code == 201
