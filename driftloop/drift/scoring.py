"""Scoring: standardize a window's statistics by the drift profile and compare them with its threshold."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from driftloop.drift.calibration import CalibratedSpan, DriftProfile, NullDistribution
from driftloop.drift.statistics import StatisticKey
from driftloop.events import Finding

StatisticValues = Mapping[StatisticKey, float]
MIN_RELATIVE_IMPORTANCE = 0.05  # of a column that the model hardly uses: its drift may be an early sign


class SpanScore(NamedTuple):
    """The score of a span: one window, or some consecutive windows taken as one."""

    windows: int
    """The number of windows."""
    score: float
    """The largest standardized statistic."""
    threshold: float
    """A score above it is an alarm."""
    findings: list[Finding]
    """One finding per statistic."""


class WindowScore(NamedTuple):
    """The scores of a window, alone and together with the windows before it."""

    spans: list[SpanScore]
    """The window alone first."""

    @property
    def alarm(self) -> bool:
        """Whether any statistic is above its threshold."""
        return any(finding.drifted for finding in self.findings)

    @property
    def findings(self) -> list[Finding]:
        """The findings of all spans."""
        return [finding for span in self.spans for finding in span.findings]

    @property
    def drifted_findings(self) -> list[Finding]:
        """The findings above their threshold, in descending order of priority."""
        return sorted((finding for finding in self.findings if finding.drifted), key=lambda f: f.priority, reverse=True)


def score_window(profile: DriftProfile, values: Mapping[int, StatisticValues]) -> WindowScore:
    """Score a window by a drift profile.

    One score threshold bounds the rate of false alarms of all columns together. The threshold of a single statistic is
    location + score threshold · scale, so a window is an alarm exactly if one of its statistics is above its threshold.

    Args:
        profile: The calibration of the reference.
        values: Statistics by the number of consecutive windows that they were computed from. Spans without statistics
            are left out of the result.
    """
    spans = [_score_span(profile, span, values[span.windows]) for span in profile.spans if span.windows in values]
    return WindowScore(spans)


def _score_span(profile: DriftProfile, span: CalibratedSpan, values: StatisticValues) -> SpanScore:
    score, findings = -math.inf, []
    for null in span.null_distributions:
        value = values[StatisticKey(null.column, null.statistic)]
        threshold = null.location + span.score_threshold * null.scale
        is_missing = math.isnan(value)  # the column has no value to compare; missing_rate_change reports that
        standardized = -math.inf if is_missing else (value - null.location) / null.scale
        score = max(score, standardized)
        threshold_ratio = 0.0 if is_missing else max(standardized / span.score_threshold, 0.0)
        findings.append(
            Finding(
                column=null.column,
                method=null.statistic,
                windows=span.windows,
                value=None if is_missing else value,
                threshold=threshold,
                drifted=not is_missing and value > threshold,
                priority=threshold_ratio * _relative_importance(profile, null),
            )
        )
    return SpanScore(span.windows, score, span.score_threshold, findings)


def _relative_importance(profile: DriftProfile, null: NullDistribution) -> float:
    """Return a column's importance relative to the largest one; 1 for the prediction and where none is known."""
    largest = max(profile.importance.values(), default=0.0)
    if largest <= 0 or null.column not in profile.importance:
        return 1.0
    return max(profile.importance[null.column] / largest, MIN_RELATIVE_IMPORTANCE)
