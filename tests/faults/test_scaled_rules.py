"""The alert rules that drills run with: shorter, and otherwise the project's own."""

import pytest

from tests.support.scaled_rules import (
    alert_names,
    fourth_root,
    load_rules,
    scale_expression,
    scale_rules,
    to_duration,
    to_seconds,
)


@pytest.mark.parametrize(
    ("expression", "halved"),
    [
        pytest.param("increase(a[10m]) > 5", "increase(a[300000ms]) > 5", id="range"),
        pytest.param("a > 0 unless a offset 1h", "a > 0 unless a offset 1800000ms", id="offset"),
        pytest.param("predict_linear(a[2m], 3600) > b", "predict_linear(a[60000ms], 3600) > b", id="number"),
        pytest.param('a{name="10m"} == 1', 'a{name="10m"} == 1', id="label"),
        pytest.param("rate(a[1h30m])", "rate(a[2700000ms])", id="two-units"),
    ],
)
def test_only_durations_of_an_expression_are_scaled(expression: str, halved: str) -> None:
    assert scale_expression(expression, lambda seconds: seconds / 2) == halved


def test_durations_are_read_and_written() -> None:
    assert to_seconds("1d") == 86_400
    assert to_seconds(to_duration(2.5)) == 2.5


def test_rules_keep_all_but_their_durations() -> None:
    rules = load_rules()
    scaled = scale_rules(rules, lambda seconds: seconds)
    for group, same in zip(rules["groups"], scaled["groups"], strict=True):
        for rule, other in zip(group["rules"], same["rules"], strict=True):
            assert to_seconds(rule.get("for", "0s")) == to_seconds(other.get("for", "0s"))
            assert {name: rule[name] for name in ("alert", "labels", "annotations")} == {
                name: other[name] for name in ("alert", "labels", "annotations")
            }
    assert alert_names(scaled) == alert_names(rules)
    assert "for" not in next(rule for rule in scaled["groups"][0]["rules"] if rule["alert"] == "EventsDropped")


def test_windows_of_an_alert_can_be_given() -> None:
    rules = {"groups": [{"rules": [{"alert": "A", "expr": "increase(a[1d]) > 5", "for": "16s"}]}]}
    (rule,) = scale_rules(rules, fourth_root, {"A": 90})["groups"][0]["rules"]
    assert rule == {"alert": "A", "expr": "increase(a[90000ms]) > 5", "for": "2000ms"}
