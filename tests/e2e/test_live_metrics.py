"""Metrics of running services, their documentation, alert rules and dashboards agree; with a real Prometheus."""

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
from tests.support.external_tools import require_tool, run_tool
from tests.support.running_stack import FLIGHT, predict
from tests.support.waiting import wait_until
from tools import metrics_page

ROOT = Path(__file__).resolve().parents[2]
SERIES = {
    series for service in metrics_page.MODULES for doc in metrics_page.metric_docs(service) for series in doc.series
}


def scrape(stack: Stack, service: str) -> str:
    """Return the metrics of a service as text."""
    return httpx.get(stack.components[service].url + "/metrics").raise_for_status().text


def metric_value(stack: Stack, component: str, name: str, **labels: str) -> float | None:
    """Return the value of a service's first sample with this name and these labels."""
    for metric in text_string_to_metric_families(scrape(stack, component)):
        for sample in metric.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return None


@pytest.mark.usefixtures("version_1")
@pytest.mark.parametrize("service", list(metrics_page.MODULES))
def test_service_exposes_exactly_the_documented_metrics(stack: Stack, service: str) -> None:
    exposed: dict[str, Metric] = {m.name: m for m in text_string_to_metric_families(scrape(stack, service))}
    documented = {doc.family: doc for doc in metrics_page.metric_docs(service)}
    assert exposed.keys() == documented.keys()
    for name, metric in exposed.items():
        doc = documented[name]
        assert (metric.type, metric.documentation) == (doc.type, doc.help)
        for sample in metric.samples:
            assert sample.name in doc.series
            assert sample.labels.keys() - {"le"} == set(doc.labels)


@pytest.mark.usefixtures("version_1")
@pytest.mark.parametrize("service", list(metrics_page.MODULES))
def test_service_metric_names_follow_prometheus_conventions(stack: Stack, service: str) -> None:
    """Check scraped metrics, and those without a series yet, which promtool would skip."""
    scraped_lines = scrape(stack, service).splitlines()
    series_with_samples = {line.split("{")[0].split(" ")[0] for line in scraped_lines}
    for doc in metrics_page.metric_docs(service):
        if doc.series[0] not in series_with_samples:
            header_line = scraped_lines.index(f"# TYPE {doc.name} {doc.type}")
            scraped_lines[header_line + 1 : header_line + 1] = [
                series + ('{le="+Inf"} 1' if series.endswith("_bucket") else " 1") for series in doc.series
            ]
    checked_lines = [
        line for line in scraped_lines if "missing_outcome_days" not in line
    ]  # promtool requires seconds, but these are calendar days
    run_tool("promtool", "check", "metrics", stdin="\n".join(checked_lines) + "\n")


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
    texts = {
        **{
            name: (ROOT / "docs" / name).read_text() for name in ("alerts.md", "drift.md", "metrics.md", "predictor.md")
        },
        **{path.name: path.read_text() for path in (ROOT / "compose" / "prometheus").glob("*.yaml")},
        **{
            str(path): "\n".join(dashboard_queries(json.loads(path.read_text())))
            for path in (ROOT / "grafana").rglob("*.json")
        },
    }
    families = {doc.family for service in metrics_page.MODULES for doc in metrics_page.metric_docs(service)}
    for source, text in texts.items():
        assert not driftloop_metrics(text) - SERIES - families, source
    assert len(driftloop_metrics(texts["alerts.yaml"])) > 10


def driftloop_metrics(text: str) -> set[str]:
    """Return the names of driftloop's metrics in a text."""
    return set(re.findall(r"\bdriftloop_[a-z0-9_]+\b", text))


