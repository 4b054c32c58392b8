"""The drift worker's pages in a real browser: drawn, readable on a phone, and without a foreign host."""

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from drift_worker.web import routes
from drift_worker.web.report import ReportKey, render_and_store
from drift_worker.web.report_queue import ReportQueue
from drift_worker.web.verdict_cache import VerdictCache
from driftloop.events import DriftVerdict, Evaluation, MetricEstimate, QualityVerdict
from tests.support.drift_windows import BEGIN, Folder, days, give_reference, judged

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SIZES = {"desktop": (1280, 900), "phone": (360, 740)}
DRAWN = "() => [...document.querySelectorAll('.chart')].every(chart => chart.querySelector('svg.main-svg'))"


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, list[DriftVerdict]]:
    """A version's windows: quiet, without enough rows, warm, and with a column that stays empty."""
    bucket = Folder(tmp_path_factory.mktemp("bucket"))
    give_reference(bucket)
    frames = [days(1, 3), days(1, 4), days(1, 9).head(20), days(1, 5, warmer=10), days(1, 6).assign(visib=np.nan)]
    return bucket, list(judged(bucket, frames))


@pytest.fixture(scope="module")
def url(stream: tuple[Folder, list[DriftVerdict]]) -> Iterator[str]:
    """The pages, served."""
    bucket, judgements = stream
    verdicts = VerdictCache(max_events=100)
    figures = {"roc_auc": MetricEstimate(value=0.70, low=0.68, high=0.72)}
    for verdict in judgements:
        verdicts.add(verdict)
        found = Evaluation(rows=100, days=1, resampling_unit="rows", metrics=figures)
        verdicts.add(
            QualityVerdict(
                **{
                    "model": "m",
                    "version": "1",
                    "rows": 100,
                    "first_prediction_at": BEGIN,
                    "last_prediction_at": verdict.last_prediction_at,
                    "unmatched": 0,
                },
                **{
                    "window": verdict.window,
                    "windows": 1,
                    "verdict": "degraded",
                    "explanation": "ROC AUC 0.70",
                    "in_service": found,
                },
            )
        )
    app = FastAPI()
    with ReportQueue(2, 60, ["false"]) as reporting:
        routes.mount(app, verdicts, reporting, bucket)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, name="http", daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server ended while it started"
            thread.join(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive(), "the server did not end"


@pytest.fixture(params=["overview", "window"])
def path(request: pytest.FixtureRequest, stream: tuple[Folder, list[DriftVerdict]]) -> str:
    return "/" if request.param == "overview" else f"/windows/{stream[1][-1].window.name}/m/1"


@pytest.mark.parametrize("size", SIZES)
def test_every_chart_is_drawn_without_a_complaint_or_a_foreign_host(
    browser: "Browser", url: str, path: str, size: str
) -> None:
    width, height = SIZES[size]
    complaints, foreign = [], []
    with browser.new_page(viewport={"width": width, "height": height}) as page:
        page.on("console", lambda message: complaints.append(message.text) if message.type != "info" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.on(
            "request", lambda asked: foreign.append(asked.url) if not asked.url.startswith((url, "data:")) else None
        )
        page.goto(url + path)
        page.wait_for_function(DRAWN, timeout=20_000)
        charts = page.locator(".chart").count()
        marks = page.locator(".chart .trace, .chart .hm").count()
        too_wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert charts == (3 if path == "/" else 4)
    assert marks >= charts, "a chart is empty"
    assert too_wide <= 0
    assert (complaints, foreign) == ([], [])


def test_without_javascript_the_tables_are_there(browser: "Browser", url: str, path: str) -> None:
    with browser.new_page(java_script_enabled=False) as page:
        page.goto(url + path)
        assert page.locator("table tbody tr:visible").count() >= 4
        assert page.locator("tr.drifted:visible").first.is_visible()
        assert "need JavaScript" in page.locator("main").inner_text()


def test_a_window_on_the_heat_map_leads_to_its_page(browser: "Browser", url: str) -> None:
    with browser.new_page(viewport={"width": 1280, "height": 900}) as page:
        page.goto(url)
        page.wait_for_function(DRAWN, timeout=20_000)
        page.locator("#heat-1 .nsewdrag").click(position={"x": 20, "y": 20})
        page.wait_for_url("**/windows/*/m/1")
        assert page.locator("h1").inner_text().startswith("m version 1")


def test_the_report_is_drawn_without_a_foreign_host(
    browser: "Browser", url: str, stream: tuple[Folder, list[DriftVerdict]]
) -> None:
    bucket, judgements = stream
    subject = ReportKey.for_verdict(judgements[-2])
    render_and_store(bucket, subject)
    complaints, foreign = [], []
    with browser.new_page() as page:
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda asked: foreign.append(asked.url) if not asked.url.startswith((url, "data:")) else None
        )
        page.goto(f"{url}/reports/m/1/{subject.window}")
        page.get_by_text("of columns (1 out of 4)").wait_for(timeout=30_000)
        assert "temp 0.3" in page.locator("body").inner_text()
    assert (complaints, foreign) == ([], [])
