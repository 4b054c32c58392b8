"""What the soak concludes from its samples, and the client that sends its load; ``make soak`` runs it."""

import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks import soak_findings, soak_trends
from benchmarks.soak_findings import Beyond, Findings, Period
from benchmarks.soak_samples import folder_mb
from benchmarks.soak_trends import Bound, Sample
from tests.support import load_client, wrk
from tests.support.chaos.counts import Resources
from tests.support.chaos.load import Answers, SteadyLoad
from tests.support.load_client import Interval
from tests.support.waiting import wait_until

RATE = 100.0
MINUTE = 60


def sample(time: float, **fields: float) -> Sample:
    values = {"unread": 0.0, "outbox": 0.0, "outbox_seconds": 0.0, "lag": 0.0, "memory": 100.0, "files": 10.0, **fields}
    return Sample(
        time,
        {"predictions": values["lag"]},
        values["unread"],
        values["outbox"],
        values["outbox_seconds"],
        {"predictor": Resources(values["memory"], int(values["files"]), 0)},
        {"kafka": values.get("kafka", 0.0), "predictor": 1.0},
    )


def interval(end: float, answered: int = int(RATE), **statuses: int) -> Interval:
    by_status = {200: answered, **{int(status.removeprefix("s")): count for status, count in statuses.items()}}
    return Interval(end, by_status, {}, [10.0] * answered)


def growing(name: str, per_second: float, seconds: int = 3 * MINUTE) -> list[Sample]:
    return [sample(second, **{name: per_second * second}) for second in range(seconds + 1)]


def steady_answers(seconds: int = 3 * MINUTE) -> list[Interval]:
    return [interval(second) for second in range(1, seconds + 1)]


def test_slope_is_that_of_most_samples(random_source: random.Random) -> None:
    times = list(range(100))
    values = [3.0 * each + 7 for each in times]
    for peak in random_source.sample(times, 20):
        values[peak] += 1_000
    assert soak_trends.slope(times, values) == pytest.approx(3)


@pytest.mark.parametrize("times", [[], [5.0], [5.0, 5.0]], ids=["none", "one", "one moment"])
def test_fewer_than_two_moments_have_no_slope(times: list[float]) -> None:
    assert soak_trends.slope(times, times) == 0


def test_last_two_thirds_are_of_the_time_not_of_the_samples() -> None:
    times = [0.0, 1.0, 2.0, 3.0, 30.0, 60.0, 90.0]
    assert times[soak_trends.last_two_thirds(times)] == [30, 60, 90]
    assert soak_trends.last_two_thirds([]) == slice(0, 0)


@pytest.mark.parametrize(
    ("per_hour", "seconds", "is_flat"),
    [(0, 3_600, True), (40, 3_600, False), (29, 3_600, True), (-500, 3_600, True), (200, 180, True), (900, 180, False)],
    ids=["same", "above", "below", "less", "noise of a short time", "more than noise"],
)
def test_growth_is_flat_up_to_its_bound_or_noise(per_hour: float, seconds: int, is_flat: bool) -> None:
    times = [float(second) for second in range(0, seconds + 1, 5)]
    values = [100 + per_hour * second / 3_600 for second in times]
    judged = soak_trends.trend("memory", "MB", times, values, Bound(30, 20))
    assert judged.is_flat is is_flat
    assert judged.per_hour == pytest.approx(per_hour)


def test_beginning_is_not_judged() -> None:
    times = [float(second) for second in range(3_600)]
    values = [min(second, 1_100) for second in times]
    assert soak_trends.trend("memory", "MB", times, values, Bound(30, 20)).per_hour == 0


@pytest.mark.parametrize(
    ("field", "per_second", "name"),
    [
        ("unread", 20, "unread events"),
        ("outbox", 20, "outbox"),
        ("lag", 1, "lag on predictions"),
        ("memory", 1, "memory of predictor"),
        ("files", 1, "files of predictor"),
    ],
    ids=["unread", "outbox", "lag", "memory", "files"],
)
def test_what_grows_is_named(field: str, per_second: float, name: str) -> None:
    judged = soak_trends.trends(growing(field, per_second), steady_answers(), RATE)
    assert [trend.name for trend in judged if not trend.is_flat] == [name]


def test_disk_is_that_of_a_million_answered_rows() -> None:
    per_row = 0.002
    samples = growing("kafka", per_row * RATE)
    assert soak_trends.disk_mb_per_million_rows(samples, steady_answers()) == pytest.approx(per_row * 1e6, rel=0.02)


@pytest.mark.parametrize(
    ("samples", "answers", "too_slow"),
    [
        (growing("unread", 0), steady_answers(), []),
        (growing("unread", 1.5), steady_answers(), []),
        (growing("unread", 5), steady_answers(), [soak_trends.DRIFT_WORKER]),
        (growing("outbox", 5), steady_answers(), [soak_trends.RELAY]),
        (growing("unread", 0), [interval(second, 90) for second in range(1, 181)], [soak_trends.PREDICTOR]),
        (growing("unread", 0), [*steady_answers(), interval(181, s503=1)], [soak_trends.PREDICTOR]),
        (growing("unread", 0), [], [soak_trends.PREDICTOR]),
    ],
    ids=["flat", "noise", "worker", "relay", "slow answers", "refused", "no answers"],
)
def test_probe_names_what_does_not_keep_up(
    samples: Sequence[Sample], answers: Sequence[Interval], too_slow: list[str]
) -> None:
    assert soak_trends.judge_probe(RATE, samples, answers).too_slow == too_slow


