"""A window's verdict, from its statistics and what is normal for them."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from driftloop.drift.calibration import Profile
from driftloop.drift.statistics import Check
from driftloop.events import Finding


class Judgement(NamedTuple):
    """How unusual a window is, and which columns make it so."""

    score: float
    findings: list[Finding]

    @property
    def alarm(self) -> bool:
        """Whether any statistic is above its threshold."""
        return any(finding.drifted for finding in self.findings)

    @property
    def drifted(self) -> list[Finding]:
        """The findings above their threshold, those that are most above it first."""
        return sorted(
            (finding for finding in self.findings if finding.drifted),
            key=lambda finding: (finding.value or 0) / finding.threshold,
            reverse=True,
        )


def judge(profile: Profile, values: Mapping[Check, float]) -> Judgement:
    """Holds a window's statistics against a profile.

    One limit holds the whole window's rate of false alarms; a column's threshold is its location plus the limit's
    number of scales, so the window alarms just when a column does.
    """
    score, findings = -math.inf, []
    for normal in profile.normals:
        value = values[Check(normal.column, normal.method)]
        threshold = normal.location + profile.limit * normal.scale
        known = not math.isnan(value)
        if known:
            score = max(score, (value - normal.location) / normal.scale)
        findings.append(
            Finding(
                column=normal.column,
                method=normal.method,
                value=value if known else None,
                threshold=threshold,
                drifted=known and value > threshold,
            )
        )
    return Judgement(score, findings)
