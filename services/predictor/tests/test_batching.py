"""The batcher scores requests together, and each request has its own result."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, Schema
from mlflow.types.schema import DataType

from driftloop.events import Prediction, now
from driftloop.registry.loading import LoadedModel
from predictor.outbox.outbox import Outbox, OutboxUnavailable
from predictor.serving.batching import Batcher, PredictionResult, QueueFull
from predictor.serving.schema import build_schema
from predictor.serving.serving_model import PredictionFailed, ServingModel
from tests.support.predictor_app import outbox_events, serving_model


class GatedEstimator:
    """An estimator that returns x once its gate is open, and records the number of rows of each call."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.batches: list[int] = []

    def predict(self, frame: Any) -> Any:
        assert self.open.wait(10)
        self.batches.append(len(frame))
        if (frame["x"] < 0).any():
            raise ValueError("x is negative")
        return frame["x"].to_numpy()


class BatcherHarness:
    """A batcher with an estimator that a test can block."""

    def __init__(self, batcher: Batcher, gate: GatedEstimator, version: ServingModel) -> None:
        self.batcher, self.gate, self.version = batcher, gate, version

    def submit(self, *xs: float, version: ServingModel | None = None) -> asyncio.Future[PredictionResult]:
        columns: Any = {"x": list(xs), "n": [1] * len(xs)}
        return self.batcher.submit(version or self.version, columns, len(xs), now())

    async def wait_until_scoring(self) -> None:
        """Wait until the scoring thread has taken all requests."""
        while self.batcher.queued_rows:
            await asyncio.sleep(0.001)


@asynccontextmanager
async def batcher_harness(
    outbox: Outbox, max_batch_rows: int = 100, max_queued_rows: int = 1_000
) -> AsyncIterator[BatcherHarness]:
    gate = GatedEstimator()
    batcher = Batcher("m", outbox, max_batch_rows, max_queued_rows)
    version = serving_model(gate, method="predict")
    gate.batches.clear()
    try:
        yield BatcherHarness(batcher, gate, version)
    finally:
        gate.open.set()
        batcher.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(test(), 20)

    asyncio.run(limited())


def test_batcher_scores_requests_that_arrive_during_a_batch_in_the_next_batch(outbox: Outbox) -> None:
    async def test() -> None:
        async with batcher_harness(outbox) as harness:
            harness.gate.open.clear()
            first = harness.submit(1)
            await harness.wait_until_scoring()
            following = [harness.submit(x) for x in range(2, 12)]
            harness.gate.open.set()
            results = await asyncio.gather(first, *following)
            assert [result.scores for result in results] == [[float(x)] for x in range(1, 12)]
            assert harness.gate.batches == [1, 10]
            stored = outbox_events(outbox)
            assert [event.id for event in stored] == [result.id for result in results]
            assert [e.features["x"] for e in stored if isinstance(e, Prediction)] == [[float(x)] for x in range(1, 12)]

    run(test)


def test_batcher_limits_rows_of_a_batch_without_splitting_requests(outbox: Outbox) -> None:
    async def test() -> None:
        async with batcher_harness(outbox, max_batch_rows=5) as harness:
            harness.gate.open.clear()
            first = harness.submit(1)
            await harness.wait_until_scoring()
            following = [harness.submit(1, 2), harness.submit(1, 2), harness.submit(1, 2), harness.submit(*range(7))]
            harness.gate.open.set()
            await asyncio.gather(first, *following)
            assert harness.gate.batches == [1, 4, 2, 7]

    run(test)


def test_batcher_fails_only_the_request_with_the_bad_row(outbox: Outbox) -> None:
    async def test() -> None:
        async with batcher_harness(outbox) as harness:
            harness.gate.open.clear()
            first = harness.submit(1)
            await harness.wait_until_scoring()
            following = [harness.submit(x) for x in (2, 3, -4, 5, 6)]
            harness.gate.open.set()
            results = await asyncio.gather(first, *following, return_exceptions=True)
            assert [result.scores for result in results if isinstance(result, PredictionResult)] == [
                [1],
                [2],
                [3],
                [5],
                [6],
            ]
            assert isinstance(results[3], PredictionFailed)
            assert "x is negative" in str(results[3])
            assert len(outbox_events(outbox)) == 5

    run(test)


def test_batcher_resolves_other_requests_after_a_cancelled_one(outbox: Outbox) -> None:
    async def test() -> None:
        async with batcher_harness(outbox) as harness:
            harness.gate.open.clear()
            first = harness.submit(1)
            await harness.wait_until_scoring()
            first.cancel()  # while it is scored
            following = [harness.submit(x) for x in (2, 3, 4)]
            following[1].cancel()  # while it waits
            harness.gate.open.set()
            results = await asyncio.gather(first, *following, return_exceptions=True)
            assert [result.scores for result in results if isinstance(result, PredictionResult)] == [[2.0], [4.0]]
            assert harness.gate.batches == [1, 2]  # nobody waits for the second any more
            assert (await harness.submit(9)).scores == [9.0]

    run(test)


def test_batcher_refuses_requests_while_its_queue_is_full(outbox: Outbox) -> None:
    async def test() -> None:
        async with batcher_harness(outbox, max_queued_rows=3) as harness:
            harness.gate.open.clear()
            first = harness.submit(1)
            await harness.wait_until_scoring()
            following = [harness.submit(2, 3), harness.submit(4)]
            with pytest.raises(QueueFull, match="DRIFTLOOP_PREDICTOR__MAX_QUEUED_ROWS"):
                harness.submit(5)
            harness.gate.open.set()
            await asyncio.gather(first, *following)
            assert (await harness.submit(6)).scores == [6.0]

    run(test)


