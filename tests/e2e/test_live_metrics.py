"""The list of metrics, the metrics of running services, and rules and dashboards agree; with a real Prometheus."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from stack import up
from stack.running import Stack
from tests.support.external_tools import needed, run
from tests.support.running_stack import FLIGHT, predict
from tests.support.waiting import wait_until
from tools import metrics_page

ROOT = Path(__file__).resolve().parents[2]
SERIES = {
    series for service in metrics_page.MODULES for one in metrics_page.metric_docs(service) for series in one.series
}


def scraped(stack: Stack, service: str) -> str:
    return httpx.get(stack.components[service].url + "/metrics").raise_for_status().text


def value(stack: Stack, part: str, name: str, **labels: str) -> float | None:
    for family in text_string_to_metric_families(scraped(stack, part)):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return None


@pytest.mark.usefixtures("version_1")
@pytest.mark.parametrize("service", list(metrics_page.MODULES))
def test_service_exposes_exactly_the_documented_metrics(stack: Stack, service: str) -> None:
    found: dict[str, Metric] = {m.name: m for m in text_string_to_metric_families(scraped(stack, service))}
    listed = {one.family: one for one in metrics_page.metric_docs(service)}
    assert found.keys() == listed.keys()
    for name, metric in found.items():
        one = listed[name]
        assert (metric.type, metric.documentation) == (one.type, one.help)
        for sample in metric.samples:
            assert sample.name in one.series
            assert sample.labels.keys() - {"le"} == set(one.labels)


@pytest.mark.usefixtures("version_1")
@pytest.mark.parametrize("service", list(metrics_page.MODULES))
def test_metric_names_follow_the_conventions_of_prometheus(stack: Stack, service: str) -> None:
    """Check scraped metrics, and those without a series yet, which promtool would skip."""
    scraped_lines = scraped(stack, service).splitlines()
    have = {line.split("{")[0].split(" ")[0] for line in scraped_lines}
    for one in metrics_page.metric_docs(service):
        if one.series[0] not in have:
            at = scraped_lines.index(f"# TYPE {one.name} {one.type}")
            scraped_lines[at + 1 : at + 1] = [
                series + ('{le="+Inf"} 1' if series.endswith("_bucket") else " 1") for series in one.series
            ]
    counted = [
        line for line in scraped_lines if "missing_outcome_days" not in line
    ]  # promtool asks for seconds, but these are calendar days
    run("promtool", "check", "metrics", given="\n".join(counted) + "\n")


def test_metrics_page_is_up_to_date() -> None:
    assert metrics_page.main(["--check"]) == 0


def test_metrics_page_check_reports_a_stale_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "metrics.md"
    page.write_text(metrics_page.PAGE.read_text().replace("driftloop_quality_low", "driftloop_quality_bottom"))
    monkeypatch.setattr(metrics_page, "PAGE", page)
    assert metrics_page.main(["--check"]) == 1
    assert metrics_page.main([]) == 0
    assert page.read_text() == (ROOT / "docs" / "metrics.md").read_text()


def test_rules_docs_and_dashboards_name_existing_metrics() -> None:
    named = {
        **{
            name: (ROOT / "docs" / name).read_text() for name in ("alerts.md", "drift.md", "metrics.md", "predictor.md")
        },
        **{path.name: path.read_text() for path in (ROOT / "compose" / "prometheus").glob("*.yaml")},
        **{str(path): "\n".join(queries(json.loads(path.read_text()))) for path in (ROOT / "grafana").rglob("*.json")},
    }
    families = {one.family for service in metrics_page.MODULES for one in metrics_page.metric_docs(service)}
    for where, text in named.items():
        assert not own_metrics(text) - SERIES - families, where
    assert len(own_metrics(named["alerts.yaml"])) > 10


def own_metrics(text: str) -> set[str]:
    """Return the names of driftloop's metrics in a text."""
    return set(re.findall(r"\bdriftloop_[a-z0-9_]+\b", text))


def queries(of: Any) -> Iterator[str]:
    """Yield the queries of a dashboard: of panels, annotations and variables."""
    for key, inner in of.items() if isinstance(of, dict) else enumerate(of) if isinstance(of, list) else ():
        if key in ("expr", "query", "definition") and isinstance(inner, str):
            yield inner
        else:
            yield from queries(inner)


