"""Requests, retries and outcomes of a replay, against a real HTTP server."""

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pandas as pd
import pytest
import typer
from rich.console import Console

from producer import main
from producer.progress import show_progress
from producer.replay import PredictorBusy, Replay, ReplayStats, split_requests
from tests.support.synthetic_usecase import make_use_case

USE_CASE = make_use_case(categorical_features=("c",), timezone="UTC")
START = datetime(2013, 7, 1, 20, tzinfo=UTC)
ROWS = pd.DataFrame(
    {
        "at": pd.to_datetime([START + timedelta(hours=n) for n in range(8)], utc=True),
        "x": [1.0, None, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
        "c": list("abcdefgh"),
        "y": pd.array([1, 0, None, 1, 0, 1, 0, 1], dtype="Int8"),
    }
)


class FakePredictor(ThreadingHTTPServer):
    """Responds as the predictor does, after the statuses that a test has queued."""

    def __init__(self) -> None:
        self.queued_statuses: list[int] = []
        self.requests: list[tuple[str, str, dict[str, Any]]] = []

        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = server.queued_statuses.pop(0) if server.queued_statuses else 200
                if status == 200:
                    server.requests.append((self.path, self.headers["Driftloop-Time"], body))
                body_bytes = json.dumps({"id": f"id{len(server.requests)}", "version": "1"}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body_bytes)))
                self.end_headers()
                self.wfile.write(body_bytes)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[FakePredictor]:
    with FakePredictor() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_split_requests_never_spans_two_days() -> None:
    assert [len(request) for request in split_requests(USE_CASE, ROWS, size=3)] == [3, 1, 3, 1]


def test_replay_sends_rows_in_order_and_outcomes_when_known(server: FakePredictor) -> None:
    replay = Replay(USE_CASE, server.url, rows_per_request=2, rate=None, outcomes_after=timedelta(hours=3))
    stats = asyncio.run(replay.run(ROWS))
    assert [path for path, _, _ in server.requests] == [
        *("/predict", "/predict", "/outcomes", "/predict", "/outcomes", "/predict"),
        *("/outcomes", "/outcomes"),
    ]
    assert server.requests[0][2] == {"instances": [{"x": 1.0, "c": "a"}, {"x": None, "c": "b"}]}
    assert server.requests[0][1] == (START + timedelta(hours=1)).isoformat()
    assert server.requests[2][2] == {
        "outcomes": [{"id": "id1", "index": 0, "outcome": 1.0}, {"id": "id1", "index": 1, "outcome": 0.0}]
    }
    assert server.requests[2][1] == (START + timedelta(hours=4)).isoformat()
    assert (stats.rows, stats.outcomes, stats.by_status(), stats.by_version()) == (8, 7, {200: 4}, {"1": 4})


@pytest.mark.parametrize(
    ("targets", "outcomes"),
    [
        (pd.Series([1.5, None]), [1.5]),
        (pd.Series(["paid", None], dtype=object), ["paid"]),
        (pd.Series(["paid", None], dtype="category"), ["paid"]),
        (pd.array([True, None], dtype="boolean"), [True]),
        (pd.Series([3, 4]), [3, 4]),
    ],
    ids=["numbers", "texts", "categories", "booleans", "integers"],
)
def test_replay_reports_outcomes_as_the_dataset_has_them(
    targets: Any, outcomes: list[object], server: FakePredictor
) -> None:
    replay = Replay(USE_CASE, server.url, rows_per_request=2, rate=None, outcomes_after=timedelta(0))
    asyncio.run(replay.run(ROWS[:2].assign(y=targets)))
    reported = [outcome["outcome"] for outcome in server.requests[-1][2]["outcomes"]]
    assert [(type(value), value) for value in reported] == [(type(value), value) for value in outcomes]


