"""Test the pages with verdicts of real windows, and with names that contain HTML."""

import asyncio
import json
import re
import subprocess
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

from drift_worker.web import routes, views
from drift_worker.web.report_queue import ReportQueue
from drift_worker.web.verdict_cache import VerdictCache
from driftloop.drift.profile import Stretch
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
from driftloop.storage.object_store import ObjectStore
from tests.support.drift_windows import BEGIN, archive_and_judge, make_days, store_reference
from tests.support.model_names import USABLE_NAMES

pytest_plugins = "tests.support.drift_windows"

NASTY = "<script>alert('x')</script>&\"{{71*71}}"
NASTY_NAME = NASTY.replace("/", "")  # the name of a model or version has no slash


@pytest.fixture
def cache() -> VerdictCache:
    return VerdictCache(max_events=100)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Return a file that rendering waits for; its content becomes the content of each report."""
    return tmp_path / "gate"


def open_gate(gate: Path, content: str) -> None:
    """Create the gate with its content in one step, since rendering may look at it at any time."""
    new = gate.with_suffix(".new")
    new.write_text(content)
    new.rename(gate)


@pytest.fixture
def client(cache: VerdictCache, store: ObjectStore, gate: Path, tmp_path: Path) -> Iterator[TestClient]:
    """Return a client of the pages. Reports are rendered by a few lines of Python; an empty gate makes them fail."""
    code = f"""
import pathlib, sys, time
model, version, window, run_id = sys.argv[2:]
gate = pathlib.Path({str(gate)!r})
while not gate.exists():
    time.sleep(0.01)
if not (content := gate.read_text()):
    sys.exit("evidently <failed>")
if content == "expired":
    print("its rows are <older> than the archive keeps them", file=sys.stderr)
    sys.exit(7)
