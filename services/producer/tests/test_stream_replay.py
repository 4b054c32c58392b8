"""Requests, retries and outcomes of a replay, against a real HTTP server."""

import asyncio
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from driftloop.usecase import UseCase
from producer.replay import Refused, Replay, requests

USE_CASE = UseCase(
    name="m",
    numbers=("x",),
    categories=("c",),
    outcome="y",
    time="at",
    timezone="UTC",
    pipeline=LogisticRegression,
    pointer=Path("m.dvc"),
    rows=pd.DataFrame,
)
START = datetime(2013, 7, 1, 20, tzinfo=UTC)
ROWS = pd.DataFrame(
    {
        "at": pd.to_datetime([START + timedelta(hours=n) for n in range(8)], utc=True),
        "x": [1.0, None, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
        "c": list("abcdefgh"),
        "y": pd.array([1, 0, None, 1, 0, 1, 0, 1], dtype="Int8"),
    }
)


class Server(ThreadingHTTPServer):
    """Answers as the predictor does, except for the statuses that a test puts before."""

    def __init__(self) -> None:
        self.before: list[int] = []
        self.seen: list[tuple[str, str, dict[str, Any]]] = []

        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = server.before.pop(0) if server.before else 200
                if status == 200:
                    server.seen.append((self.path, self.headers["Driftloop-Time"], body))
                answer = json.dumps({"id": f"id{len(server.seen)}", "version": "1"}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_no_request_spans_two_days() -> None:
    assert [len(request) for request in requests(USE_CASE, ROWS, size=3)] == [3, 1, 3, 1]


def test_rows_go_in_order_with_their_time_and_outcomes_follow_when_they_are_known(server: Server) -> None:
    replay = Replay(USE_CASE, server.url, rows_per_request=2, rate=None, outcomes_after=timedelta(hours=3))
    tally = asyncio.run(replay.run(ROWS))
    assert [path for path, _, _ in server.seen] == [
        *("/predict", "/predict", "/outcomes", "/predict", "/outcomes", "/predict"),
        *("/outcomes", "/outcomes"),
    ]
    assert server.seen[0][2] == {"instances": [{"x": 1.0, "c": "a"}, {"x": None, "c": "b"}]}
    assert server.seen[0][1] == (START + timedelta(hours=1)).isoformat()
    assert server.seen[2][2] == {
        "outcomes": [{"id": "id1", "index": 0, "outcome": 1.0}, {"id": "id1", "index": 1, "outcome": 0.0}]
    }
    assert server.seen[2][1] == (START + timedelta(hours=4)).isoformat()
    assert (tally.rows, tally.outcomes, tally.by_status(), tally.by_version()) == (8, 7, {200: 4}, {"1": 4})


def test_what_the_server_refuses_for_now_is_tried_again_and_counted(server: Server) -> None:
    server.before = [503, 503, 429]
    tally = asyncio.run(Replay(USE_CASE, server.url, rate=None, outcomes_after=None).run(ROWS[:2]))
    assert tally.by_status() == {200: 2}
    assert tally.retried == {"503": 2, "429": 1}


def test_patience_ends(server: Server) -> None:
    server.before = [503] * 5
    with pytest.raises(Refused, match="503"):
        asyncio.run(Replay(USE_CASE, server.url, rate=None, patience_seconds=0).run(ROWS))


def test_an_answer_that_is_no_prediction_is_counted_and_not_repeated(server: Server) -> None:
    server.before = [422]
    tally = asyncio.run(Replay(USE_CASE, server.url, rate=None, outcomes_after=None).run(ROWS[:2]))
    assert tally.by_status() == {422: 1, 200: 1}


def test_a_stopped_replay_ends_after_the_request_that_is_under_way(server: Server) -> None:
    replay = Replay(USE_CASE, server.url, rate=None, outcomes_after=None)
    tally = asyncio.run(replay.run(ROWS, lambda tally, _: replay.stop() if tally.rows == 3 else None))
    assert tally.rows == 3


def test_a_rate_spreads_the_rows(server: Server) -> None:
    replay = Replay(USE_CASE, server.url, rate=20, outcomes_after=None)
    tally = asyncio.run(replay.run(ROWS[:4]))
    assert tally.answers[-1].at - tally.answers[0].at >= 0.1
