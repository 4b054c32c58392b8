"""Requests that are sent again get the answer that they got before, if a setting says so."""

import asyncio
import weakref
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY
from sklearn.linear_model import LogisticRegression

from driftloop.events import Prediction
from predictor.http.recent_requests import RecentRequests
from predictor.outbox.outbox import Outbox, OutboxUnavailable
from predictor.serving.annotations import Annotations
from tests.support.predictor_app import FRAME, StaticModelManager, outbox_events, serving_model

ROW = {"x": 1.5, "n": 2}


def only_event(outbox: Outbox) -> Prediction:
    (event,) = outbox_events(outbox)
    assert isinstance(event, Prediction)
    return event


def repeat(client: TestClient, time: str = "2013-07-01T05:00:00Z", **changed: Any) -> httpx.Response:
    body = {"instances": [ROW], "keys": ["order-17"], **changed}
    response: httpx.Response = client.post("/predict", json=body, headers={"Driftloop-Time": time})
    return response


def repeated_count() -> float:
    return REGISTRY.get_sample_value("driftloop_predictor_repeated_requests_total") or 0.0


def test_repeated_request_within_the_window_is_the_same_prediction(make_client: Any, outbox: Outbox) -> None:
    with make_client(repeat_window_seconds=60) as client:
        before = repeated_count()
        first = repeat(client)
        assert first.status_code == 200
        for time in ("2013-07-01T05:00:00Z", "2013-07-01T05:01:00Z", "2013-07-01T04:59:00Z"):
            again = repeat(client, time)
            assert again.json() == first.json()
            assert again.headers["Driftloop-Id"] == first.json()["id"]
        assert only_event(outbox).id == first.json()["id"]
        assert repeated_count() == before + 3


@pytest.mark.parametrize(
    "changed",
    [
        {"keys": ["order-18"]},
        {"instances": [{**ROW, "x": 1.25}]},
        {"context": [{"campaign": "spring"}]},
        {"time": "2013-07-01T05:01:01Z"},
    ],
    ids=["key", "features", "context", "time"],
)
def test_another_request_is_a_new_prediction(make_client: Any, changed: Any) -> None:
    with make_client(repeat_window_seconds=60) as client:
        assert repeat(client).json()["id"] != repeat(client, **changed).json()["id"]


@pytest.mark.parametrize("keys", [None, [None]], ids=["no keys", "a null"])
def test_rows_without_keys_are_new_predictions(make_client: Any, keys: Any) -> None:
    fields = {"keys": keys} if keys else {}
    with make_client(repeat_window_seconds=60) as client:
        ids = {client.post("/predict", json={"instances": [ROW], **fields}).json()["id"] for _ in range(2)}
    assert len(ids) == 2


def test_every_request_is_a_new_prediction_by_default(client: TestClient) -> None:
    assert repeat(client).json()["id"] != repeat(client).json()["id"]


def test_repeated_request_is_answered_again_after_a_swap(
    make_client: Any, manager: StaticModelManager, outbox: Outbox
) -> None:
    with make_client(repeat_window_seconds=60) as client:
        first = repeat(client).json()
        manager.serving = serving_model(LogisticRegression().fit(FRAME, [0, 1, 1, 1]), version="8")
        second = repeat(client).json()
        assert (first["version"], second["version"]) == ("7", "8")
        assert first["predictions"] != second["predictions"]
        assert repeat(client).json() == second
    assert len(outbox_events(outbox)) == 2


class CountingBatcher:
    """A batcher whose results a test sets."""

    def __init__(self) -> None:
        self.futures: list[asyncio.Future[Any]] = []

    def submit(self, *_: Any) -> asyncio.Future[Any]:
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]


MODEL: Any = object()
NOW = datetime(2013, 7, 1, tzinfo=UTC)


def requests_of(batcher: CountingBatcher, window_seconds: float = 60, max_rows: int = 100) -> RecentRequests:
    double: Any = batcher
    return RecentRequests(double, window_seconds, max_rows)


async def submit(requests: RecentRequests, key: str) -> asyncio.Task[Any]:
    """Submit a request of one row; return once it waits for its result."""
    task = asyncio.create_task(requests.submit(MODEL, {"x": [1.0]}, 1, NOW, Annotations([key])))
    await asyncio.sleep(0)
    return task


def test_request_that_is_sent_again_meanwhile_waits_for_the_same_result() -> None:
    async def scenario() -> None:
        batcher = CountingBatcher()
        requests = requests_of(batcher)
        first, second, third = [await submit(requests, "a") for _ in range(3)]
        first.cancel()  # its client disconnects
        await asyncio.sleep(0)
        (future,) = batcher.futures
        future.set_result("a result")
        assert [await second, await third] == ["a result", "a result"]

    asyncio.run(scenario())


def test_request_that_failed_is_tried_again() -> None:
    async def scenario() -> None:
        batcher = CountingBatcher()
        requests = requests_of(batcher)
        first = await submit(requests, "a")
        batcher.futures[0].set_exception(OutboxUnavailable("full"))
        with pytest.raises(OutboxUnavailable):
            await first
        second = await submit(requests, "a")
        batcher.futures[1].set_result("a result")
        assert await second == "a result"

    asyncio.run(scenario())


def test_oldest_requests_are_forgotten_over_the_limit_of_rows() -> None:
    async def scenario() -> None:
        batcher = CountingBatcher()
        requests = requests_of(batcher, max_rows=2)
        tasks = [await submit(requests, key) for key in ("a", "b", "c", "b", "a")]
        assert len(batcher.futures) == 4  # a was forgotten
        for future in batcher.futures:
            future.set_result(None)
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


def test_requests_are_forgotten_after_the_window_though_nobody_sends_any() -> None:
    async def scenario() -> None:
        batcher = CountingBatcher()
        requests = requests_of(batcher, window_seconds=0.01)
        task = await submit(requests, "a")
        batcher.futures[0].set_result(result := Result())
        await task
        found = weakref.ref(result)
        del result, task
        batcher.futures.clear()
        while found() is not None:
            await asyncio.sleep(0.001)

    asyncio.run(scenario())


class Result:
    """A result that can be referred to weakly."""