@pytest.mark.usefixtures("version_1")
def test_predictor_resources_are_those_of_all_its_processes(stack: Stack) -> None:
    running = stack.executors["predictor"].process
    assert running is not None
    main = psutil.Process(running.pid)
    family = [main, *main.children(recursive=True)]
    assert len(family) > 1  # the relay
    used = sum(process.memory_info().rss for process in family)
    assert value(stack, "predictor", "process_resident_memory_bytes") == pytest.approx(used, rel=0.2)
    assert value(stack, "predictor", "process_start_time_seconds") == pytest.approx(main.create_time(), abs=1)
    seconds = value(stack, "predictor", "process_cpu_seconds_total")
    assert seconds is not None
    own = main.cpu_times()
    assert seconds > own.user + own.system - 5


@pytest.mark.usefixtures("version_1")
def test_services_expose_build_champion_phases_and_zero_lag(stack: Stack) -> None:
    for service in metrics_page.MODULES:
        assert value(stack, service, "driftloop_build_info", service=service, version="0.1.0") == 1
    champion = str(stack.registry.champion())
    wait_until(
        lambda: value(stack, "trainer", "driftloop_trainer_champion_info", model="flights", version=champion),
        "the trainer has looked at the alias",
    )
    assert value(stack, "trainer", "driftloop_trainer_dataset_rows", model="flights")
    for phase in ("data", "training", "smoke_test", "registration"):
        assert value(stack, "trainer", "driftloop_trainer_phase_duration_seconds_count", phase=phase), phase
    ended = value(stack, "trainer", "driftloop_trainer_last_retrain_timestamp_seconds", state="promoted")
    assert ended is not None
    assert predict(stack, FLIGHT).status_code == 200

    def nothing_left() -> bool | None:
        left = [
            value(stack, service, name, topic=topic)
            for name in ("driftloop_consumer_lag_events", "driftloop_consumer_lag_seconds")
            for service, topic in (("drift_worker", "predictions"), ("trainer", "models"))
        ]
        return True if left == [0, 0, 0, 0] else None

    wait_until(nothing_left, "all is handled, the marks of transactions too")
    limit = value(stack, "predictor", "driftloop_outbox_max_pending_events")
    assert limit is not None
    assert limit > 1_000


@pytest.mark.usefixtures("version_1")
def test_prometheus_scrapes_all_services_and_evaluates_all_rules(stack: Stack) -> None:
    needed("prometheus")

    def asked(path: str) -> Any:
        return httpx.get(f"{stack.components['prometheus'].url}/api/v1/{path}").raise_for_status().json()["data"]

    def up() -> bool | None:
        targets = asked("targets")["activeTargets"]
        assert {target["labels"]["job"] for target in targets} == set(metrics_page.MODULES)
        return True if all(target["health"] == "up" for target in targets) else None

    def evaluated() -> list[str] | None:
        rules = [rule for group in asked("rules")["groups"] for rule in group["rules"]]
        return None if any(rule["health"] == "unknown" for rule in rules) else sorted(rule["name"] for rule in rules)

    wait_until(up, "all targets are up")
    configured = yaml.safe_load((ROOT / "compose" / "prometheus" / "alerts.yaml").read_text())
    names = sorted(rule["alert"] for group in configured["groups"] for rule in group["rules"])
    assert wait_until(evaluated, "all rules are evaluated") == names
    rules = [rule for group in asked("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"]: rule.get("lastError", "") for rule in rules} == dict.fromkeys(names, "")
    assert {rule["health"] for rule in rules} == {"ok"}


def test_prometheus_configuration_of_compose_has_the_jobs_of_the_services() -> None:
    configuration = ROOT / "compose" / "prometheus" / "prometheus.yaml"
    run("promtool", "check", "config", str(configuration))
    jobs = [job["job_name"] for job in yaml.safe_load(configuration.read_text())["scrape_configs"]]
    assert jobs == list(metrics_page.MODULES)


def test_example_configuration_of_alertmanager_is_valid() -> None:
    run("amtool", "check-config", str(ROOT / "compose" / "alertmanager" / "alertmanager.yaml"))


def test_stack_reports_that_prometheus_is_not_installed(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(stack.components, "prometheus", raising=False)
    assert "Prometheus    not on this machine" in up.addresses(stack)