def dashboard_queries(node: Any) -> Iterator[str]:
    """Yield the queries in a dashboard's JSON: of panels, annotations and variables."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if key in ("expr", "query", "definition") and isinstance(value, str):
            yield value
        else:
            yield from dashboard_queries(value)


@pytest.mark.usefixtures("version_1")
def test_predictor_resource_metrics_include_all_its_processes(stack: Stack) -> None:
    process_handle = stack.executors["predictor"].process
    assert process_handle is not None
    main = psutil.Process(process_handle.pid)
    processes = [main, *main.children(recursive=True)]
    assert len(processes) > 1  # the relay is a child process
    resident_bytes = sum(process.memory_info().rss for process in processes)
    assert metric_value(stack, "predictor", "process_resident_memory_bytes") == pytest.approx(resident_bytes, rel=0.2)
    assert metric_value(stack, "predictor", "process_start_time_seconds") == pytest.approx(main.create_time(), abs=1)
    cpu_seconds = metric_value(stack, "predictor", "process_cpu_seconds_total")
    assert cpu_seconds is not None
    cpu_times = main.cpu_times()
    assert cpu_seconds > cpu_times.user + cpu_times.system - 5


@pytest.mark.usefixtures("version_1")
def test_services_expose_build_champion_phases_and_zero_lag(stack: Stack) -> None:
    for service in metrics_page.MODULES:
        assert metric_value(stack, service, "driftloop_build_info", service=service, version="0.1.0") == 1
    champion = str(stack.registry.champion())
    wait_until(
        lambda: metric_value(stack, "trainer", "driftloop_trainer_champion_info", model="flights", version=champion),
        "the trainer has polled the alias",
    )
    assert metric_value(stack, "trainer", "driftloop_trainer_dataset_rows", model="flights")
    for phase in ("data", "training", "smoke_test", "registration"):
        assert metric_value(stack, "trainer", "driftloop_trainer_phase_duration_seconds_count", phase=phase), phase
    last_promotion = metric_value(
        stack, "trainer", "driftloop_trainer_last_retrain_timestamp_seconds", state="promoted"
    )
    assert last_promotion is not None
    assert predict(stack, FLIGHT).status_code == 200

    def lag_is_zero() -> bool | None:
        lags = [
            metric_value(stack, service, name, topic=topic)
            for name in ("driftloop_consumer_lag_events", "driftloop_consumer_lag_seconds")
            for service, topic in (("drift_worker", "predictions"), ("trainer", "models"))
        ]
        return True if lags == [0, 0, 0, 0] else None

    wait_until(lag_is_zero, "all offsets are committed, those of transaction markers included")
    max_pending_events = metric_value(stack, "predictor", "driftloop_outbox_max_pending_events")
    assert max_pending_events is not None
    assert max_pending_events > 1_000


@pytest.mark.usefixtures("version_1")
def test_prometheus_scrapes_all_services_and_evaluates_all_rules(stack: Stack) -> None:
    require_tool("prometheus")

    def query_api(path: str) -> Any:
        return httpx.get(f"{stack.components['prometheus'].url}/api/v1/{path}").raise_for_status().json()["data"]

    def up() -> bool | None:
        targets = query_api("targets")["activeTargets"]
        assert {target["labels"]["job"] for target in targets} == set(metrics_page.MODULES)
        return True if all(target["health"] == "up" for target in targets) else None

    def evaluated() -> list[str] | None:
        rules = [rule for group in query_api("rules")["groups"] for rule in group["rules"]]
        return None if any(rule["health"] == "unknown" for rule in rules) else sorted(rule["name"] for rule in rules)

    wait_until(up, "all targets are up")
    configured = yaml.safe_load((ROOT / "compose" / "prometheus" / "alerts.yaml").read_text())
    names = sorted(rule["alert"] for group in configured["groups"] for rule in group["rules"])
    assert wait_until(evaluated, "all rules are evaluated") == names
    rules = [rule for group in query_api("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"]: rule.get("lastError", "") for rule in rules} == dict.fromkeys(names, "")
    assert {rule["health"] for rule in rules} == {"ok"}


def test_compose_prometheus_configuration_has_a_job_per_service() -> None:
    configuration = ROOT / "compose" / "prometheus" / "prometheus.yaml"
    run_tool("promtool", "check", "config", str(configuration))
    jobs = [job["job_name"] for job in yaml.safe_load(configuration.read_text())["scrape_configs"]]
    assert jobs == list(metrics_page.MODULES)


def test_example_alertmanager_configuration_is_valid() -> None:
    run_tool("amtool", "check-config", str(ROOT / "compose" / "alertmanager" / "alertmanager.yaml"))


def test_stack_addresses_report_missing_prometheus(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(stack.components, "prometheus", raising=False)
    assert "Prometheus    not on this machine" in up.addresses(stack)
