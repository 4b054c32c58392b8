"""The dashboard files: properties of panels that readers rely on, and queries that name existing metrics."""

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
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in FILES}
PANELS = [
    (name, panel) for name, dashboard in DASHBOARDS.items() for panel in dashboard["panels"] if panel["type"] != "row"
]
SERIES = {
    series for service in metrics_page.MODULES for doc in metrics_page.metric_docs(service) for series in doc.series
}
PROMETHEUS = {"up", "ALERTS"}
"""Prometheus' own series."""
UNITS = {"none", "short", "s", "bytes", "percentunit", "reqps", "cps", "cpm", "dateTimeFromNow", "dateTimeAsIso"}
"""Names of units in Grafana."""


def queries_in(dashboard: dict[str, Any]) -> list[str]:
    """Return all queries of a dashboard: of panels, annotations and variables."""
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    annotations = [annotation["target"]["expr"] for annotation in dashboard["annotations"]["list"]]
    return (
        panels
        + annotations
        + [variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    )


def series_in(query: str) -> set[str]:
    """Return the names of the series in a query."""
    return set(re.findall(r"\b(?:driftloop|process)_[a-z0-9_]+\b|\bup\b|\bALERTS\b", re.sub(r'"[^"]*"', "", query)))


def test_dashboard_files_are_up_to_date() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "grafana.generate", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_dashboard_check_reports_a_changed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_dashboards_and_panels_have_unique_ids_and_titles() -> None:
    assert set(DASHBOARDS) == {"loop", "drift", "serving", "pipeline"}
    assert {dashboard["uid"] for dashboard in DASHBOARDS.values()} == {f"driftloop-{name}" for name in DASHBOARDS}
    assert len({dashboard["title"] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)
    for dashboard in DASHBOARDS.values():
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids)
        titles = [panel["title"] for panel in dashboard["panels"]]
        assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(("name", "panel"), PANELS, ids=[f"{name}: {panel['title']}" for name, panel in PANELS])
def test_panel_has_title_description_unit_and_valid_queries(name: str, panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    ref_ids = [target["refId"] for target in panel["targets"]]
    assert len(set(ref_ids)) == len(ref_ids)
    variables = {variable["name"] for variable in DASHBOARDS[name]["templating"]["list"]}
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        assert target["legendFormat"], "a query without a legend"
        used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
        assert used <= variables
        for rate in re.findall(r"rate\(.*?\[(.+?)\]", target["expr"]):
            assert rate == "$__rate_interval", "a rate over a range that may contain a single scrape"


def test_panels_do_not_overlap_and_fit_the_width() -> None:
    for dashboard in DASHBOARDS.values():
        occupied: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            left, top, width, height = (panel["gridPos"][key] for key in ("x", "y", "w", "h"))
            cells = {(x, y) for x in range(left, left + width) for y in range(top, top + height)}
            assert left + width <= 24, panel["title"]
            assert not cells & occupied, panel["title"]
            occupied |= cells


@pytest.mark.parametrize("name", DASHBOARDS)
def test_metrics_in_dashboards_exist_in_the_code(name: str) -> None:
    used = {series for expr in queries_in(DASHBOARDS[name]) for series in series_in(expr)}
    assert len(used) >= 5
    assert used - SERIES - PROMETHEUS == set()


def test_next_step_names_existing_alerts() -> None:
    rules = yaml.safe_load((ROOT / "compose" / "prometheus" / "alerts.yaml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    named = set(re.findall(r'alertname="(\w+)"', steps.next_step()))
    assert named
    assert named <= alerts


def test_panels_contain_no_threshold_but_one_for_ratios() -> None:
    """Check that a colour changes only at 1, in panels of ratios to a threshold; the threshold itself is a series."""
    for name, panel in PANELS:
        threshold_steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
        values = [step["value"] for step in threshold_steps if step["value"] is not None]
        assert values in ([], [1]), (name, panel["title"])
        if values:
            assert panel["fieldConfig"]["defaults"]["unit"] == "percentunit"
            assert all("threshold" in target["expr"] for target in panel["targets"])


def test_dashboard_links_to_the_others_and_to_windows() -> None:
    for dashboard in DASHBOARDS.values():
        assert [link["type"] for link in dashboard["links"]] == ["dashboards", "link"]
        assert dashboard["links"][0]["tags"] == dashboard["tags"]
        assert dashboard["links"][1]["url"].startswith("${pages}/")
        assert [annotation["name"] for annotation in dashboard["annotations"]["list"]] == ["Retrains", "Swaps"]


def test_grafana_data_source_has_the_scrape_interval_of_prometheus() -> None:
    (source,) = yaml.safe_load((ROOT / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    configured = yaml.safe_load((ROOT / "compose" / "prometheus" / "prometheus.yaml").read_text())
    assert source["jsonData"]["timeInterval"] == configured["global"]["scrape_interval"]


def test_grafana_provisioning_names_data_source_and_dashboards() -> None:
    folder = ROOT / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "driftloop.yaml").read_text())["providers"]
    assert (source["type"], source["url"]) == ("prometheus", "$DRIFTLOOP_PROMETHEUS_URL")
    assert (provider["type"], provider["options"]["path"]) == ("file", "$DRIFTLOOP_DASHBOARDS")
    page = (ROOT / "docs" / "dashboards.md").read_text()
    assert "DRIFTLOOP_PROMETHEUS_URL" in page
    assert "DRIFTLOOP_DASHBOARDS" in page


def test_consoles_have_the_queries_of_the_dashboards() -> None:
    for name, dashboard in DASHBOARDS.items():
        page = (ROOT / "compose" / "prometheus" / "consoles" / f"{name}.html").read_text()
        script = re.search(r'id="board">\n(.*)\n</script>', page, re.DOTALL)
        assert script
        spec = json.loads(script[1])
        queries = [query["expr"] for panel in spec["panels"] for query in panel.get("queries", [])]
        assert queries == [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
        assert "{{" not in script[1]
