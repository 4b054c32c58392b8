"""Every alert has a drill, which causes it and ends it by the steps of its runbook."""

from collections import Counter
from importlib import import_module
from inspect import isfunction
from pathlib import Path

from tests.support.scaled_rules import alert_names, load_rules


def test_every_alert_has_one_drill() -> None:
    modules = sorted(path.stem for path in Path(__file__).parent.glob("test_runbooks_*.py"))
    tests = [test for module in modules for test in vars(import_module(f"tests.faults.{module}")).values()]
    drilled = Counter(alert for test in tests if isfunction(test) for alert in getattr(test, "alerts", ()))
    assert drilled == Counter(alert_names(load_rules()))
