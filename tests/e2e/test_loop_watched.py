"""Every query of every dashboard, sent to a real Prometheus that has scraped the running services.

Uses the events of ``test_loop.py`` if it ran before on the same stack; otherwise it produces its own.
"""

import json
import math
import re
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest

from driftloop.events import DataSelection
from driftloop.kafka import reader
from grafana.steps import STEPS
from stack.prometheus import SCRAPE_SECONDS
from stack.running import Stack
from tests.support.external_tools import require_tool
from tests.support.running_stack import FLIGHT, predict, run_command, serves_version
from tests.support.waiting import wait_until
from tools import screenshots

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FOLDER = Path(__file__).resolve().parents[2] / "grafana" / "dashboards"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
MAX_DATA_POINTS = 1_000  # of a range query, Grafana's default for panels without maxDataPoints
VARIABLE_QUERY = re.compile(r"label_values\((?P<series>.+), (?P<label>\w+)\)")
SUMMER = DataSelection(start=date(2013, 6, 1), base_end=date(2013, 8, 1), archive=False)
MILLISECONDS = 1.3e12, 4.1e12  # since 1970: from 2011 to 2099

MAX_VALUE_RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "loop": {
        "Next step": (0, len(STEPS)),
        "Version in service": (1, 16),
        "Firing alerts": (0, 50),
        "Latest retrain": MILLISECONDS,
        "Quality by outcomes": (0.5, 1),
        "Latest gate": (0.5, 1),
        "End of the latest window": MILLISECONDS,
        "Drifted columns of the version in service": (1, 1),
        "Window scores and thresholds": (1, 1_000),
        "Windows by verdict": (0.1, 10_000),
        "Quality: by outcomes, estimated, at the gate": (0.5, 1),
        "Retrains by result": (0.5, 50),
        "Rows and events, in and out": (0.01, 100_000),
    },
    "drift": {
        "Drifted columns": (0, 16),
        "Consecutive alarms": (0, 1_000),
        "Windows by verdict, total": (1, 10_000),
        "Statistics relative to thresholds": (1, 1_000),
        "Latest window: columns by statistic relative to threshold": (0.01, 1_000),
        "Drifted columns by version": (1, 16),
        "Cumulated score": (0.01, 2),
        "Statistics and thresholds, one window": (0.001, 10),
        "Statistics and thresholds, several windows": (0.001, 10),
    },
    "serving": {
        "Request rate": (0, 10_000),
        "Error ratio": (0, 0),
        "Version in service": (1, 16),
        "Alias' version rejected": (0, 0),
        "Requests by protocol and status": (0.01, 10_000),
        "Requests by version": (0.01, 10_000),
        "Request duration": (0.001, 10),
        "Server and client errors": (0, 1),
        "Request duration, distribution": (0.01, 10_000),
        "Batch size": (0, 5_000),
        "Batch duration": (0.001, 5),
        "Rows by version": (1, 100_000),
        "Processes by version": (1, 16),
        "Swaps and rejected versions": (0, 50),
        "Pending events": (0, 1_000_000),
        "Age of the oldest pending event": (0, 600),
        "Published events": (1, 100_000),
        "Dropped events and relay restarts": (0, 50),
    },
    "pipeline": {
        "Services up": (1, 1),
        "Builds": (1, 1),
        "CPU": (0.001, 16),
        "Memory": (50e6, 8e9),
        "Consumer lag, events": (0, 1_000_000),
        "Consumer lag, time": (0, 600),
        "Consumed events": (0.1, 100_000),
        "Dead letters": (0, 10_000),
        "Outcomes without a prediction": (0, 100_000),
        "Archive writes": (0.001, 50),
        "Verdict latency": (0.001, 120),
        "Reports by result": (0, 1_000),
        "Report duration": (0, 300),
        "Duration of retrain phases": (0.1, 300),
        "Time in each phase": (0.1, 900),
        "Retrains by result, total": (1, 100),
        "Rows of the latest dataset": (1_000, 1_000_000),
        "Missing outcome days": (0, 366),
        "Policy decisions": (0, 1_000_000),
    },
}
"""By dashboard and panel: lower and upper bound of the largest value of all its queries. No value is negative."""


