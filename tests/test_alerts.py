"""Prometheus' own tool on the alert rules."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
RULES = ROOT / "compose" / "prometheus"


def promtool(*words: str) -> None:
    """Runs it; the word of a failure is its output."""
    found = shutil.which("promtool")
    if found is None and os.environ.get("CI") != "true":
        pytest.skip("promtool is missing: install Debian's package prometheus")
    assert found, "promtool is missing"
    done = subprocess.run([found, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alert_rules_are_valid() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES / "alerts.yaml"))


def test_each_alert_fires_stays_quiet_and_resolves() -> None:
    promtool("test", "rules", str(RULES / "alerts_test.yaml"))


def test_each_alert_is_tested_and_has_a_runbook_and_a_metric_that_exists() -> None:
    rules = [rule for group in yaml.safe_load((RULES / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
    tests = (RULES / "alerts_test.yaml").read_text()
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE)
    code = "\n".join(path.read_text() for path in (ROOT / "services").rglob("metrics.py"))
    assert rules
    for rule in rules:
        assert f"alertname: {rule['alert']}" in tests
        assert rule["annotations"]["runbook"] == f"docs/alerts.md#{rule['alert'].lower()}"
        assert rule["alert"] in headings
        for metric in re.findall(r"driftloop_\w+", rule["expr"]):
            assert f'"{metric}"' in code
