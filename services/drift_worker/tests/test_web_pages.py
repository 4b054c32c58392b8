"""What the pages say, for verdicts of real judging, and for names that are no names."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from drift_worker.web import routes
from drift_worker.web.report_queue import ReportQueue
from drift_worker.web.verdict_cache import VerdictCache
from driftloop.errors import StorageUnavailable
from driftloop.events import (
    DataQualityIssue,
    DriftVerdict,
    EstimateTrackRecord,
    Evaluation,
    Finding,
    MetricEstimate,
    ModelStateChanged,
    QualityEstimate,
    QualityVerdict,
    Window,
)
from driftloop.storage.bucket import Bucket
from tests.support.drift_windows import BEGIN, days, give_reference, judged

pytest_plugins = "tests.support.drift_windows"

NASTY = "<script>alert('x')</script>&\"{{71*71}}"


@pytest.fixture
def verdicts() -> VerdictCache:
    return VerdictCache(max_events=100)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """While there is no such file, no report gets made; what it holds is the content of all reports."""
    return tmp_path / "gate"


@pytest.fixture
def client(verdicts: VerdictCache, bucket: Bucket, gate: Path, tmp_path: Path) -> Iterator[TestClient]:
    """The pages, whose reports are made by a few lines of Python; a gate that is empty lets them fail."""
    code = f"""
import pathlib, sys, time
model, version, window = sys.argv[2:]
gate = pathlib.Path({str(gate)!r})
while not gate.exists():
    time.sleep(0.01)
if not (content := gate.read_text()):
    sys.exit("evidently <had> no luck")
