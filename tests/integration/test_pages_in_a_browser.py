"""The drift worker's pages in a real browser: charts, width on a phone, and no requests to other hosts."""

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from drift_worker.web import routes
from drift_worker.web.report import ReportKey, render_and_store, thresholds
from drift_worker.web.report_queue import ReportQueue
from drift_worker.web.verdict_cache import VerdictCache
from driftloop.asgi import refuse_foreign_pages
from driftloop.events import DriftVerdict, Evaluation, MetricEstimate, QualityVerdict
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import load_profile
from tests.support.drift_windows import BEGIN, archive_and_judge, make_days, store_reference
from tests.support.folder_store import folder_store

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SIZES = {"desktop": (1280, 900), "phone": (360, 740)}
ALL_CHARTS_DRAWN = "() => [...document.querySelectorAll('.chart')].every(chart => chart.querySelector('svg.main-svg'))"


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> tuple[ObjectStore, list[DriftVerdict]]:
    """Return verdicts on normal days, one with too few rows, a warm one, and one with an empty column."""
    store = folder_store(tmp_path_factory.mktemp("store"))
    store_reference(store)
    frames = [
        make_days(1, 3),
        make_days(1, 4),
        make_days(1, 9).head(20),
        make_days(1, 5, warmer=10),
        make_days(1, 6).assign(visib=np.nan),
    ]
    return store, list(archive_and_judge(store, frames))


@pytest.fixture(scope="module")
def url(stream: tuple[ObjectStore, list[DriftVerdict]]) -> Iterator[str]:
    """Serve the pages and return their URL."""
    store, verdicts = stream
    cache = VerdictCache(max_events=100)
    evaluation = Evaluation(
        rows=100, days=1, resampling_unit="rows", metrics={"roc_auc": MetricEstimate(value=0.70, low=0.68, high=0.72)}
    )
    for verdict in verdicts:
        cache.add(verdict)
        cache.add(
            QualityVerdict(
                window=verdict.window,
                windows=1,
                model="m",
                version="1",
                rows=100,
                unmatched=0,
                first_prediction_at=BEGIN,
                last_prediction_at=verdict.last_prediction_at,
                verdict="degraded",
                explanation="ROC AUC 0.70",
                in_service=evaluation,
            )
        )
    app = FastAPI()
    with ReportQueue(2, 60, ["false"]) as report_queue:
        routes.mount(app, cache, report_queue, store)
        server = uvicorn.Server(uvicorn.Config(refuse_foreign_pages(app), port=0, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, name="http", daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server ended while it started"
            thread.join(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive(), "the server did not end"


@pytest.fixture(params=["overview", "version", "window"])
def path(request: pytest.FixtureRequest, stream: tuple[ObjectStore, list[DriftVerdict]]) -> str:
    return {
        "overview": "/",
        "version": "/?model=m&version=1",
        "window": f"/windows/{stream[1][-1].window.name}/m/1",
    }[request.param]


@pytest.mark.parametrize("size", SIZES)
def test_pages_draw_every_chart_without_errors_or_foreign_requests(
    browser: "Browser", url: str, path: str, size: str
) -> None:
    width, height = SIZES[size]
    errors, foreign = [], []
    with browser.new_page(viewport={"width": width, "height": height}) as page:
        page.on("console", lambda message: errors.append(message.text) if message.type != "info" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("requestfailed", lambda request: errors.append(request.url))
        page.on(
            "request",
            lambda request: foreign.append(request.url) if not request.url.startswith((url, "data:")) else None,
        )
        page.goto(url + path)
        page.wait_for_function(ALL_CHARTS_DRAWN, timeout=20_000)
        charts = page.locator(".chart").count()
        marks = page.locator(".chart .trace, .chart .hm").count()
        too_wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert charts == 4
    assert marks >= charts, "a chart is empty"
    assert too_wide <= 0
    assert (errors, foreign) == ([], [])


def test_pages_show_tables_without_javascript(browser: "Browser", url: str, path: str) -> None:
    with browser.new_page(java_script_enabled=False) as page:
        page.goto(url + path)
        assert page.locator("table tbody tr:visible").count() >= 4
        assert page.locator("tr.drifted:visible").first.is_visible()
        assert "need JavaScript" in page.locator("main").inner_text()


def test_click_on_heatmap_opens_page_of_window(browser: "Browser", url: str) -> None:
    with browser.new_page(viewport={"width": 1280, "height": 900}) as page:
        page.goto(url)
        page.wait_for_function(ALL_CHARTS_DRAWN, timeout=20_000)
        page.locator("#heat-1 .nsewdrag").click(position={"x": 20, "y": 20})
        page.wait_for_url("**/windows/*/m/1")
        assert page.locator("h1").inner_text().startswith("m version 1")


def test_report_is_drawn_without_foreign_requests(
    browser: "Browser", url: str, stream: tuple[ObjectStore, list[DriftVerdict]]
) -> None:
    store, verdicts = stream
    key = ReportKey.for_verdict(verdicts[-2])
    render_and_store(store, key)
    errors, foreign = [], []
    with browser.new_page() as page:
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "request",
            lambda request: foreign.append(request.url) if not request.url.startswith((url, "data:")) else None,
        )
        page.goto(f"{url}/reports/m/1/{key.window}")
        page.get_by_text("of columns (1 out of 4)").wait_for(timeout=30_000)
        threshold = thresholds(load_profile(store, "m", "1"))["temp"]
        assert f"temp {threshold:.3g}" in page.locator("body").inner_text()
    assert (errors, foreign) == ([], [])


def test_page_of_a_failed_report_requests_it_again_but_a_foreign_page_cannot(
    browser: "Browser", url: str, stream: tuple[ObjectStore, list[DriftVerdict]]
) -> None:
    path = f"/reports/m/1/{stream[1][0].window.name}"
    with browser.new_page() as page:
        page.goto(url + path)
        with page.expect_response(lambda response: response.request.method == "POST") as own:
            page.get_by_text("Try again").click(timeout=30_000)
        assert own.value.status == 303
    with browser.new_page() as page:
        page.route(
            "http://evil.example/",
            lambda route: route.fulfill(
                content_type="text/html",
                body=f"""
            <form method="post" action="{url}{path}"><button>Win a prize</button></form>""",
            ),
        )
        page.goto("http://evil.example/")
        with page.expect_response(lambda response: response.request.method == "POST") as foreign:
            page.get_by_text("Win a prize").click()
        assert foreign.value.status == 403