@pytest.mark.parametrize("start", [10.0, 100.0, 480.0, 5_000.0], ids=["far below", "below", "just below", "above"])
def test_limit_is_the_highest_rate_that_passes(start: float) -> None:
    tried: list[float] = []

    def keeps_up(rate: float) -> bool:
        tried.append(rate)
        return rate <= 500

    limit = soak_trends.find_limit(keeps_up, start, 1.15)
    assert limit in tried
    assert limit <= 500 < limit * 1.15


def test_nothing_that_keeps_up_is_no_limit() -> None:
    assert soak_trends.find_limit(lambda _: False, 100, 1.15) == 0


def test_signs_are_in_the_order_in_which_they_came() -> None:
    samples = [sample(second, lag=second / 2, outbox_seconds=max(second - 30, 0)) for second in range(MINUTE)]
    answers = [
        interval(second, 100 if second < 50 else 10, **({"s503": 90} if second >= 50 else {}))
        for second in range(1, 60)
    ]
    signs = soak_trends.first_signs(RATE, samples, answers)
    assert [round(seconds) for seconds, _ in signs] == [21, 41, 50, 50]
    assert [seconds for seconds, what in signs if "503" in what] == [50]
    assert soak_trends.first_signs(RATE, growing("lag", 0), steady_answers()) == []


def test_folder_takes_what_its_files_take(tmp_path: Path) -> None:
    assert folder_mb(tmp_path / "missing") == 0
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file").write_bytes(random.Random(1).randbytes(2**20))
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(10 * 2**20)
    assert 1 <= folder_mb(tmp_path) < 2


def found(memory_per_second: float) -> Findings:
    steady = Period(RATE, growing("memory", memory_per_second), SteadyLoad(steady_answers(), Answers(failed=0)))
    bare = [each._replace(time=each.time + 180, resources={}, disk_mb={}) for each in growing("unread", 5)]
    late = Period(150, bare, SteadyLoad([interval(190), interval(200, s503=7)], Answers()))
    probe = soak_trends.judge_probe(RATE, steady.samples, steady.intervals)
    trends = soak_trends.trends(steady.samples, steady.intervals, RATE)
    beyond = Beyond(late, [(20.0, "late")], soak_trends.statuses(late.intervals), Counter({"2": 7}), 4.5)
    return Findings(200, 100, [probe], steady, trends, beyond)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_findings_have_figures_details_and_a_picture(tmp_path: Path, suffix: str) -> None:
    findings = found(memory_per_second=1)
    figures = soak_findings.figures(findings)
    assert figures["requests_per_second"] == pytest.approx(RATE)
    assert figures["not_flat"] == 1
    assert figures["memory_growth_mb_per_hour"] == pytest.approx(3_600)
    assert (figures["failed_requests"], figures["beyond_refused_requests"]) == (0, 7)
    assert soak_findings.has_failed(findings)
    assert not soak_findings.has_failed(found(memory_per_second=0))
    assert json.loads(json.dumps(soak_findings.details(findings)))["retry_after"] == {"2": 7}
    soak_findings.print_tables(findings)
    file = tmp_path / f"soak{suffix}"
    soak_findings.draw(findings, file)
    assert file.stat().st_size > 10_000


class _Answering(BaseHTTPRequestHandler):
    """Answers each second request with a 503."""

    protocol_version = "HTTP/1.1"
    requests = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).requests += 1
        content = json.dumps({"version": "1", "id": "x", "predictions": [0.5]}).encode()
        self.send_response(503 if self.requests % 2 else 200)
        if self.requests % 2:
            self.send_header("Retry-After", "2")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.integration
def test_client_keeps_its_rate_and_sums_up_what_it_gets(tmp_path: Path) -> None:
    handler = type("Handler", (_Answering,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    bodies, file = wrk.write_bodies(tmp_path / "bodies", ["{}"]), tmp_path / "intervals.jsonl"
    rate, connections = 100, 8
    try:
        url = f"http://127.0.0.1:{server.server_port}/predict"
        began = time.monotonic()
        with load_client.run_client(url, bodies, connections, 600, file, rate=rate, interval=0.2) as process:
            wait_until(lambda: handler.requests > 150 or None, "the client sends")  # type: ignore[attr-defined]
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 0
        seconds = time.monotonic() - began
    finally:
        server.shutdown()
        server.server_close()
    intervals = load_client.read_intervals(file)
    statuses = soak_trends.statuses(intervals)
    assert statuses.keys() == {200, 503}
    assert abs(statuses[200] - statuses[503]) <= 1
    assert 150 < statuses.total() <= rate * seconds + connections
    assert sum(each.retry_after.get("2", 0) for each in intervals) == statuses[503]
    assert sum(len(each.milliseconds) for each in intervals) == statuses[200]
