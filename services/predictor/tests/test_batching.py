"""Rows are scored together, and each request's fate is its own."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from driftloop.events import Prediction, now
from predictor.outbox.outbox import NotKept, Outbox
from predictor.serving.batching import Answer, Batcher, QueueFull
from predictor.serving.model_manager import Serving, Unscorable
from tests.support.predictor_app import events, serving


class Gated:
    """An estimator that answers its x, once it is let; notes how many rows it was given at a time."""

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


class Asking:
    """A batcher and a way to ask it."""

    def __init__(self, batcher: Batcher, gate: Gated, version: Serving) -> None:
        self.batcher, self.gate, self.version = batcher, gate, version

    def ask(self, *xs: float, version: Serving | None = None) -> asyncio.Future[Answer]:
        columns: Any = {"x": list(xs), "n": [1] * len(xs)}
        return self.batcher.score(version or self.version, columns, len(xs), now())

    async def until_scoring(self) -> None:
        """The scoring thread holds a batch that it cannot finish."""
        while self.batcher.queued_rows:
            await asyncio.sleep(0.001)


@asynccontextmanager
async def asking(outbox: Outbox, max_batch_rows: int = 100, max_queued_rows: int = 1_000) -> AsyncIterator[Asking]:
    gate = Gated()
    batcher = Batcher("m", outbox, max_batch_rows, max_queued_rows)
    try:
        yield Asking(batcher, gate, serving(gate, method="predict"))
    finally:
        gate.open.set()
        batcher.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(test(), 20)

    asyncio.run(limited())


def test_what_arrives_while_a_batch_is_scored_forms_the_next(outbox: Outbox) -> None:
    async def test() -> None:
        async with asking(outbox) as a:
            a.gate.open.clear()
            first = a.ask(1)
            await a.until_scoring()
            others = [a.ask(x) for x in range(2, 12)]
            a.gate.open.set()
            answers = await asyncio.gather(first, *others)
            assert [answer.scores for answer in answers] == [[float(x)] for x in range(1, 12)]
            assert a.gate.batches == [1, 10]
            kept = events(outbox)
            assert [event.id for event in kept] == [answer.id for answer in answers]
            assert [e.features["x"] for e in kept if isinstance(e, Prediction)] == [[float(x)] for x in range(1, 12)]

    run(test)


def test_a_batch_has_at_most_the_rows_of_the_setting_and_splits_no_request(outbox: Outbox) -> None:
    async def test() -> None:
        async with asking(outbox, max_batch_rows=5) as a:
            a.gate.open.clear()
            first = a.ask(1)
            await a.until_scoring()
            others = [a.ask(1, 2), a.ask(1, 2), a.ask(1, 2), a.ask(*range(7))]
            a.gate.open.set()
            await asyncio.gather(first, *others)
            assert a.gate.batches == [1, 4, 2, 7]

    run(test)


def test_one_bad_row_fails_its_own_request_only(outbox: Outbox) -> None:
    async def test() -> None:
        async with asking(outbox) as a:
            a.gate.open.clear()
            first = a.ask(1)
            await a.until_scoring()
            others = [a.ask(x) for x in (2, 3, -4, 5, 6)]
            a.gate.open.set()
            answers = await asyncio.gather(first, *others, return_exceptions=True)
            assert [answer.scores for answer in answers if isinstance(answer, Answer)] == [[1], [2], [3], [5], [6]]
            assert isinstance(answers[3], Unscorable)
            assert "x is negative" in str(answers[3])
            assert len(events(outbox)) == 5

    run(test)


def test_clients_that_go_away_leave_the_others_of_their_batch_their_answers(outbox: Outbox) -> None:
    async def test() -> None:
        async with asking(outbox) as a:
            a.gate.open.clear()
            first = a.ask(1)
            await a.until_scoring()
            first.cancel()  # while it is scored
            others = [a.ask(x) for x in (2, 3, 4)]
            others[1].cancel()  # while it waits
            a.gate.open.set()
            answers = await asyncio.gather(first, *others, return_exceptions=True)
            assert [answer.scores for answer in answers if isinstance(answer, Answer)] == [[2.0], [4.0]]
            assert a.gate.batches == [1, 2]  # nobody waits for the second any more
            assert (await a.ask(9)).scores == [9.0]

    run(test)


def test_a_full_queue_refuses_at_once_and_takes_again_when_it_is_empty(outbox: Outbox) -> None:
    async def test() -> None:
        async with asking(outbox, max_queued_rows=3) as a:
            a.gate.open.clear()
            first = a.ask(1)
            await a.until_scoring()
            others = [a.ask(2, 3), a.ask(4)]
            with pytest.raises(QueueFull, match="DRIFTLOOP_PREDICTOR__MAX_QUEUED_ROWS"):
                a.ask(5)
            a.gate.open.set()
            await asyncio.gather(first, *others)
            assert (await a.ask(6)).scores == [6.0]

    run(test)


def test_after_a_swap_requests_are_scored_by_the_version_that_they_were_checked_against(outbox: Outbox) -> None:
    async def test() -> None:
        async with asking(outbox) as a:

            class Negated:
                def predict(self, frame: Any) -> Any:
                    return -frame["x"].to_numpy()

            new = serving(Negated(), method="predict", version="8")
            a.gate.open.clear()
            first = a.ask(1)
            await a.until_scoring()
            others = [a.ask(2), a.ask(3, version=new), a.ask(4, version=new), a.ask(5)]
            a.gate.open.set()
            answers = await asyncio.gather(first, *others)
            assert [answer.scores[0] for answer in answers] == [1, 2, -3, -4, 5]
            versions = ["7", "7", "8", "8", "7"]
            assert [answer.serving.version for answer in answers] == versions
            assert [e.version for e in events(outbox) if isinstance(e, Prediction)] == versions

    run(test)


def test_without_its_event_no_request_of_the_batch_is_answered(outbox: Outbox) -> None:
    async def test() -> None:
        async with asking(outbox) as a:
            a.gate.open.clear()
            waiting = [a.ask(1), a.ask(2)]
            await a.until_scoring()
            outbox.close()  # as a disk that fails
            a.gate.open.set()
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(answer, NotKept) for answer in answers)

    run(test)


def test_an_answer_of_several_outputs_is_cut_by_rows(outbox: Outbox) -> None:
    async def test() -> None:
        async with asking(outbox) as a:

            class Several:
                def predict_proba(self, frame: Any) -> Any:
                    x = frame["x"].to_numpy()
                    return [np.column_stack([x, 1 - x]), np.column_stack([x, x, x])]

            several = serving(Several())
            one, two = await asyncio.gather(a.ask(0.25, version=several), a.ask(0.5, 1, version=several))
            assert one.scores == [[0.25, 0.75, 0.25, 0.25, 0.25]]
            assert [array.shape for array in two.output.arrays] == [(2, 2), (2, 3)]
            assert two.output.lists()[1] == [[1.0, 0.0], [1.0, 1.0, 1.0]]

    run(test)