class Prometheus:
    """A client of the stack's Prometheus, with the period in which it has scraped."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/api/v1"
        started = self.get("status/runtimeinfo")["startTime"][: len("2013-01-01T00:00:00")]
        self.begin = datetime.fromisoformat(started).replace(tzinfo=UTC).timestamp()
        self.end = time.time()

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the data of a response of the HTTP API."""
        response = httpx.get(f"{self._url}/{path}", params=parameters, timeout=30)
        assert response.is_success, response.text
        return response.json()["data"]

    def value(self, query: str) -> float | None:
        """Return the latest value of a query with one result, or None if it has no result."""
        results = self.get("query", query=query)["result"]
        return float(results[0]["value"][1]) if results else None


@pytest.fixture(scope="module")
def prometheus(stack: Stack, version_1: str) -> Prometheus:
    """Return Prometheus after it has scraped normal rows, another season, invalid requests and a swap."""
    require_tool("prometheus")
    prometheus = Prometheus(stack.components["prometheus"].url)
    rejected_requests = 'sum(driftloop_predictor_requests_total{status="422"})'
    for count in (1, 2):  # the first increase of a counter with new labels is invisible to rate()
        predict(stack, {**FLIGHT, "distance": "far"})
        wait_until(
            lambda minimum=count: prometheus.value(f"{rejected_requests} >= {minimum}"),  # type: ignore[misc]
            "a rejected request is scraped",
        )
    if not prometheus.value("max_over_time(max(driftloop_drift_window_alarm)[1h:5s]) == 1"):
        stream_days(stack, "2013-01-10", "2013-01-13")
        stream_days(stack, "2013-07-10", "2013-07-13")
        wait_until(lambda: prometheus.value("max(driftloop_drift_window_alarm) == 1"), "an alarm is scraped")
    if stack.registry.champion() == version_1:
        change = stack.retrain("for the dashboards", SUMMER, lambda _: None)
        assert change.state == "promoted", change.explanation
    champion = str(stack.registry.champion())
    wait_until(lambda: serves_version(stack, champion), f"version {champion} serves")
    stream_days(stack, "2013-07-10", "2013-07-13")
    gate_metric = f'driftloop_quality_at_gate{{version="{champion}", metric="roc_auc"}}'
    # Several samples, because the last data point of a panel may be earlier than the first of them.
    wait_until(
        lambda: prometheus.value(f"count_over_time({gate_metric}[2m]) >= 4"),
        "quality at the gate is scraped several times",
    )
    prometheus.end = time.time()
    return prometheus


def stream_days(stack: Stack, first: str, last: str) -> None:
    """Stream days with their outcomes and wait until the drift worker has committed all of them."""
    done = run_command(stack, "driftloop-producer", "--from", first, "--to", last, "--rate", "max", "--rows", "50")
    assert done.returncode == 0, done.stdout + done.stderr
    topics = [stack.topics.predictions, stack.topics.outcomes]
    wait_until(
        lambda: reader.is_caught_up(stack.kafka, "drift_worker", topics) or None,
        "the drift worker has committed all events",
    )


class QueryResult(NamedTuple):
    """Series, finite values and duration of a query."""

    series: list[dict[str, str]]
    values: list[float]
    seconds: float


def run_query(
    prometheus: Prometheus, dashboard: dict[str, Any], target: dict[str, Any], points: int = MAX_DATA_POINTS
) -> QueryResult:
    """Run a query as Grafana does, with variables and macros filled in: over the whole period, or at its end."""
    begin, end = prometheus.begin, prometheus.end
    step = max((end - begin) / points, SCRAPE_SECONDS)
    variables = variable_values(prometheus, dashboard) | {
        "__interval": f"{step:.0f}s",
        "__range": f"{end - begin:.0f}s",
        "__rate_interval": f"{max(step + SCRAPE_SECONDS, 4 * SCRAPE_SECONDS):.0f}s",
    }
    query = re.sub(r"\$(\w+)", lambda match: variables[match[1]], target["expr"])
    started = time.perf_counter()
    if target.get("instant"):
        result = prometheus.get("query", query=query, time=end)["result"]
        values = [series["value"][1] for series in result]
    else:
        result = prometheus.get("query_range", query=query, start=begin, end=end, step=step)["result"]
        values = [value for series in result for _, value in series["values"]]
    seconds = time.perf_counter() - started
    numbers = [float(value) for value in values]
    return QueryResult(
        [series["metric"] for series in result], [number for number in numbers if math.isfinite(number)], seconds
    )


