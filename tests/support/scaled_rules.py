"""The project's alert rules with shorter durations, so that a test need not wait for hours."""

import copy
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

RULES = Path(__file__).resolve().parents[2] / "compose" / "prometheus" / "alerts.yaml"
RANGE = re.compile(r"(?P<before>\[|\boffset )(?P<duration>(?:\d+(?:ms|[smhdwy]))+)")
PART = re.compile(r"(?P<count>\d+)(?P<unit>ms|[smhdwy])")
UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800, "y": 31_536_000}

Rules = dict[str, Any]


def load_rules() -> Rules:
    """Return the project's rules."""
    rules: Rules = yaml.safe_load(RULES.read_text())
    return rules


def alert_names(rules: Rules) -> list[str]:
    """Return the names of the alerts, in their order."""
    return [rule["alert"] for group in rules["groups"] for rule in group["rules"]]


def scale_rules(rules: Rules, scale: Callable[[float], float], windows: Mapping[str, float] | None = None) -> Rules:
    """Return rules of which only durations differ: how long an alert is pending, the windows of ranges, and offsets.

    Args:
        rules: Alert rules; they are not changed.
        scale: Returns the new length of a duration, both in seconds.
        windows: By alert, the length in seconds of its ranges and offsets in place of a scaled one: for an alert that
            counts what cannot happen faster.
    """
    scaled = copy.deepcopy(rules)
    for group in scaled["groups"]:
        for rule in group["rules"]:
            window = (windows or {}).get(rule["alert"])
            rule["expr"] = scale_expression(rule["expr"], scale if window is None else partial(_constant, window))
            if "for" in rule:
                rule["for"] = to_duration(scale(to_seconds(rule["for"])))
    return scaled


def _constant(length: float, _: float) -> float:
    return length


def scale_expression(expression: str, scale: Callable[[float], float]) -> str:
    """Return an expression with other ranges and offsets; numbers that happen to be seconds stay."""
    return RANGE.sub(lambda found: found["before"] + to_duration(scale(to_seconds(found["duration"]))), expression)


def to_seconds(duration: str) -> float:
    """Return a duration of Prometheus, such as ``1h30m``, in seconds."""
    return sum(int(part["count"]) * UNIT_SECONDS[part["unit"]] for part in PART.finditer(duration))


def to_duration(seconds: float) -> str:
    """Return seconds as a duration of Prometheus."""
    return f"{round(seconds * 1_000)}ms"


def fourth_root(seconds: float) -> float:
    """Return the fourth root: a minute becomes 3 s, an hour 8 s, and a week 28 s, in their order."""
    return float(seconds**0.25)
