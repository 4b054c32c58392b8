"""Every query of every dashboard, sent to a real Prometheus that scraped the services while the loop ran.

Runs after the tests of the loop and uses their events; run alone, it produces its own.
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
from tests.support.external_tools import needed
from tests.support.running_stack import FLIGHT, predict, run_command, serves_version
from tests.support.waiting import wait_until
from tools import screenshots

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FOLDER = Path(__file__).resolve().parents[2] / "grafana" / "dashboards"
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
POINTS = 1_000  # that Grafana asks for where a panel says nothing else
CHOICE = re.compile(r"label_values\((?P<series>.+), (?P<label>\w+)\)")
SUMMER = DataSelection(start=date(2013, 6, 1), base_end=date(2013, 8, 1), archive=False)
MILLISECONDS = 1.3e12, 4.1e12  # since 1970: from 2011 to 2099

LARGEST: dict[str, dict[str, tuple[float, float]]] = {
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
"""By panel, where the largest value of all its queries lies after the loop has turned; none is below 0."""


class Prometheus:
    """The stack's, and the time in which it has looked."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/api/v1"
        started = self.get("status/runtimeinfo")["startTime"][: len("2013-01-01T00:00:00")]
        self.begin = datetime.fromisoformat(started).replace(tzinfo=UTC).timestamp()
        self.end = time.time()

    def get(self, path: str, **given: Any) -> Any:
        answer = httpx.get(f"{self._url}/{path}", params=given, timeout=30)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def value(self, query: str) -> float | None:
        """The latest value of a query with one result, once it has one."""
        found = self.get("query", query=query)["result"]
        return float(found[0]["value"][1]) if found else None


@pytest.fixture(scope="module")
def prometheus(stack: Stack, version_1: str) -> Prometheus:
    """It has seen rows that are as usual, another season, refused requests, and a swap; and what came of them."""
    needed("prometheus")
    seen = Prometheus(stack.components["prometheus"].url)
    refused = 'sum(driftloop_predictor_requests_total{status="422"})'
    for count in (1, 2):  # of a counter with labels nobody sees the first
        predict(stack, {**FLIGHT, "distance": "far"})
        wait_until(lambda least=count: seen.value(f"{refused} >= {least}"), "a refused request is seen")  # type: ignore[misc]
    if not seen.value("max_over_time(max(driftloop_drift_window_alarm)[1h:5s]) == 1"):
        stream(stack, "2013-01-10", "2013-01-13")
        stream(stack, "2013-07-10", "2013-07-13")
        wait_until(lambda: seen.value("max(driftloop_drift_window_alarm) == 1"), "an alarm is seen")
    if stack.registry.champion() == version_1:
        change = stack.retrain("to be watched", SUMMER, lambda _: None)
        assert change.state == "promoted", change.explanation
    champion = str(stack.registry.champion())
    wait_until(lambda: serves_version(stack, champion), f"version {champion} answers")
    stream(stack, "2013-07-10", "2013-07-13")
    measured = f'driftloop_quality_at_gate{{version="{champion}", metric="roc_auc"}}'
    # Not once alone: a panel's last point may lie before that.
    wait_until(lambda: seen.value(f"count_over_time({measured}[2m]) >= 4"), "quality is seen several times")
    seen.end = time.time()
    return seen


def stream(stack: Stack, first: str, last: str) -> None:
    """Streams days with their outcomes until all of them are judged and archived."""
    done = run_command(stack, "driftloop-producer", "--from", first, "--to", last, "--rate", "max", "--rows", "50")
    assert done.returncode == 0, done.stdout + done.stderr
    of = [stack.topics.predictions, stack.topics.outcomes]
    wait_until(lambda: reader.is_caught_up(stack.kafka, "drift_worker", of) or None, "all is judged")


class Found(NamedTuple):
    """What a query has found, and how long that took."""

    series: list[dict[str, str]]
    values: list[float]
    seconds: float


def ask(prometheus: Prometheus, board: dict[str, Any], target: dict[str, Any], points: int = POINTS) -> Found:
    """Asks as Grafana does: choices and macros filled in; over the time, or at its end."""
    begin, end = prometheus.begin, prometheus.end
    step = max((end - begin) / points, SCRAPE_SECONDS)
    words = choices(prometheus, board) | {
        "__interval": f"{step:.0f}s",
        "__range": f"{end - begin:.0f}s",
        "__rate_interval": f"{max(step + SCRAPE_SECONDS, 4 * SCRAPE_SECONDS):.0f}s",
    }
    expr = re.sub(r"\$(\w+)", lambda found: words[found[1]], target["expr"])
    began = time.perf_counter()
    if target.get("instant"):
        result = prometheus.get("query", query=expr, time=end)["result"]
        values = [one["value"][1] for one in result]
    else:
        result = prometheus.get("query_range", query=expr, start=begin, end=end, step=step)["result"]
        values = [value for one in result for _, value in one["values"]]
    seconds = time.perf_counter() - began
    numbers = [float(value) for value in values]
    return Found([one["metric"] for one in result], [one for one in numbers if math.isfinite(one)], seconds)