def test_batcher_scores_each_request_with_the_version_it_was_submitted_for(outbox: Outbox) -> None:
    async def test() -> None:
        async with batcher_harness(outbox) as harness:

            class Negated:
                def predict(self, frame: Any) -> Any:
                    return -frame["x"].to_numpy()

            new = serving_model(Negated(), method="predict", version="8")
            harness.gate.open.clear()
            first = harness.submit(1)
            await harness.wait_until_scoring()
            following = [
                harness.submit(2),
                harness.submit(3, version=new),
                harness.submit(4, version=new),
                harness.submit(5),
            ]
            harness.gate.open.set()
            results = await asyncio.gather(first, *following)
            assert [result.scores[0] for result in results] == [1, 2, -3, -4, 5]
            assert [result.model.version for result in results] == ["7", "7", "8", "8", "7"]
            events = {e.id: e.version for e in outbox_events(outbox) if isinstance(e, Prediction)}
            assert events == {result.id: result.model.version for result in results}

    run(test)


def test_batcher_fails_all_requests_of_a_batch_whose_events_cannot_be_stored(outbox: Outbox) -> None:
    async def test() -> None:
        async with batcher_harness(outbox) as harness:
            harness.gate.open.clear()
            waiting = [harness.submit(1), harness.submit(2)]
            await harness.wait_until_scoring()
            outbox.close()  # as a disk that fails
            harness.gate.open.set()
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(result, OutboxUnavailable) for result in results)

    run(test)


def test_batcher_splits_several_outputs_by_request(outbox: Outbox) -> None:
    async def test() -> None:
        async with batcher_harness(outbox) as harness:

            class Several:
                def predict_proba(self, frame: Any) -> Any:
                    x = frame["x"].to_numpy()
                    return [np.column_stack([x, 1 - x]), np.column_stack([x, x, x])]

            several = serving_model(Several())
            one, two = await asyncio.gather(
                harness.submit(0.25, version=several), harness.submit(0.5, 1, version=several)
            )
            assert one.scores == [[0.25, 0.75, 0.25, 0.25, 0.25]]
            assert [array.shape for array in two.output.arrays] == [(2, 2), (2, 3)]
            assert two.output.to_lists()[1] == [[1.0, 0.0], [1.0, 1.0, 1.0]]

    run(test)


def test_batcher_keeps_requests_apart_whose_nulls_would_change_each_others_numbers(outbox: Outbox) -> None:
    class Recording:
        """An estimator that returns its integers, and records the dtype of each batch."""

        def __init__(self) -> None:
            self.open, self.dtypes = threading.Event(), list[str]()

        def predict(self, frame: Any) -> Any:
            assert self.open.wait(10)
            self.dtypes.append(str(frame["n"].dtype))
            return frame["n"].fillna(-1).to_numpy()

    async def test() -> None:
        async with batcher_harness(outbox) as harness:
            estimator = Recording()
            signature = ModelSignature(Schema([ColSpec(DataType.long, "n", required=False)]))
            loaded = LoadedModel(estimator, Model(signature=signature), None)
            version = ServingModel("7", build_schema(signature, 100), loaded)
            large = 2**53 + 1
            first = harness.batcher.submit(version, {"n": [0]}, 1, now())
            await harness.wait_until_scoring()
            following = [harness.batcher.submit(version, {"n": [n]}, 1, now()) for n in (large, None, large, None, 7)]
            estimator.open.set()
            results = await asyncio.gather(first, *following)
            assert [result.scores for result in results] == [[0], [large], [-1], [large], [-1], [7]]
            assert estimator.dtypes == ["int64", "int64", "float64"]
            with pytest.raises(PredictionFailed, match=r"row 1, column n: an integer above 2\^53 is rounded"):
                await harness.batcher.submit(version, {"n": [None, large]}, 2, now())
            assert version.record.consecutive_failures == 0  # the request was at fault

    run(test)


def test_batcher_records_failures_and_successes_of_the_model(outbox: Outbox) -> None:
    async def test() -> None:
        async with batcher_harness(outbox) as harness:
            record = harness.version.record
            for count in (1, 2):
                with pytest.raises(PredictionFailed, match="x is negative"):
                    await harness.submit(-1)
                assert (record.consecutive_failures, record.has_succeeded) == (count, False)
            await harness.submit(1)
            assert (record.consecutive_failures, record.last_columns) == (0, {"x": [1], "n": [1]})

    run(test)


def test_batcher_fails_only_the_request_whose_output_has_another_number_of_rows(outbox: Outbox) -> None:
    class Forgetful:
        """An estimator that forgets negative rows."""

        def predict(self, frame: Any) -> Any:
            x = frame["x"].to_numpy()
            return x[x >= 0]

    async def test() -> None:
        async with batcher_harness(outbox) as harness:
            version = serving_model(Forgetful(), method="predict")
            results = await asyncio.gather(
                *(harness.submit(x, version=version) for x in (1, -2, 3)), return_exceptions=True
            )
            assert [result.scores for result in results if isinstance(result, PredictionResult)] == [[1.0], [3.0]]
            assert isinstance(results[1], PredictionFailed)
            assert "0 predictions for 1 rows" in str(results[1])
            assert len(outbox_events(outbox)) == 2

    run(test)
