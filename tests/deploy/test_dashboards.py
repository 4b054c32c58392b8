"""The dashboards as files: what people rely on when they read a panel, and that what is asked for exists."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana import generate, steps
from tools import metrics_page

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
BOARDS = {path.stem: json.loads(path.read_text()) for path in FILES}
PANELS = [(name, panel) for name, board in BOARDS.items() for panel in board["panels"] if panel["type"] != "row"]
SERIES = {
    series for service in metrics_page.MODULES for one in metrics_page.metric_docs(service) for series in one.series
}
PROMETHEUS = {"up", "ALERTS"}
"""Series of Prometheus' own."""
UNITS = {"none", "short", "s", "bytes", "percentunit", "reqps", "cps", "cpm", "dateTimeFromNow", "dateTimeAsIso"}
"""Grafana's names, as they stand in its list of units."""


def exprs(board: dict[str, Any]) -> list[str]:
    """All queries of a dashboard: of panels, marks and choices."""
    panels = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    marks = [mark["target"]["expr"] for mark in board["annotations"]["list"]]
    return panels + marks + [one["query"] for one in board["templating"]["list"] if one["type"] == "query"]


def named(query: str) -> set[str]:
    """The series that a query names."""
    return set(re.findall(r"\b(?:driftloop|process)_[a-z0-9_]+\b|\bup\b|\bALERTS\b", re.sub(r'"[^"]*"', "", query)))


def test_the_files_are_what_the_code_writes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "grafana.generate", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_changed_file_is_found_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "DASHBOARDS", tmp_path / "dashboards")
    monkeypatch.setattr(generate, "CONSOLES", tmp_path / "consoles")
    monkeypatch.setattr(sys, "argv", ["generate"])
    assert generate.main() == 0
    monkeypatch.setattr(sys, "argv", ["generate", "--check"])
    assert generate.main() == 0
    file = tmp_path / "dashboards" / "loop.json"
    file.write_text(file.read_text().replace("the loop", "the hoop"))
    assert generate.main() == 1
    (tmp_path / "dashboards" / "old.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["generate"])
    assert generate.main() == 0
    assert sorted(path.name for path in (tmp_path / "dashboards").iterdir()) == [path.name for path in FILES]


def test_dashboards_and_panels_have_identities_of_their_own() -> None:
    assert set(BOARDS) == {"loop", "drift", "serving", "pipeline"}
    assert {board["uid"] for board in BOARDS.values()} == {f"driftloop-{name}" for name in BOARDS}
    assert len({board["title"] for board in BOARDS.values()}) == len(BOARDS)
    for board in BOARDS.values():
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids)
        titles = [panel["title"] for panel in board["panels"]]
        assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(("name", "panel"), PANELS, ids=[f"{name}: {panel['title']}" for name, panel in PANELS])
def test_a_panel_says_what_it_is_and_in_what_unit_and_asks_for_what_exists(name: str, panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    letters = [target["refId"] for target in panel["targets"]]
    assert len(set(letters)) == len(letters)
    choices = {one["name"] for one in BOARDS[name]["templating"]["list"]}
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        assert target["legendFormat"], "a series without a name"
        used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
        assert used <= choices
        for rate in re.findall(r"rate\(.*?\[(.+?)\]", target["expr"]):
            assert rate == "$__rate_interval", "a rate over a time that may hold a single scrape"


def test_panels_fill_the_width_and_lie_beside_one_another() -> None:
    for board in BOARDS.values():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert at["x"] + at["w"] <= 24, panel["title"]
            assert not cells & taken, panel["title"]
            taken |= cells


@pytest.mark.parametrize("name", BOARDS)
def test_every_metric_that_a_dashboard_names_exists_in_the_code(name: str) -> None:
    asked = {series for expr in exprs(BOARDS[name]) for series in named(expr)}
    assert len(asked) >= 5
    assert asked - SERIES - PROMETHEUS == set()


def test_a_next_step_names_alerts_that_exist() -> None:
    rules = yaml.safe_load((ROOT / "compose" / "prometheus" / "alerts.yaml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    asked = set(re.findall(r'alertname="(\w+)"', steps.next_step()))
    assert asked
    assert asked <= alerts


def test_no_limit_is_typed_into_a_panel() -> None:
    """A colour changes at 1 where the value is a share of its limit, and nowhere else; the limit is a series."""
    for name, panel in PANELS:
        steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
        typed = [step["value"] for step in steps if step["value"] is not None]
        assert typed in ([], [1]), (name, panel["title"])
        if typed:
            assert panel["fieldConfig"]["defaults"]["unit"] == "percentunit"
            assert all("threshold" in target["expr"] for target in panel["targets"])


def test_a_dashboard_leads_to_the_others_and_to_the_windows() -> None:
    for board in BOARDS.values():
        assert [link["type"] for link in board["links"]] == ["dashboards", "link"]
        assert board["links"][0]["tags"] == board["tags"]
        assert board["links"][1]["url"].startswith("${pages}/")
        assert [mark["name"] for mark in board["annotations"]["list"]] == ["Retrains", "Swaps"]


def test_grafana_works_out_rates_from_how_often_prometheus_looks() -> None:
    (source,) = yaml.safe_load((ROOT / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    configured = yaml.safe_load((ROOT / "compose" / "prometheus" / "prometheus.yaml").read_text())
    assert source["jsonData"]["timeInterval"] == configured["global"]["scrape_interval"]


def test_grafana_finds_source_and_dashboards_as_files() -> None:
    folder = ROOT / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "driftloop.yaml").read_text())["providers"]
    assert (source["type"], source["url"]) == ("prometheus", "$DRIFTLOOP_PROMETHEUS_URL")
    assert (provider["type"], provider["options"]["path"]) == ("file", "$DRIFTLOOP_DASHBOARDS")
    told = (ROOT / "docs" / "dashboards.md").read_text()
    assert "DRIFTLOOP_PROMETHEUS_URL" in told
    assert "DRIFTLOOP_DASHBOARDS" in told


def test_the_consoles_ask_what_the_dashboards_ask() -> None:
    for name, board in BOARDS.items():
        page = (ROOT / "compose" / "prometheus" / "consoles" / f"{name}.html").read_text()
        found = re.search(r'id="board">\n(.*)\n</script>', page, re.DOTALL)
        assert found
        told = json.loads(found[1])
        queries = [query["expr"] for panel in told["panels"] for query in panel.get("queries", [])]
        assert queries == [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
        assert "{{" not in found[1]
