"""A window's verdict, from its statistics and what is normal for them."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from driftloop.drift.calibration import Normal, Profile, Span
from driftloop.drift.statistics import Check
from driftloop.events import Finding

Values = Mapping[Check, float]
LEAST_WEIGHT = 0.05  # of a column that the model hardly uses: it may be the first sign of what comes


class Judged(NamedTuple):
    """How unusual some consecutive windows are, taken as one."""

    windows: int
    score: float
    """The largest standardised statistic."""
    limit: float
    """The score above which they alarm."""
    findings: list[Finding]


class Judgement(NamedTuple):
    """How unusual a window is, by itself and together with those before it, and which columns make it so."""

    spans: list[Judged]

    @property
    def alarm(self) -> bool:
        """Whether any statistic is above its threshold."""
        return any(finding.drifted for finding in self.findings)

    @property
    def findings(self) -> list[Finding]:
        """Of all spans."""
        return [finding for span in self.spans for finding in span.findings]

    @property
    def drifted(self) -> list[Finding]:
        """The findings above their threshold, those that matter most first."""
        return sorted((finding for finding in self.findings if finding.drifted), key=lambda f: f.weight, reverse=True)


def judge(profile: Profile, values: Mapping[int, Values]) -> Judgement:
    """Holds statistics against a profile; ``values`` are by the number of windows that they are of.

    One limit holds the rate of false alarms of all columns together; a column's threshold is its location plus the
    limit's number of scales, so the window alarms just when a column does.
    """
    spans = [_judged(profile, span, values[span.windows]) for span in profile.spans if span.windows in values]
    return Judgement(spans)


def _judged(profile: Profile, span: Span, values: Values) -> Judged:
    score, findings = -math.inf, []
    for normal in span.normals:
        value = values[Check(normal.column, normal.method)]
        threshold = normal.location + span.limit * normal.scale
        known = not math.isnan(value)
        unusual = (value - normal.location) / normal.scale if known else -math.inf
        score = max(score, unusual)
        findings.append(
            Finding(
                column=normal.column,
                method=normal.method,
                windows=span.windows,
                value=value if known else None,
                threshold=threshold,
                drifted=known and value > threshold,
                weight=max(unusual / span.limit, 0.0) * _importance(profile, normal) if known else 0.0,
            )
        )
    return Judged(span.windows, score, span.limit, findings)


def _importance(profile: Profile, normal: Normal) -> float:
    """How much the model leans on a column: 1 for the one that it leans on most, and for its own prediction."""
    most = max(profile.importance.values(), default=0.0)
    if most <= 0 or normal.column not in profile.importance:
        return 1.0
    return max(profile.importance[normal.column] / most, LEAST_WEIGHT)
