"""Probation: whether a promoted version stays in service, by the outcomes of its first days. Pure."""

from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel

from driftloop.evaluation.bootstrap import as_gain, paired_difference
from driftloop.evaluation.metric_names import format_interval, format_metric, metric_label
from driftloop.evaluation.metrics import FloatArray
from driftloop.usecase import UseCase
from trainer.probation.settings import ProbationSettings


class ProbationDecision(BaseModel, frozen=True):
    """What to do with the version in service, and the explanation."""

    status: Literal["pending", "passed", "failed"]
    """``pending``: more outcomes are needed. ``passed``: it stays. ``failed``: it has to be rolled back."""
    explanation: str
    version: str | None = None
    run_id: str | None = None
    """The run that logged the version."""
    previous: str | None = None


def decide(
    use_case: UseCase, served: pd.DataFrame, previous_scores: FloatArray, settings: ProbationSettings
) -> ProbationDecision:
    """Compare a version with the one before it on the rows of its first days.

    Args:
        use_case: Metric, blocks and days.
        served: Rows that the version predicted and whose outcomes are known: time, outcome and prediction.
        previous_scores: What the version before predicts for these rows.
        settings: Number of days and confidence level.
    """
    outcomes = use_case.outcomes(served)
    served_scores = use_case.archived_predictions(served)
    days = len(np.unique(use_case.day_ordinals(served[use_case.timestamp])))
    metric = use_case.headline_metric
    difference = paired_difference(
        metric,
        outcomes,
        served_scores,
        previous_scores,
        use_case.block_ids(served[use_case.timestamp]),
        confidence=settings.confidence_level,
    )
    served_metric = format_metric(metric.name, metric.compute(outcomes, served_scores))
    previous_metric = format_metric(metric.name, metric.compute(outcomes, previous_scores))
    explanation = (
        f"{metric_label(metric.name)} {served_metric} on {len(served):,} rows of {days} days since its promotion, and "
        f"the version before would have had {previous_metric}: a difference of "
        f"{format_interval(metric.name, difference, signed=True)} at {settings.confidence_level:.0%}, resampled by days"
    )
    if as_gain(difference, lower_is_better=metric.lower_is_better).low > 0:
        return ProbationDecision(status="failed", explanation=f"{explanation}, which is clearly better")
    if days < settings.days:
        missing = settings.days - days
        return ProbationDecision(
            status="pending", explanation=f"{explanation}; probation goes on for {missing} more days of outcomes"
        )
    return ProbationDecision(status="passed", explanation=explanation)


def first_days(use_case: UseCase, served: pd.DataFrame, days: int) -> pd.DataFrame:
    """Return the rows of the first ``days`` days for which a version has outcomes."""
    ordinals = use_case.day_ordinals(served[use_case.timestamp])
    return served[ordinals < ordinals.min() + days] if len(served) else served