def variable_values(prometheus: Prometheus, dashboard: dict[str, Any]) -> dict[str, str]:
    """Return the value of each variable that Grafana selects when a dashboard is opened."""
    variables: dict[str, str] = {}
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            match = VARIABLE_QUERY.fullmatch(variable["query"])
            assert match, variable["query"]
            series = re.sub(r"\$(\w+)", lambda name: variables[name[1]], match["series"])
            values = prometheus.get(f"label/{match['label']}/values", **{"match[]": series})
            assert values, f"no value to select for {variable['name']}"
            selected = variable.get("current", {}).get("value", values[0])
            assert selected in [*values, ["$__all"]], f"{variable['name']} cannot be {selected}"
            variables[variable["name"]] = variable["allValue"] if selected == ["$__all"] else selected
    return variables


@pytest.mark.parametrize("name", DASHBOARDS)
def test_dashboard_panels_have_data_in_expected_range(prometheus: Prometheus, name: str) -> None:
    dashboard, problems, seconds = DASHBOARDS[name], [], 0.0
    print(f"\n{dashboard['title']}, {prometheus.end - prometheus.begin:.0f} s")
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            continue
        largest = []
        for target in panel["targets"]:
            result = run_query(prometheus, dashboard, target, panel.get("maxDataPoints", MAX_DATA_POINTS))
            seconds += result.seconds
            low, high = (min(result.values), max(result.values)) if result.values else (math.nan, math.nan)
            print(
                f"  {panel['title'][:44]:<44} {target['legendFormat'][:34]:<34} {len(result.series):>3} series "
                f"{len(result.values):>6,} values {low:>11.5g} to {high:<11.5g} {result.seconds * 1000:4.0f} ms"
            )
            if not low >= 0:
                problems.append(f"{panel['title']}, {target['legendFormat']}: {low}")
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                if not all(series.get(label) for series in result.series):
                    problems.append(f"{panel['title']}: a series without {label}")
            largest.append(high)
        low_end, high_end = MAX_VALUE_RANGES[name][panel["title"]]
        if not low_end <= max(largest) <= high_end:
            problems.append(f"{panel['title']}: {max(largest)} is not from {low_end} to {high_end}")
    print(f"  all queries: {seconds * 1000:.0f} ms")
    assert problems == []


def test_dashboards_have_exactly_the_expected_panels() -> None:
    panel_titles = {
        name: {p["title"] for p in dashboard["panels"] if p["type"] != "row"} for name, dashboard in DASHBOARDS.items()
    }
    assert panel_titles == {name: set(panels) for name, panels in MAX_VALUE_RANGES.items()}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_dashboard_annotations_mark_retrains_and_swaps_at_their_time(
    prometheus: Prometheus, stack: Stack, version_1: str, name: str
) -> None:
    annotations = {annotation["name"]: annotation for annotation in DASHBOARDS[name]["annotations"]["list"]}
    retrains = run_query(prometheus, DASHBOARDS[name], annotations["Retrains"]["target"])
    assert {"promoted"} <= {series["state"] for series in retrains.series}
    assert all(prometheus.begin <= value / 1000 <= prometheus.end for value in retrains.values)
    swaps = run_query(prometheus, DASHBOARDS[name], annotations["Swaps"]["target"])
    assert {series["version"] for series in swaps.series} >= {version_1, stack.registry.champion()}
    for annotation, result in ((annotations["Retrains"], retrains), (annotations["Swaps"], swaps)):
        labels = re.findall(r"{{(\w+)}}", annotation["titleFormat"])
        assert labels
        assert all(label in series for series in result.series for label in labels)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_console_draws_every_panel_without_errors(
    prometheus: Prometheus, browser: "Browser", stack: Stack, name: str
) -> None:
    errors = []
    with browser.new_page(viewport=screenshots.VIEWPORT) as page:
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        screenshots.open_console(page, stack.components["prometheus"].url, name, prometheus.end - prometheus.begin)
        panels = page.locator(".panel").all()
        titles = [panel.locator("h3").inner_text() for panel in panels]
        drawn = [panel.locator(".number b, .bar i, .cells i[style], svg path").count() for panel in panels]
        assert page.locator(".missing, .prom_graph_error").all_inner_texts() == []
    assert titles == list(MAX_VALUE_RANGES[name])
    assert all(drawn)
    assert errors == []
