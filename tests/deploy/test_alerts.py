"""The alert rules, checked with promtool."""

import re
from pathlib import Path
from typing import Any

import yaml

from driftloop.evaluation.metric import DEFAULT_METRICS
from driftloop.evaluation.metric_names import LOWER_IS_BETTER
from tests.support.external_tools import run_tool

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "compose" / "prometheus"
TESTS = sorted(RULES.glob("*_test.yaml"))


def load_rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((RULES / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]


def test_alert_rules_pass_the_linter() -> None:
    run_tool("promtool", "check", "rules", "--lint=all", "--lint-fatal", str(RULES / "alerts.yaml"))


def test_alert_rules_pass_their_promtool_tests() -> None:
    run_tool("promtool", "test", "rules", *map(str, TESTS))


def test_every_alert_is_tested_and_has_a_runbook() -> None:
    rules = load_rules()
    tested_alerts = [
        [(bool(check["exp_alerts"]), check["alertname"]) for check in case["alert_rule_test"]]
        for tests in TESTS
        for case in yaml.safe_load(tests.read_text())["tests"]
    ]
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE)
    assert rules
    for rule in rules:
        is_silent, is_firing = (False, rule["alert"]), (True, rule["alert"])
        assert any(case[0] == case[-1] == is_silent and is_firing in case for case in tested_alerts), rule["alert"]
        assert rule["annotations"]["runbook"] == f"docs/alerts.md#{rule['alert'].lower()}"
        assert rule["alert"] in headings


def test_quality_alert_has_the_usual_metric_of_each_kind_of_target_in_its_direction() -> None:
    (rule,) = [rule for rule in load_rules() if rule["alert"] == "QualityDegraded"]
    higher_is_better, lower_is_better = (
        set(names.split("|")) for names in re.findall(r'metric=~"(.+?)"', rule["expr"])
    )
    assert set(DEFAULT_METRICS.values()) <= higher_is_better | lower_is_better
    assert lower_is_better <= LOWER_IS_BETTER
    assert not higher_is_better & LOWER_IS_BETTER