path = pathlib.Path({str(tmp_path / "store")!r}, "reports", model, version, window + ".html")
path.parent.mkdir(parents=True, exist_ok=True)
new = path.with_suffix(".new")
new.write_text(content)
new.rename(path)
"""
    app = FastAPI()
    with ReportQueue(2, 60, [sys.executable, "-c", code]) as report_queue:
        routes.mount(app, cache, report_queue, store)
        yield TestClient(app)


@pytest.fixture
def stream(cache: VerdictCache, store: ObjectStore) -> list[DriftVerdict]:
    """Return verdicts on normal days, one with too few rows, and warm ones."""
    store_reference(store)
    few = make_days(1, 9).head(20)
    frames = [
        make_days(1, 3),
        make_days(1, 4),
        few,
        make_days(1, 5, warmer=10),
        make_days(1, 6, warmer=10).assign(visib=np.nan),
    ]
    stream = list(archive_and_judge(store, frames))
    for verdict in stream:
        cache.add(verdict)
    assert [verdict.verdict for verdict in stream] == ["no_drift", "no_drift", "inconclusive", "drift", "drift"]
    return stream


def make_verdict(number: int = 0, **changed: Any) -> DriftVerdict:
    """Return a made-up verdict."""
    window = Window(topic="predictions", partition=0, first_offset=number, last_offset=number)
    fields: dict[str, Any] = {
        "window": window,
        "model": "m",
        "version": "1",
        "rows": 1,
        "first_prediction_at": BEGIN,
        "last_prediction_at": BEGIN,
        "verdict": "no_drift",
        "explanation": "score 1, threshold 2",
        "score": 1.0,
        "score_threshold": 2.0,
        "archive": ["gs://b/x.parquet"],
    }
    return DriftVerdict(**(fields | changed))


def make_quality(**changed: Any) -> QualityVerdict:
    """Return a made-up verdict on quality."""
    fields: dict[str, Any] = {
        "window": make_verdict().window,
        "model": "m",
        "version": "1",
        "rows": 900,
        "first_prediction_at": BEGIN,
        "last_prediction_at": BEGIN,
        "windows": 3,
        "unmatched": 0,
        "verdict": "consistent",
        "explanation": "ROC AUC 0.7",
    }
    return QualityVerdict(**(fields | changed))


def page_url(verdict: DriftVerdict, kind: str = "windows") -> str:
    of = f"{verdict.model}/{verdict.version}"
    return quote(
        f"/windows/{verdict.window.name}/{of}" if kind == "windows" else f"/reports/{of}/{verdict.window.name}"
    )


def page_text(response: httpx.Response) -> str:
    """Return the text that a reader of the page sees."""
    text = re.sub(r"<(script|style).*?</\1>", "", response.text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", text)))


def follow(client: TestClient, link: str) -> httpx.Response:
    """Request the address of a link on a page as a browser does; a test client would decode it twice."""

    async def request() -> httpx.Response:
        transport = httpx.ASGITransport(client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as browser:
            return await browser.get(unescape(link))

    return asyncio.run(request())


def wait_for_status(ask: Callable[[], httpx.Response], status: int) -> httpx.Response:
    deadline = time.monotonic() + 20
    while (response := ask()).status_code != status:
        assert time.monotonic() < deadline, f"{response.status_code} instead of {status}: {page_text(response)}"
        time.sleep(0.02)
    return response


def test_overview_without_windows_explains_what_is_missing(client: TestClient) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert "No windows yet" in page_text(response)
    assert "driftloop-producer" in page_text(response)


def test_overview_shows_each_window_and_ranks_columns_by_priority(
    client: TestClient, stream: list[DriftVerdict]
) -> None:
    response = client.get("/")
    seen = page_text(response)
    assert "m version 1 drift" in seen
    assert "5 windows: 2 drift, 2 no drift, 1 inconclusive" in seen
    links = re.findall(r'<li><a class="(\w+)" href="([^"]+)"', response.text)
    assert links == [(verdict.verdict, page_url(verdict)) for verdict in stream]
    table = response.text[response.text.index("Columns by priority") :]
    rows = re.findall(r'<tr(?: class="(drifted)")?><td>(\w+)</td><td class="n">[^<]+</td><td class="n">([^<]+)<', table)
    assert rows[0] == ("drifted", "temp", "2 of 4")
    assert {column for _, column, _ in rows} == {"temp", "visib", "carrier", "_prediction"}


def test_overview_has_a_line_with_a_light_for_each_version_and_latest_ones_in_full(
    client: TestClient, cache: VerdictCache
) -> None:
    for number in range(routes.MAX_VERSIONS + 2):
        cache.add(make_verdict(number, version=str(number), verdict="drift" if number == 0 else "no_drift"))
    response = client.get("/")
    lines = re.findall(r'<li><span class="chip (\w+)">[^<]+</span>\s*<div><a href="(/\?[^"]+)"', response.text)
    assert lines[0] == ("no_drift", "/?model=m&amp;version=5")  # in service, as the latest to answer
    assert lines[1] == ("drift", "/?model=m&amp;version=0")
    assert [light for light, _ in lines[2:]] == ["no_drift"] * 4
    assert re.findall(r"<h1>m <span[^>]+>version</span> (\d+)", response.text) == ["5", "0", "4", "3"]
    assert response.text.count(">in service<") == 2  # in its line, and in full
    only = client.get("/?model=m&version=1")
    assert "m version 1" in page_text(only)
    assert "m version 2" not in page_text(only)
    assert client.get("/?model=m&version=99").status_code == 404


def test_overview_keeps_the_light_of_the_last_real_verdict(client: TestClient, stream: list[DriftVerdict]) -> None:
    seen = page_text(client.get("/"))
    assert "m version 1 drift in service Drift since 2013-01-04 00:00, in 2 windows." in seen
    few = stream[2].model_copy(update={"id": "rest", "window": make_verdict(900).window})
    cache = client.app.state.page_data.cache  # type: ignore[attr-defined]
    cache.add(few)
    seen = page_text(client.get("/"))
    assert "m version 1 drift in service Drift since 2013-01-04 00:00, in 2 windows; not judged since " in seen
    assert "2013-01-03 00:00: 1 window (too few rows)." in seen


def test_overview_keeps_charts_and_columns_of_the_last_real_verdicts(
    client: TestClient, cache: VerdictCache, stream: list[DriftVerdict]
) -> None:
    for number in range(views.MAX_WINDOWS + 1):
        few = {"id": f"rest-{number}", "window": make_verdict(900 + number).window}
        cache.add(stream[2].model_copy(update=few))
    seen = page_text(client.get("/"))
    assert "Drift since 2013-01-04 00:00, in 2 windows; not judged since 2013-01-03 00:00: 61 windows" in seen
    assert "Columns by priority Over the latest 4 conclusive windows." in seen
    assert "None of these windows could be judged" not in seen


def test_overview_has_a_line_for_each_of_several_models_and_hides_none(client: TestClient, cache: VerdictCache) -> None:
    models = ["a", "b", "c", "d", "e"]
    for number in range(3):
        for offset, model in enumerate(models):
            verdict = "drift" if model == "d" or (model == "b" and number == 2) else "no_drift"
            at = BEGIN + timedelta(days=number, minutes=offset)
            fields = {"model": model, "verdict": verdict, "time": at, "first_prediction_at": at}
            cache.add(make_verdict(10 * number + offset, **fields))
    cache.add(make_verdict(90, model="d", verdict="inconclusive", reason="too_few_rows", time=BEGIN))
    response = client.get("/")
    lines = re.findall(r'<li><span class="chip (\w+)">[^<]+</span>\s*<div><a href="/\?model=(\w)&', response.text)
    assert lines[:2] == [("drift", "b"), ("drift", "d")]
    assert sorted(lines[2:]) == [("no_drift", "a"), ("no_drift", "c"), ("no_drift", "e")]
    seen = page_text(response)
    assert "b version 1 in service Drift since 2013-01-03 00:01, in 1 window." in seen
    assert "d version 1 in service Drift since at least 2013-01-01 00:03, in 3 windows; not judged since" in seen
    assert seen.count("in 3 windows") == 4 + 3  # a line each, and in full
    mine = page_text(client.get("/?model=b&version=1"))
    assert "3 windows: 1 drift, 2 no drift." in mine


def test_pages_of_two_models_do_not_mix_versions_of_the_same_number(client: TestClient, cache: VerdictCache) -> None:
    common: dict[str, Any] = {"window": make_verdict().window, "first_prediction_at": BEGIN}
    cache.add(make_verdict(model="one", verdict="drift", explanation="the first", **common))
    cache.add(make_verdict(model="two", explanation="the second", **common))
    cache.add(make_quality(model="one", verdict="degraded"))
    assert "quality degraded" not in page_text(client.get("/?model=two"))
    assert "quality degraded" in page_text(client.get("/?model=one"))
    assert "1 window: 1 drift." in page_text(client.get("/?model=one&version=1"))
    assert "1 window: 1 no drift." in page_text(client.get("/?model=two&version=1"))
    for model, explanation in (("one", "the first"), ("two", "the second")):
        seen = page_text(client.get(page_url(make_verdict(model=model))))
        assert explanation in seen
        assert "previous window" not in seen
        assert "next window" not in seen


def test_overview_of_a_model_has_a_line_for_each_of_its_versions(client: TestClient, cache: VerdictCache) -> None:
    for number in range(routes.MAX_VERSIONS + 2):
        cache.add(make_verdict(number, version=str(number)))
    cache.add(make_verdict(99, model="other"))
    text = client.get("/?model=m").text
    lines = re.findall(r'<div><a href="/\?model=(\w+)&amp;version=(\d)">', text)
    assert sorted(lines) == [("m", str(number)) for number in range(routes.MAX_VERSIONS + 2)]


def test_quality_that_cannot_be_compared_hides_no_comparison(client: TestClient, cache: VerdictCache) -> None:
    cache.add(make_verdict())
    metrics = {"roc_auc": MetricEstimate(value=0.7012, low=0.68, high=0.72)}
    evaluation = Evaluation(rows=900, days=8, resampling_unit="days", metrics=metrics)
    cache.add(make_quality(verdict="degraded", explanation="worse than at the gate", in_service=evaluation))
    later = {"window": make_verdict(1).window, "verdict": "inconclusive", "reason": "too_few_rows"}
    cache.add(make_quality(**later, explanation="40 of at least 200"))
    for path in ("/", "/?model=m&version=1"):
        seen = page_text(client.get(path))
        assert "degraded : worse than at the gate" in seen
        assert "ROC AUC 0.701 0.680 to 0.720" in seen
        assert "The latest outcomes were not measured: 40 of at least 200." in seen
    cache.add(make_verdict(model="other"))
    assert "quality degraded" in page_text(client.get("/"))


def test_page_of_a_version_shows_stretches_and_smallest_shifts(client: TestClient, cache: VerdictCache) -> None:
    store = client.app.state.page_data.store  # type: ignore[attr-defined]  # typed as any ASGI application
    profile = store_reference(store).profile
    week = timedelta(days=7)
    stretches = [
        Stretch(first_row=0, end_row=3_900, begin=BEGIN - 2 * week, end=BEGIN - week),
        Stretch(first_row=4_100, end_row=8_000, begin=BEGIN - week, end=BEGIN),
    ]
    one, three = profile.spans
    changed = profile.model_copy(
        update={
            "stretches": stretches,
            "standard_deviations": {"visib": 2.0, "temp": 8.0, "_prediction": 0.15},
            "spans": [
                one.model_copy(update={"smallest_shifts": {"temp": 0.4, "visib": 0.6}}),
                three.model_copy(update={"smallest_shifts": {"temp": 0.2, "_prediction": 0.3}}),
            ],
        }
    )
    store.write("references/m/1/profile.json", changed.model_dump_json().encode())
    cache.add(make_verdict())
    seen = page_text(client.get("/?model=m&version=1"))
    assert "the present one lasts since 2012-12-25 00:00" in seen
    assert "earlier 2012-12-18 00:00 2012-12-25 00:00 3,900 39" in seen
    assert "the present 2012-12-25 00:00 2013-01-01 00:00 3,900 39" in seen
    assert "column in one window in three windows standard deviation" in seen
    assert "temp 0.4 sd = 3.2 0.2 sd = 1.6 8" in seen
    assert "visib 0.6 sd = 1.2 not found 2" in seen
    assert "_prediction not found 0.3 sd = 0.045 0.15" in seen
    assert "What this version can see" not in page_text(client.get("/"))
    assert 'href="/?model=m&amp;version=1#sensitivity"' in client.get("/").text


def test_page_of_a_version_shows_what_calibration_has_found(client: TestClient, stream: list[DriftVerdict]) -> None:
    assert stream
    seen = page_text(client.get("/?model=m&version=1"))
    assert "No abrupt change was found in the training rows: they are one stretch." in seen
    assert "the present row 1 row 8,000 8,000 80" in seen
    assert re.search(r"temp 0\.\d+ sd = [\d.]+ 0\.\d+ sd = [\d.]+ [\d.]+ ", seen)


def test_page_of_a_version_without_a_profile_says_so(client: TestClient, cache: VerdictCache) -> None:
    cache.add(make_verdict())
    response = client.get("/?model=m&version=1")
    assert response.status_code == 200
    assert "Nothing can be compared with this version's training: version 1 of m has no" in page_text(response)


def test_page_of_a_version_in_service_shows_its_sensitivity_before_its_first_window(
    client: TestClient, cache: VerdictCache, store: ObjectStore
) -> None:
    store_reference(store, version="7")
    cache.add(ModelStateChanged(retrain_id="r", model="m", version="7", state="promoted", explanation=""))
    seen = page_text(client.get("/?model=m&version=7"))
    assert "No window has been judged yet." in seen
    assert "Smallest shifts that are found" in seen


def test_overview_says_why_no_window_and_no_outcomes_could_be_judged(client: TestClient, cache: VerdictCache) -> None:
    cache.add(make_verdict(verdict="inconclusive", reason="no_reference", explanation="references/m/1 is missing"))
    cache.add(make_quality(verdict="inconclusive", reason="too_few_rows", explanation="40 of at least 200"))
    seen = page_text(client.get("/"))
    assert "Not judged since 2013-01-01 00:00: 1 window (the version has no reference)." in seen
    assert "None of these windows could be judged: references/m/1 is missing" in seen
    assert "Not measured: 40 of at least 200." in seen
    assert "No outcomes are known yet" not in seen


def test_overview_shows_version_in_service_before_its_first_window(client: TestClient, cache: VerdictCache) -> None:
    cache.add(ModelStateChanged(retrain_id="r", model="m", version="7", state="promoted", explanation=""))
    seen = page_text(client.get("/"))
    assert "m version 7 in service No window has been judged yet." in seen
    assert "No windows yet" in seen


def test_pages_link_to_versions_in_mlflow(cache: VerdictCache, store: ObjectStore) -> None:
    app = FastAPI()
    with ReportQueue(2, 60, ["false"]) as report_queue:
        routes.mount(app, cache, report_queue, store, "https://mlflow.example/")
        cache.add(make_verdict(model="a&b c"))
        client = TestClient(app)
        for path in ("/", page_url(make_verdict(model="a&b c"))):
            assert 'href="https://mlflow.example/#/models/a%26b%20c/versions/1"' in client.get(path).text


def test_window_page_shows_explanation_findings_issues_and_source(
    client: TestClient, stream: list[DriftVerdict]
) -> None:
    verdict = stream[-1]
    response = client.get(page_url(verdict))
    seen = page_text(response)
    for part in verdict.explanation.split("; "):
        assert part in seen
    assert "visib : 100% of the values are missing" in seen
    assert verdict.archive[0] in seen
    assert "offsets 400 to 499" in seen
    assert "2013-01-05 00:00 – 01:39" in seen
    findings = response.text[: response.text.index("Columns compared")]
    rows = re.findall(r"<tr(?: class=\"drifted\")?><td>(\w+)</td><td>(\w+)</td>", findings)
    assert sorted(rows) == sorted((finding.column, finding.method) for finding in verdict.findings)
    drifted = re.findall(r'<tr class="drifted"><td>(\w+)</td>', response.text)
    assert sorted(drifted) == sorted(finding.column for finding in verdict.findings if finding.drifted)
    assert response.text.count("data-figure=") == 4
    assert f'href="{page_url(stream[-2])}" rel="prev"' in response.text
    assert f'href="{page_url(verdict, "reports")}"' in response.text


def test_column_charts_show_fractions_of_values_present(client: TestClient, stream: list[DriftVerdict]) -> None:
    text = client.get(page_url(stream[-1])).text
    names = re.findall(r"<figcaption><b>(\w+)</b>", text)
    figures = [json.loads(source) for source in re.findall(r'data-figure="[^"]+">(.*?)</script>', text, re.DOTALL)]
    drawn = dict(zip(names, figures, strict=True))
    for name, figure in drawn.items():
        before, now = (sum(trace["y"]) for trace in figure["data"])
        assert before == pytest.approx(1), name
        assert now == pytest.approx(0 if name == "visib" else 1), name
    assert drawn["carrier"]["layout"]["xaxis"]["ticktext"] == ["UA", "DL", "B6", "AA"]


def test_columns_have_means_or_largest_changes_beside_their_charts(
    client: TestClient, stream: list[DriftVerdict]
) -> None:
    seen = page_text(client.get(page_url(stream[-1])))
    reference, window = make_days(80), make_days(1, 6, warmer=10)
    for name, function in {"mean": "mean", "median": "median"}.items():
        values = (reference["temp"].agg(function), window["temp"].agg(function))
        assert f"{name} {values[0]:.3g} {values[1]:.3g}" in seen
    assert f"standard deviation {reference['temp'].std(ddof=0):.3g} {window['temp'].std(ddof=0):.3g}" in seen
    assert f"missing {reference['visib'].isna().mean():.1%} 100%" in seen
    assert f"mean {reference['visib'].mean():.3g} –" in seen
    changes = window["carrier"].value_counts(normalize=True) - reference["carrier"].value_counts(normalize=True)
    assert f"reference window {changes.abs().idxmax()} " in seen


def test_pages_show_replayed_verdict_with_the_first_one(
    client: TestClient, cache: VerdictCache, stream: list[DriftVerdict]
) -> None:
    changed = {"id": "again", "verdict": "drift", "explanation": "score 9, threshold 1", "replayed": True}
    cache.add(stream[1].model_copy(update=changed))
    overview = client.get("/")
    links = re.findall(r'<li><a class="([\w ]+)" href="([^"]+)"', overview.text)
    assert links[:2] == [("no_drift", page_url(stream[0])), ("no_drift replayed", page_url(stream[1]))]
    assert "5 windows: 2 drift, 2 no drift, 1 inconclusive" in page_text(overview)
    seen = page_text(client.get(page_url(stream[1])))
    assert "m version 1 no drift" in seen
    for part in stream[1].explanation.split("; "):
        assert part in seen
    assert re.search(r"Judged again on [\d-]+ [\d:]+: drift score 9, threshold 1", seen)
    assert "Judged again" not in page_text(client.get(page_url(stream[0])))


def test_window_page_explains_inconclusive_verdict(client: TestClient, stream: list[DriftVerdict]) -> None:
    response = client.get(page_url(stream[2]))
    assert response.status_code == 200
    assert stream[2].explanation in page_text(response)


def test_window_page_without_rows_or_reference_says_so(client: TestClient, cache: VerdictCache) -> None:
    cache.add(make_verdict())
    response = client.get(page_url(make_verdict()))
    assert response.status_code == 200
    assert "No charts: version 1 of m has no reference" in page_text(response)


@pytest.mark.parametrize(
    "path",
    [
        "/windows/predictions-0-000000000007-000000000008/m/1",
        "/windows/x/m/1",
        "/reports/m/1/predictions-0-000000000007-000000000008",
        f"/windows/{quote(NASTY, safe='')}/m/1",
    ],
)
def test_unknown_window_or_report_is_a_404_page(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert "Not found" in page_text(response)
    assert NASTY not in response.text


def test_report_path_cannot_leave_the_reports_folder(client: TestClient, store: ObjectStore) -> None:
    store.write("secret.html", b"not for you")
    store.write("reports/m/x.html", b"")
    assert client.get("/reports/m/%2e%2e/%2e%2e/secret").status_code == 404


def test_pages_escape_names_and_explanations(client: TestClient, cache: VerdictCache) -> None:
    finding = Finding(column=NASTY, method=NASTY, value=2.0, threshold=1.0, drifted=True, priority=1.0)
    issue = DataQualityIssue(column=NASTY, kind="constant", fraction=1.0)
    verdict = make_verdict(
        model=f"a b {NASTY_NAME}",
        version=NASTY_NAME,
        verdict="drift",
        explanation=f"score 3, threshold 1; {NASTY}",
        findings=[finding],
        data_quality_issues=[issue],
    )
    cache.add(verdict.model_copy(update={"archive": [NASTY]}))
    overview = client.get("/")
    (link,) = re.findall(r'<li><a class="drift" href="([^"]+)"', overview.text)
    window = client.get(unescape(link))
    report = client.get(page_url(verdict, "reports"))
    assert (window.status_code, report.status_code) == (200, 202)
    for response in (overview, window, report):
        assert "<script>alert" not in response.text
        assert str(71 * 71) not in page_text(response)
    assert page_text(window).count(NASTY) >= 5
    assert NASTY_NAME in page_text(window)


@pytest.mark.parametrize("model", USABLE_NAMES)
def test_links_lead_to_the_pages_of_a_model_with_this_name(
    client: TestClient, cache: VerdictCache, gate: Path, model: str
) -> None:
    for number in range(2):
        cache.add(make_verdict(number, model=model))
    cache.add(make_verdict(10, model="m", version="10"))
    open_gate(gate, "a report")
    (link,) = re.findall(r'href="(/\?[^"]+version=1)"', client.get("/").text)
    overview = follow(client, link)
    for link in re.findall(r'<li><a class="\w+" href="([^"]+)"', overview.text):
        window = follow(client, link)
        assert window.status_code == 200
        assert model in page_text(window)
    (report,) = re.findall(r'href="(/reports/[^"]+)"', window.text)
    assert wait_for_status(lambda: follow(client, report), 200).text == "a report"


def test_pages_load_only_own_files_which_are_cached_for_ever(client: TestClient, stream: list[DriftVerdict]) -> None:
    for path in ("/", page_url(stream[-1])):
        response = client.get(path)
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        for source in re.findall(r'(?:src|href)="([^"]+)"', response.text):
            assert source.startswith(("/", "data:"))
            if source.startswith("/static/"):
                loaded = client.get(source)
                assert loaded.status_code == 200
                assert "immutable" in loaded.headers["Cache-Control"]
    assert "plotly.js v" in client.get("/static/plotly.min.js").text[:200]


def test_unknown_static_file_is_not_found(client: TestClient) -> None:
    response = client.get("/static/base.html")
    assert response.status_code == 404
    assert "Cache-Control" not in response.headers


@pytest.mark.parametrize("path", ["/static/plotly.min.js", "/"])
@pytest.mark.usefixtures("stream")
def test_pages_and_static_files_are_compressed_if_the_client_accepts_it(client: TestClient, path: str) -> None:
    compressed = client.get(path, headers={"Accept-Encoding": "gzip"})
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert compressed.num_bytes_downloaded < plain.num_bytes_downloaded / 3
    assert compressed.content == plain.content


def test_report_is_rendered_on_first_request_and_then_served(
    client: TestClient, cache: VerdictCache, gate: Path
) -> None:
    cache.add(make_verdict())
    path = page_url(make_verdict(), "reports")
    first = client.get(path)
    assert (first.status_code, 'http-equiv="refresh"' in first.text) == (202, True)
    assert "being rendered" in page_text(first)
    open_gate(gate, "<p>evidently</p>")
    done = wait_for_status(lambda: client.get(path), 200)
    assert done.text == "<p>evidently</p>"
    assert done.headers["Content-Security-Policy"].startswith("sandbox allow-scripts")


def test_report_on_a_window_whose_rows_have_expired_says_so_and_is_no_failure(
    client: TestClient, cache: VerdictCache, gate: Path
) -> None:
    cache.add(make_verdict())
    open_gate(gate, "expired")
    gone = wait_for_status(lambda: client.get(page_url(make_verdict(), "reports")), 410)
    assert "its rows are <older> than the archive keeps them" in page_text(gone)
    assert "Try again" not in gone.text
    assert 'http-equiv="refresh"' not in gone.text


def test_failed_report_shows_error_and_can_be_retried(client: TestClient, cache: VerdictCache, gate: Path) -> None:
    cache.add(make_verdict())
    path = page_url(make_verdict(), "reports")
    gate.touch()
    failed = wait_for_status(lambda: client.get(path), 500)
    assert "evidently <failed>" in page_text(failed)
    assert 'http-equiv="refresh"' not in failed.text
    open_gate(gate, "now")
    again = client.post(path, follow_redirects=False)
    assert (again.status_code, again.headers["Location"]) == (303, path)
    assert wait_for_status(lambda: client.get(path), 200).text == "now"


def test_report_is_served_without_its_verdict_in_the_cache(client: TestClient, store: ObjectStore) -> None:
    store.write(f"reports/m/1/{make_verdict().window.name}.html", b"old")
    assert client.get(page_url(make_verdict(), "reports")).text == "old"


def test_unavailable_bucket_is_a_503_page_with_retry_after(
    client: TestClient, cache: VerdictCache, store: ObjectStore
) -> None:
    def unavailable(_: str) -> bytes:
        raise StorageUnavailable("the bucket does not answer: TimeoutError")

    store.read = unavailable  # type: ignore[method-assign,assignment]
    cache.add(make_verdict())
    response = client.get(page_url(make_verdict(), "reports"))
    assert (response.status_code, response.headers["Retry-After"]) == (503, "30")
    assert "the bucket does not answer: TimeoutError" in page_text(response)
    window = client.get(page_url(make_verdict()))
    assert window.status_code == 200
    assert "No charts: the bucket does not answer" in page_text(window)
    version = client.get("/?model=m&version=1")
    assert version.status_code == 200
    assert "compared with this version's training: the bucket does not answer" in page_text(version)


def test_overview_shows_quality_and_estimate(client: TestClient, cache: VerdictCache) -> None:
    common: dict[str, Any] = {
        "model": "m",
        "version": "1",
        "rows": 900,
        "first_prediction_at": BEGIN,
        "last_prediction_at": BEGIN,
    }
    evaluation = Evaluation(
        rows=900,
        days=8,
        resampling_unit="days",
        metrics={
            "roc_auc": MetricEstimate(value=0.7012, low=0.68, high=0.72),
            "mean_absolute_error": MetricEstimate(value=12.3456, low=11.2, high=13.5),
        },
    )
    window = make_verdict().window
    cache.add(make_verdict())
    cache.add(
        QualityVerdict(
            window=window,
            windows=3,
            unmatched=0,
            verdict="degraded",
            explanation="ROC AUC 0.701 <",
            in_service=evaluation,
            **common,
        )
    )
    metrics, track_record = {"roc_auc": 0.75}, EstimateTrackRecord(windows=2, mean_error=0.05)
    cache.add(
        QualityEstimate(
            window=window, metrics=metrics, track_record=track_record, trusted=False, explanation="too few", **common
        )
    )
    seen = page_text(client.get("/"))
    assert "degraded : ROC AUC 0.701 <" in seen
    assert "ROC AUC 0.701 0.680 to 0.720 –" in seen
    assert "mean absolute error 12.35 11.2 to 13.5 –" in seen
    assert "900 rows of 8 days" in seen
    assert "not trusted: ROC AUC 0.75 (too few)" in seen


def test_verdict_cache_keeps_latest_verdicts_and_ignores_other_events() -> None:
    cache = VerdictCache(max_events=3)
    for number in range(5):
        cache.add(make_verdict(number))
    cache.add(ModelStateChanged(retrain_id="r", model="m", state="failed", explanation=""))
    kept = cache.latest(DriftVerdict, "m", "1", 10)
    assert [verdict.window.first_offset for verdict in kept] == [2, 3, 4]
    assert kept[-1] == make_verdict(4).model_copy(update={"id": kept[-1].id, "time": kept[-1].time})
    assert cache.find(make_verdict(0).window.name, "m/1") is None
    middle = cache.find(make_verdict(3).window.name, "m/1")
    assert middle is not None
    assert cache.neighbours(middle) == (make_verdict(2).window.name, make_verdict(4).window.name)


def test_verdict_cache_keeps_the_last_real_verdict_of_each_version() -> None:
    cache = VerdictCache(max_events=3)
    cache.add(make_verdict(0, version="slow"))
    cache.add(make_verdict(1, version="slow", verdict="drift"))
    for number in range(2, 9):
        cache.add(make_verdict(number, version="slow", verdict="inconclusive"))
        cache.add(make_verdict(number, version="busy"))
    windows = cache.windows_by_version()
    assert [judged.verdict for judged in windows["m", "slow"]] == ["drift", "inconclusive"]
    assert [judged.window.first_offset for judged in windows["m", "busy"]] == [8]
    assert [verdict.verdict for verdict in cache.latest_conclusive(DriftVerdict, "m", "slow", 10)] == ["drift"]


def test_verdict_cache_keeps_the_last_comparison_of_quality_of_each_version() -> None:
    cache = VerdictCache(max_events=3)
    cache.add(make_quality(version="slow", verdict="degraded"))
    for number in range(1, 9):
        window = make_verdict(number).window
        cache.add(make_quality(window=window, version="slow", verdict="inconclusive", reason="too_few_rows"))
        cache.add(make_quality(window=window, version="busy"))
    (kept,) = cache.latest_conclusive(QualityVerdict, "m", "slow", 10)
    assert kept.verdict == "degraded"


def test_pages_show_of_a_number_the_version_that_was_judged_last(
    client: TestClient, cache: VerdictCache, store: ObjectStore
) -> None:
    store_reference(store, run_id="second")
    store.write("references/m/1/last_run", b"third")  # without the run, a reference that is missing would be read
    for number, run_id in enumerate(["first", "first", None, "second"]):
        verdict = "drift" if run_id == "first" else "no_drift"
        cache.add(make_verdict(number, run_id=run_id, verdict=verdict))
    cache.add(make_quality(window=make_verdict(8).window, run_id="second", verdict="improved"))
    cache.add(make_quality(window=make_verdict(9).window, run_id="first", verdict="degraded"))  # late outcomes
    seen = page_text(client.get("/?model=m&version=1"))
    assert "2 windows: 2 no drift." in seen
    assert "quality degraded" not in seen
    assert "Smallest shifts that are found" in seen


def test_verdict_cache_tells_versions_of_the_same_number_in_one_window_apart() -> None:
    cache = VerdictCache(max_events=10)
    for number in range(2):
        for run_id in ("first", "second"):
            cache.add(make_verdict(number, run_id=run_id))
    cache.add(make_verdict(1, run_id="first", verdict="drift", replayed=True))
    verdicts = cache.latest(DriftVerdict, "m", "1", 10)
    assert [verdict.run_id for verdict in verdicts] == ["first", "second"] * 2
    assert [verdict.run_id for verdict in cache.latest(DriftVerdict, "m", "1", 10, "first")] == ["first"] * 2
    assert [cache.replayed(verdict) is None for verdict in verdicts] == [True, True, False, True]
    found = cache.find(make_verdict(0).window.name, "m/1")
    assert found is not None
    assert found.run_id == "second"  # the one that was judged last
    assert cache.neighbours(found) == (None, make_verdict(1).window.name)


def test_verdict_cache_drops_the_oldest_of_more_versions_than_it_has_room_for() -> None:
    cache = VerdictCache(max_events=3)
    for number in range(5):
        cache.add(make_verdict(number, version=str(number)))
    assert list(cache.windows_by_version()) == [("m", "2"), ("m", "3"), ("m", "4")]


def test_pages_say_when_the_topic_has_not_answered(client: TestClient, cache: VerdictCache) -> None:
    assert "has not answered" not in page_text(client.get("/"))
    cache._fresh_at -= routes.STALE_AFTER_SECONDS + 1
    assert "has not answered for 31" in page_text(client.get("/"))
    cache.mark_fresh()
    assert "has not answered" not in page_text(client.get("/"))


def test_pages_show_times_in_utc(client: TestClient, cache: VerdictCache) -> None:
    new_york = timezone(timedelta(hours=-5))
    first = datetime(2013, 7, 1, 20, 30, tzinfo=new_york)
    cache.add(make_verdict(first_prediction_at=first, last_prediction_at=first + timedelta(hours=2)))
    assert "2013-07-02 01:30 – 03:30" in page_text(client.get("/"))


def test_worker_starts_without_importing_plotly() -> None:
    code = "import sys, drift_worker.main; assert not [name for name in sys.modules if name.startswith('plotly')]"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