@pytest.mark.parametrize(
    ("days", "rows"),
    [((None, None), 8), ((datetime(2013, 7, 2), None), 4), ((None, datetime(2013, 7, 2)), 4)],
    ids=["all", "from a day on", "up to a day"],
)
def test_rows_without_a_first_or_last_day_are_not_bounded(
    days: tuple[datetime | None, datetime | None], rows: int
) -> None:
    assert len(main._select_rows(replace(USE_CASE, load_rows=ROWS.copy), *days)) == rows


def test_days_without_rows_are_refused_with_the_days_that_have_some() -> None:
    with pytest.raises(typer.BadParameter, match=r"8 rows are from 2013-07-01 to 2013-07-02"):
        main._select_rows(replace(USE_CASE, load_rows=ROWS.copy), datetime(2014, 1, 1), None)


def test_replay_repeats_and_counts_rejected_requests(server: FakePredictor) -> None:
    server.queued_statuses = [503, 503, 429]
    stats = asyncio.run(Replay(USE_CASE, server.url, rate=None, outcomes_after=None).run(ROWS[:2]))
    assert stats.by_status() == {200: 2}
    assert stats.retried == {"503": 2, "429": 1}


def test_replay_gives_up_after_retry_timeout(server: FakePredictor) -> None:
    server.queued_statuses = [503] * 5
    with pytest.raises(PredictorBusy, match="503"):
        asyncio.run(Replay(USE_CASE, server.url, rate=None, retry_timeout_seconds=0).run(ROWS))


def test_replay_counts_failed_request_without_repeating_it(server: FakePredictor) -> None:
    server.queued_statuses = [422]
    stats = asyncio.run(Replay(USE_CASE, server.url, rate=None, outcomes_after=None).run(ROWS[:2]))
    assert stats.by_status() == {422: 1, 200: 1}


def test_replay_stops_after_current_request(server: FakePredictor) -> None:
    replay = Replay(USE_CASE, server.url, rate=None, outcomes_after=None)
    stats = asyncio.run(replay.run(ROWS, lambda stats, _: replay.stop() if stats.rows == 3 else None))
    assert stats.rows == 3


def test_replay_rate_spreads_rows(server: FakePredictor) -> None:
    replay = Replay(USE_CASE, server.url, rate=20, outcomes_after=None)
    stats = asyncio.run(replay.run(ROWS[:4]))
    assert stats.responses[-1].at - stats.responses[0].at >= 0.1


def test_replay_counts_how_far_it_is_behind(server: FakePredictor) -> None:
    fast = asyncio.run(Replay(USE_CASE, server.url, rate=None, outcomes_after=None).run(ROWS))
    assert fast.seconds_behind == 0
    late = asyncio.run(Replay(USE_CASE, server.url, rate=1e9, outcomes_after=None).run(ROWS))
    assert 0 < late.seconds_behind <= late.seconds


@pytest.mark.parametrize(
    ("seconds", "seconds_behind", "behind"),
    [(4, 3, True), (4, 1, False), (3_600, 3, False), (3_600, 900, True)],
    ids=["soon", "a little", "a short interruption", "long"],
)
def test_replay_is_behind_if_the_pace_is_not_reached(seconds: float, seconds_behind: float, behind: bool) -> None:
    assert ReplayStats(seconds=seconds, seconds_behind=seconds_behind).is_behind == behind


def test_progress_without_a_terminal_is_a_line_now_and_then_and_one_if_it_is_behind() -> None:
    output = io.StringIO()
    console = Console(file=output, width=40)
    times = iter([0.0, 9.0, 11.0, 12.0, 22.0])
    with show_progress(console, 2_000, "--rate 200", 1, lambda: next(times)) as show:
        for rows in (300, 400, 440, 800):
            show(ReplayStats(rows=rows, seconds=10, seconds_behind=8), START)
    lines = output.getvalue().splitlines()
    assert lines[0].startswith("8 s behind --rate 200: 30 rows per second with 1 per request")
    assert lines[0].endswith("--rows 20")
    assert [line.split(" rows")[0] for line in lines[1:]] == [
        "2013-07-01 20:00 400 of 2,000",
        "2013-07-01 20:00 800 of 2,000",
    ]
