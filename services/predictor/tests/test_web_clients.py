"""Browsers and monitors: HEAD, and web pages of other hosts, which send requests only if a setting allows it."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from driftloop.events import new_event_id
from predictor.outbox.outbox import Outbox
from tests.support.model_names import USABLE_NAMES
from tests.support.predictor_app import StaticModelManager, outbox_events

PAGE = "https://a.example"
WRITES: list[tuple[str, dict[str, Any]]] = [
    ("/predict", {"instances": [{"x": 1.5, "n": 2}]}),
    ("/invocations", {"dataframe_records": [{"x": 1.5, "n": 2}]}),
    ("/v1/models/m:predict", {"instances": [{"x": 1.5, "n": 2}]}),
    (
        "/v2/models/m/infer",
        {
            "inputs": [
                {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.5]},
                {"name": "n", "shape": [1], "datatype": "INT64", "data": [2]},
            ]
        },
    ),
    ("/outcomes", {"outcomes": [{"id": new_event_id(), "index": 0, "outcome": 1}]}),
]


def test_every_route_with_get_answers_head_with_the_same_status_and_headers(server: str) -> None:
    with httpx.Client(base_url=server) as client:
        paths = [
            path.replace("{name}", "m").replace("{version}", "7")
            for path, operations in client.get("/openapi.json").json()["paths"].items()
            if "get" in operations
        ]
        assert {"/models", "/readyz", "/metrics", "/ping", "/v2/models/m", "/v1/models/m"} <= set(paths)
        for path in (*paths, "/docs", "/openapi.json", "/predict", "/nothing"):
            get, head = client.get(path), client.head(path)
            assert (head.status_code, head.content) == (get.status_code, b""), path
            assert head.headers["content-type"] == get.headers["content-type"]
            if path != "/metrics":  # its numbers change
                assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.content))


@pytest.mark.parametrize(("path", "body"), WRITES)
def test_page_of_another_host_cannot_write_and_no_event_is_stored(
    client: TestClient, outbox: Outbox, path: str, body: dict[str, Any]
) -> None:
    response = client.post(path, json=body, headers={"Origin": PAGE})
    assert response.status_code == 403
    assert "DRIFTLOOP_PREDICTOR__CORS_ORIGINS" in response.json()["detail"]
    assert "access-control-allow-origin" not in response.headers
    assert client.options(path, headers={"Origin": PAGE, "Access-Control-Request-Method": "POST"}).status_code == 405
    assert not outbox_events(outbox)
    assert client.post(path, json=body, headers={"Origin": "http://testserver"}).is_success
    assert client.post(path, json=body).is_success


@pytest.mark.parametrize(("path", "body"), WRITES)
def test_page_of_an_allowed_origin_sends_requests_and_reads_responses(
    make_client: Callable[..., Any], path: str, body: dict[str, Any]
) -> None:
    with make_client(cors_origins=[PAGE]) as client:
        preflight = client.options(
            path,
            headers={
                "Origin": PAGE,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "content-type, driftloop-time",
            },
        )
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == PAGE
        response = client.post(path, json=body, headers={"Origin": PAGE})
        assert response.is_success
        assert response.headers["access-control-allow-origin"] == PAGE
        assert "Driftloop-Id" in response.headers["access-control-expose-headers"]
        assert client.post(path, json=body, headers={"Origin": "https://b.example"}).status_code == 403


@pytest.mark.parametrize("name", USABLE_NAMES)
def test_clients_reach_a_model_with_this_name(
    serve: Callable[..., Any], manager: StaticModelManager, outbox: Outbox, name: str
) -> None:
    with serve(manager, outbox, model_name=name) as url, httpx.Client(base_url=url) as client:
        paths = [path for path in client.get("/openapi.json").json()["paths"] if path.startswith(("/v1", "/v2"))]
        (v1,) = (path for path in paths if path.endswith(":predict"))
        (v2,) = (path for path in paths if path.endswith("/infer"))
        assert client.post(v1, json=WRITES[2][1]).status_code == 200
        answer = client.post(v2, json=WRITES[3][1]).json()
        assert answer["model_name"] == name
        assert client.get(v2.removesuffix("/infer")).json()["name"] == name
        assert client.get(f"{v2.removesuffix('/infer')}/versions/7/ready").json() == {"name": name, "ready": True}
        assert client.get(v1.removesuffix(":predict")).json() == {"name": name, "ready": True}