path = pathlib.Path({str(tmp_path / "bucket")!r}, "reports", model, version, window + ".html")
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text(content)
"""
    app = FastAPI()
    with ReportQueue(2, 60, [sys.executable, "-c", code]) as reporting:
        routes.mount(app, verdicts, reporting, bucket)
        yield TestClient(app)


@pytest.fixture
def stream(verdicts: VerdictCache, bucket: Bucket) -> list[DriftVerdict]:
    """Quiet days, one with too few rows, and warm ones."""
    give_reference(bucket)
    few = days(1, 9).head(20)
    frames = [days(1, 3), days(1, 4), few, days(1, 5, warmer=10), days(1, 6, warmer=10).assign(visib=np.nan)]
    stream = list(judged(bucket, frames))
    for verdict in stream:
        verdicts.add(verdict)
    assert [verdict.verdict for verdict in stream] == ["no_drift", "no_drift", "inconclusive", "drift", "drift"]
    return stream


def one(number: int = 0, **changed: Any) -> DriftVerdict:
    """A made-up verdict."""
    window = Window(topic="predictions", partition=0, first_offset=number, last_offset=number)
    given: dict[str, Any] = {
        **{
            "window": window,
            "model": "m",
            "version": "1",
            "rows": 1,
            "verdict": "no_drift",
            "explanation": "score 1, limit 2",
        },
        **{
            "first_prediction_at": BEGIN,
            "last_prediction_at": BEGIN,
            "archive": "gs://b/x.parquet",
            "score": 1.0,
            "score_threshold": 2.0,
        },
    }
    return DriftVerdict(**(given | changed))


def address(verdict: DriftVerdict, kind: str = "windows") -> str:
    of = f"{verdict.model}/{verdict.version}"
    return quote(
        f"/windows/{verdict.window.name}/{of}" if kind == "windows" else f"/reports/{of}/{verdict.window.name}"
    )


def words(answer: httpx.Response) -> str:
    """The page as it is read."""
    text = re.sub(r"<(script|style).*?</\1>", "", answer.text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", text)))


def eventually(ask: Callable[[], httpx.Response], status: int) -> httpx.Response:
    deadline = time.monotonic() + 20
    while (answer := ask()).status_code != status:
        assert time.monotonic() < deadline, f"{answer.status_code} instead of {status}: {words(answer)}"
        time.sleep(0.02)
    return answer


def test_without_windows_the_overview_says_what_to_do(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert "No windows yet" in words(answer)
    assert "driftloop-producer" in words(answer)


def test_the_overview_shows_each_window_and_the_column_to_look_at_first(
    client: TestClient, stream: list[DriftVerdict]
) -> None:
    answer = client.get("/")
    seen = words(answer)
    assert "m version 1 drift" in seen
    assert "5 windows: 2 drift, 2 no drift, 1 inconclusive" in seen
    links = re.findall(r'<li><a class="(\w+)" href="([^"]+)"', answer.text)
    assert links == [(verdict.verdict, address(verdict)) for verdict in stream]
    table = answer.text[answer.text.index("What to look at first") :]
    rows = re.findall(r'<tr(?: class="(drifted)")?><td>(\w+)</td><td class="n">[^<]+</td><td class="n">([^<]+)<', table)
    assert rows[0] == ("drifted", "temp", "2 of 4")
    assert {column for _, column, _ in rows} == {"temp", "visib", "carrier", "prediction"}


def test_the_latest_version_comes_first_and_old_ones_have_a_link(client: TestClient, verdicts: VerdictCache) -> None:
    for number in range(routes.VERSIONS + 2):
        verdicts.add(one(number, version=str(number)))
    answer = client.get("/")
    shown = re.findall(r"<h1>m <span[^>]+>version</span> (\d+)", answer.text)
    assert shown == ["5", "4", "3", "2"]
    assert re.findall(r'href="(/\?[^"]+)"', answer.text) == ["/?model=m&amp;version=1", "/?model=m&amp;version=0"]
    assert "m version 0" in words(client.get("/?model=m&version=0"))
    assert client.get("/?model=m&version=99").status_code == 404


def test_a_window_says_why_and_shows_findings_facts_and_where_it_lies(
    client: TestClient, stream: list[DriftVerdict]
) -> None:
    verdict = stream[-1]
    answer = client.get(address(verdict))
    seen = words(answer)
    for part in verdict.explanation.split("; "):
        assert part in seen
    assert "visib : 100% of the values are missing" in seen
    assert verdict.archive in seen
    assert "offsets 400 to 499" in seen
    assert "2013-01-05 00:00 – 01:39" in seen
    rows = re.findall(r"<tr(?: class=\"drifted\")?><td>(\w+)</td><td>(\w+)</td>", answer.text)
    assert sorted(rows) == sorted((finding.column, finding.method) for finding in verdict.findings)
    drifted = re.findall(r'<tr class="drifted"><td>(\w+)</td>', answer.text)
    assert sorted(drifted) == sorted(finding.column for finding in verdict.findings if finding.drifted)
    assert answer.text.count("data-figure=") == 4
    assert f'href="{address(stream[-2])}" rel="prev"' in answer.text
    assert f'href="{address(verdict, "reports")}"' in answer.text


def test_the_pictures_are_shares_of_the_values_that_are_there(client: TestClient, stream: list[DriftVerdict]) -> None:
    text = client.get(address(stream[-1])).text
    names = re.findall(r"<figcaption><b>(\w+)</b>", text)
    figures = [json.loads(source) for source in re.findall(r'data-figure="[^"]+">(.*?)</script>', text, re.DOTALL)]
    drawn = dict(zip(names, figures, strict=True))
    for name, figure in drawn.items():
        before, now = (sum(trace["y"]) for trace in figure["data"])
        assert before == pytest.approx(1), name
        assert now == pytest.approx(0 if name == "visib" else 1), name
    assert drawn["carrier"]["layout"]["xaxis"]["ticktext"] == ["UA", "DL", "B6", "AA"]
    assert f"missing {days(80)['visib'].isna().mean():.1%} → 100%" in words(client.get(address(stream[-1])))


def test_a_verdict_that_was_given_again_stands_beside_the_first_one(
    client: TestClient, verdicts: VerdictCache, stream: list[DriftVerdict]
) -> None:
    changed = {"id": "again", "verdict": "drift", "explanation": "score 9, limit 1", "replayed": True}
    verdicts.add(stream[1].model_copy(update=changed))
    overview = client.get("/")
    links = re.findall(r'<li><a class="([\w ]+)" href="([^"]+)"', overview.text)
    assert links[:2] == [("no_drift", address(stream[0])), ("no_drift again", address(stream[1]))]
    assert "5 windows: 2 drift, 2 no drift, 1 inconclusive" in words(overview)
    seen = words(client.get(address(stream[1])))
    assert "m version 1 no drift" in seen
    for part in stream[1].explanation.split("; "):
        assert part in seen
    assert re.search(r"Judged again on [\d-]+ [\d:]+: drift score 9, limit 1", seen)
    assert "Judged again" not in words(client.get(address(stream[0])))


def test_an_unjudged_window_says_why(client: TestClient, stream: list[DriftVerdict]) -> None:
    answer = client.get(address(stream[2]))
    assert answer.status_code == 200
    assert "too few rows: 20, and 90 are needed" in words(answer)


def test_a_window_whose_rows_are_gone_still_has_its_page(client: TestClient, verdicts: VerdictCache) -> None:
    verdicts.add(one())
    answer = client.get(address(one()))
    assert answer.status_code == 200
    assert "There is nothing to draw: version 1 of m has no reference" in words(answer)


@pytest.mark.parametrize(
    "path",
    [
        "/windows/predictions-0-000000000007-000000000008/m/1",
        "/windows/x/m/1",
        "/reports/m/1/predictions-0-000000000007-000000000008",
        "/static/base.html",
        f"/windows/{quote(NASTY, safe='')}/m/1",
    ],
)
def test_what_is_not_there_is_a_page_that_says_so(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "Not found" in words(answer)
    assert NASTY not in answer.text


def test_no_path_leads_out_of_the_reports(client: TestClient, bucket: Bucket) -> None:
    bucket.write("secret.html", b"not for you")
    bucket.write("reports/m/x.html", b"")
    assert client.get("/reports/m/%2e%2e/%2e%2e/secret").status_code == 404


def test_names_are_shown_as_they_are_and_never_run(client: TestClient, verdicts: VerdictCache) -> None:
    finding = Finding(column=NASTY, method=NASTY, value=2.0, threshold=1.0, drifted=True, priority=1.0)
    fact = DataQualityIssue(column=NASTY, kind="constant", fraction=1.0)
    why = f"score 3, limit 1; {NASTY}"
    nasty = one(
        model=f"a/b {NASTY}",
        version=NASTY,
        verdict="drift",
        explanation=why,
        findings=[finding],
        data_quality_issues=[fact],
    )
    verdicts.add(nasty.model_copy(update={"archive": NASTY}))
    overview = client.get("/")
    (link,) = re.findall(r'<li><a class="drift" href="([^"]+)"', overview.text)
    window = client.get(unescape(link))
    report = client.get(address(nasty, "reports"))
    assert (window.status_code, report.status_code) == (200, 202)
    for answer in (overview, window, report):
        assert "<script>alert" not in answer.text
        assert str(71 * 71) not in words(answer)
    assert words(window).count(NASTY) >= 5


def test_pages_load_nothing_from_elsewhere_and_may_not(client: TestClient, stream: list[DriftVerdict]) -> None:
    for path in ("/", address(stream[-1])):
        answer = client.get(path)
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        for source in re.findall(r'(?:src|href)="([^"]+)"', answer.text):
            assert source.startswith(("/", "data:"))
            if source.startswith("/static/"):
                loaded = client.get(source)
                assert loaded.status_code == 200
                assert "immutable" in loaded.headers["Cache-Control"]
    assert "plotly.js v" in client.get("/static/plotly.js").text[:200]


def test_static_files_are_packed_for_those_who_take_it(client: TestClient) -> None:
    packed = client.get("/static/plotly.js", headers={"Accept-Encoding": "gzip"})
    plain = client.get("/static/plotly.js", headers={"Accept-Encoding": "identity"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) < int(plain.headers["Content-Length"]) / 3
    assert packed.content == plain.content


def test_a_report_is_made_when_it_is_asked_for_and_then_served(
    client: TestClient, verdicts: VerdictCache, gate: Path
) -> None:
    verdicts.add(one())
    path = address(one(), "reports")
    first = client.get(path)
    assert (first.status_code, 'http-equiv="refresh"' in first.text) == (202, True)
    assert "being made" in words(first)
    gate.write_text("<p>evidently</p>")
    done = eventually(lambda: client.get(path), 200)
    assert done.text == "<p>evidently</p>"
    assert done.headers["Content-Security-Policy"].startswith("sandbox allow-scripts")


def test_a_report_that_failed_says_why_and_can_be_tried_again(
    client: TestClient, verdicts: VerdictCache, gate: Path
) -> None:
    verdicts.add(one())
    path = address(one(), "reports")
    gate.touch()
    failed = eventually(lambda: client.get(path), 500)
    assert "evidently <had> no luck" in words(failed)
    assert 'http-equiv="refresh"' not in failed.text
    gate.write_text("now")
    again = client.post(path, follow_redirects=False)
    assert (again.status_code, again.headers["Location"]) == (303, path)
    assert eventually(lambda: client.get(path), 200).text == "now"


def test_a_report_outlives_what_is_known_of_its_verdict(client: TestClient, bucket: Bucket) -> None:
    bucket.write(f"reports/m/1/{one().window.name}.html", b"old")
    assert client.get(address(one(), "reports")).text == "old"


def test_a_bucket_that_is_away_is_told_of_and_asked_again_later(
    client: TestClient, verdicts: VerdictCache, bucket: Bucket
) -> None:
    def away(_: str) -> bytes:
        raise StorageUnavailable("the bucket does not answer: TimeoutError")

    bucket.read = away  # type: ignore[method-assign,assignment]
    verdicts.add(one())
    answer = client.get(address(one(), "reports"))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    assert "lies in the bucket, and the bucket does not answer: TimeoutError." in words(answer)
    window = client.get(address(one()))
    assert window.status_code == 200
    assert "There is nothing to draw: the bucket does not answer" in words(window)


def test_quality_stands_beside_the_verdicts(client: TestClient, verdicts: VerdictCache) -> None:
    common: dict[str, Any] = {
        "model": "m",
        "version": "1",
        "rows": 900,
        "first_prediction_at": BEGIN,
        "last_prediction_at": BEGIN,
    }
    found = Evaluation(
        rows=900, days=8, resampling_unit="days", metrics={"roc_auc": MetricEstimate(value=0.7012, low=0.68, high=0.72)}
    )
    window = one().window
    verdicts.add(one())
    verdicts.add(
        QualityVerdict(
            window=window,
            windows=3,
            unmatched=0,
            verdict="degraded",
            explanation="ROC AUC 0.701 <",
            in_service=found,
            **common,
        )
    )
    figures, record = {"roc_auc": 0.75}, EstimateTrackRecord(windows=2, mean_error=0.05)
    verdicts.add(
        QualityEstimate(
            window=window, metrics=figures, track_record=record, trusted=False, explanation="too few", **common
        )
    )
    seen = words(client.get("/"))
    assert "worse : ROC AUC 0.701 <" in seen
    assert "ROC AUC 0.701 0.68 to 0.72 –" in seen
    assert "900 rows of 8 days" in seen
    assert "not to be trusted: ROC AUC 0.75 (too few)" in seen


def test_the_latest_verdicts_are_kept_and_other_events_are_not() -> None:
    verdicts = VerdictCache(max_events=3)
    for number in range(5):
        verdicts.add(one(number))
    verdicts.add(ModelStateChanged(retrain_id="r", model="m", state="failed", explanation=""))
    kept = verdicts.latest(DriftVerdict, "m", "1", 10)
    assert [verdict.window.first_offset for verdict in kept] == [2, 3, 4]
    assert kept[-1] == one(4).model_copy(update={"id": kept[-1].id, "time": kept[-1].time})
    assert verdicts.find(one(0).window.name, "m/1") is None
    middle = verdicts.find(one(3).window.name, "m/1")
    assert middle is not None
    assert verdicts.neighbours(middle) == (one(2).window.name, one(4).window.name)


def test_a_topic_that_does_not_answer_is_told_of(client: TestClient, verdicts: VerdictCache) -> None:
    assert "has not answered" not in words(client.get("/"))
    verdicts._fresh_at -= routes.STALE_AFTER_SECONDS + 1
    assert "has not answered for 31" in words(client.get("/"))
    verdicts.mark_fresh()
    assert "has not answered" not in words(client.get("/"))


def test_times_are_in_utc(client: TestClient, verdicts: VerdictCache) -> None:
    there = timezone(timedelta(hours=-5))
    starts = datetime(2013, 7, 1, 20, 30, tzinfo=there)
    verdicts.add(one(starts=starts, ends=starts + timedelta(hours=2)))
    assert "2013-07-02 01:30 – 03:30" in words(client.get("/"))