def choices(prometheus: Prometheus, board: dict[str, Any]) -> dict[str, str]:
    """What Grafana would have chosen of each variable when a dashboard is opened."""
    words: dict[str, str] = {}
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            parts = CHOICE.fullmatch(variable["query"])
            assert parts, variable["query"]
            series = re.sub(r"\$(\w+)", lambda found: words[found[1]], parts["series"])
            values = prometheus.get(f"label/{parts['label']}/values", **{"match[]": series})
            assert values, f"there is nothing to choose for {variable['name']}"
            wanted = variable.get("current", {}).get("value", values[0])
            assert wanted in [*values, ["$__all"]], f"{variable['name']} cannot be {wanted}"
            words[variable["name"]] = variable["allValue"] if wanted == ["$__all"] else wanted
    return words


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_has_data_in_its_expected_range(prometheus: Prometheus, name: str) -> None:
    board, wrong, seconds = BOARDS[name], [], 0.0
    print(f"\n{board['title']}, {prometheus.end - prometheus.begin:.0f} s")
    for panel in board["panels"]:
        if panel["type"] == "row":
            continue
        largest = []
        for target in panel["targets"]:
            found = ask(prometheus, board, target, panel.get("maxDataPoints", POINTS))
            seconds += found.seconds
            low, high = (min(found.values), max(found.values)) if found.values else (math.nan, math.nan)
            print(
                f"  {panel['title'][:44]:<44} {target['legendFormat'][:34]:<34} {len(found.series):>3} series "
                f"{len(found.values):>6,} values {low:>11.5g} to {high:<11.5g} {found.seconds * 1000:4.0f} ms"
            )
            if not low >= 0:
                wrong.append(f"{panel['title']}, {target['legendFormat']}: {low}")
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                if not all(one.get(label) for one in found.series):
                    wrong.append(f"{panel['title']}: a series without {label}")
            largest.append(high)
        least, most = LARGEST[name][panel["title"]]
        if not least <= max(largest) <= most:
            wrong.append(f"{panel['title']}: {max(largest)} is not from {least} to {most}")
    print(f"  all queries: {seconds * 1000:.0f} ms")
    assert wrong == []


def test_dashboards_have_exactly_the_expected_panels() -> None:
    there = {name: {p["title"] for p in board["panels"] if p["type"] != "row"} for name, board in BOARDS.items()}
    assert there == {name: set(panels) for name, panels in LARGEST.items()}


@pytest.mark.parametrize("name", BOARDS)
def test_annotations_mark_retrains_and_swaps_at_their_time(
    prometheus: Prometheus, stack: Stack, version_1: str, name: str
) -> None:
    marks = {mark["name"]: mark for mark in BOARDS[name]["annotations"]["list"]}
    retrains = ask(prometheus, BOARDS[name], marks["Retrains"]["target"])
    assert {"promoted"} <= {one["state"] for one in retrains.series}
    assert all(prometheus.begin <= value / 1000 <= prometheus.end for value in retrains.values)
    swaps = ask(prometheus, BOARDS[name], marks["Swaps"]["target"])
    assert {one["version"] for one in swaps.series} >= {version_1, stack.registry.champion()}
    for mark, found in ((marks["Retrains"], retrains), (marks["Swaps"], swaps)):
        labels = re.findall(r"{{(\w+)}}", mark["titleFormat"])
        assert labels
        assert all(label in one for one in found.series for label in labels)


@pytest.mark.parametrize("name", BOARDS)
def test_console_draws_every_panel_without_errors(
    prometheus: Prometheus, browser: "Browser", stack: Stack, name: str
) -> None:
    complaints = []
    with browser.new_page(viewport=screenshots.VIEWPORT) as page:
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        screenshots.open_console(page, stack.components["prometheus"].url, name, prometheus.end - prometheus.begin)
        panels = page.locator(".panel").all()
        titles = [panel.locator("h3").inner_text() for panel in panels]
        drawn = [panel.locator(".number b, .bar i, .cells i[style], svg path").count() for panel in panels]
        assert page.locator(".missing, .prom_graph_error").all_inner_texts() == []
    assert titles == list(LARGEST[name])
    assert all(drawn)
    assert complaints == []
