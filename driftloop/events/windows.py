"""Events about windows of predictions: drift, and quality against outcomes."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, FiniteFloat

from driftloop.events.base import Event, EventTime, FrozenModel, Name, as_id_part
from driftloop.events.predictions import Label

DriftReason = Literal[
    "too_few_rows", "no_reference", "unreadable_reference", "small_reference", "missing_columns", "failed"
]
"""Why rows could not be compared with the reference."""
QualityReason = Literal[
    "too_few_rows",
    "invalid_predictions",
    "unknown_labels",
    "metric_undefined",
    "not_evaluated_at_gate",
    "unreadable_gate_evaluation",
    "failed",
]
"""Why quality could not be measured, or not be compared with the gate's evaluation."""
REASON_TEXTS: Mapping[DriftReason | QualityReason, str] = {
    "too_few_rows": "too few rows",
    "no_reference": "the version has no reference",
    "unreadable_reference": "the version's reference cannot be read",
    "small_reference": "the version's reference is too small to calibrate with",
    "missing_columns": "columns of the reference are missing",
    "invalid_predictions": "the predictions are not one number or label per row",
    "unknown_labels": "the version knows none of the outcomes' labels",
    "metric_undefined": "all outcomes are equal",
    "not_evaluated_at_gate": "no gate has evaluated the version",
    "unreadable_gate_evaluation": "the gate's evaluation cannot be read",
    "failed": "judging has failed, and the log has the error",
}
"""The reasons of inconclusive verdicts in words."""


class Window(FrozenModel):
    """Consecutive offsets of a partition: a slice, or the slices from the first to the last row of a version's window.

    Its name is made of its offsets, so that one name always means the same rows of a version.
    """

    topic: Name
    """Topic of the predictions or outcomes."""
    partition: int = Field(ge=0)
    """Partition of the topic."""
    first_offset: int = Field(ge=0)
    """Offset of the first event."""
    last_offset: int = Field(ge=0)
    """Offset of the last event, inclusive."""

    @property
    def name(self) -> str:
        """Identity of the window, usable in a path. Names of one partition sort in the order of their offsets."""
        return f"{self.topic}-{self.partition}-{self.first_offset:012}-{self.last_offset:012}"

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the window with this name; the name may be that of a file, with a path and one suffix.

        Raises:
            ValueError: It is no such name.
        """
        topic, partition, first, last = name.rpartition("/")[2].rsplit("-", 3)
        end, _, suffix = last.partition(".")
        if "." in suffix:  # of a copy, such as one with .bak behind it
            raise ValueError(f"{name} has several suffixes")
        return cls(topic=topic, partition=int(partition), first_offset=int(first), last_offset=int(end))


def verdict_id(window: Window, model: str, version: str, run_id: str | None = None) -> str:
    """Return the id of the verdict on a version's rows of a window: judging the window again gives the same id."""
    names = (model, version, run_id) if run_id else (model, version)
    return f"{window.name}/{as_id_part('/'.join(names))}"


class Finding(FrozenModel):
    """One statistic of one column in a window, or in several consecutive windows."""

    column: str
    """Name of the feature, or ``_prediction``."""
    method: str
    """Name of the statistic, such as ``wasserstein``."""
    windows: int = 1
    """Number of the version's consecutive windows that the statistic was computed on; the event's is the last one."""
    value: float | None
    """Value of the statistic; null if the column has no value in the window."""
    threshold: FiniteFloat
    """Value above which the column has drifted."""
    drifted: bool
    """Whether the value is above the threshold; of several windows, only if the latest alone is not as usual, too."""
    priority: FiniteFloat = 0.0
    """Ratio of the standardized statistic to the score threshold, times the column's importance to the model."""


class CumulatedChange(FrozenModel):
    """A small change that has lasted: the mean of something in a column, summed over windows."""

    column: str
    """Name of the feature, or ``_prediction``."""
    statistic: Literal["mean_rank", "level_share", "missing_rate"]
    """What has changed: the mean rank of its values among the reference's, a level's share, or the missing rate."""
    level: Label | None = None
    """The level, of ``level_share``."""
    direction: Literal["up", "down"]
    """Whether it is above or below what it was in the reference."""
    windows: int
    """Number of the version's windows that it has been summed over: the change is about as old."""
    score: FiniteFloat
    """Ratio of the sum to its limit."""


class DataQualityIssue(FrozenModel):
    """Something odd about a column's values in a window. It never changes the verdict."""

    column: str
    """Name of the feature."""
    kind: Literal["out_of_range", "unseen_levels", "constant", "all_missing", "type_mismatch"]
    """What is odd."""
    fraction: FiniteFloat
    """Fraction of the window's rows that have the issue."""


class WindowEvent(Event):
    """Fields of every event about a version's rows in a window, or in several consecutive windows."""

    topic = "drift"

    window: Window
    """The window; the last one if there are several. Rows of other versions can lie between its rows."""
    model: Name
    """Name of the registered model."""
    version: Name
    """Version of the model whose rows were judged."""
    run_id: Name | None = None
    """Id of the run that logged the version, which tells it from another of the same number; null if the predictions do
    not have it."""
    rows: int
    """Number of rows of this version."""
    first_prediction_at: EventTime
    """Time of the earliest prediction among the rows."""
    last_prediction_at: EventTime
    """Time of the latest prediction among the rows."""

    @property
    def message_key(self) -> str:
        """Name of the model: its verdicts stay in order."""
        return self.model


class DriftVerdict(WindowEvent):
    """A version's rows of a window of predictions were compared with the version's reference."""

    type = "driftloop.drift_verdict.v1"

    verdict: Literal["no_drift", "drift", "inconclusive"]
    """``drift`` raises an alarm; ``inconclusive`` means that the rows could not be judged."""
    reason: DriftReason | None = None
    """Why the verdict is inconclusive; null if it is not."""
    explanation: str
    """The verdict in words; of an inconclusive one the reason, with numbers and names."""
    score: float | None = None
    """Largest standardized statistic of the window; null if the verdict is inconclusive."""
    score_threshold: float | None = None
    """Score above which the window drifts."""
    multiwindow_score: float | None = None
    """Score of this window and the version's windows before it, taken as one; null if too few came before."""
    multiwindow_score_threshold: float | None = None
    """Score above which the windows taken as one drift."""
    cumulated_score: float | None = None
    """Largest ratio of a sum over the version's windows to its limit, above 1 if small changes have added up; null if
    the version has no such calibration."""
    cumulated_changes: list[CumulatedChange] = []
    """The sums above their limit, the largest ratio first."""
    findings: list[Finding] = []
    """Every statistic of every column."""
    data_quality_issues: list[DataQualityIssue] = []
    """Odd values, which do not change the verdict."""
    archive: list[str]
    """URLs of the Parquet files with the window's rows, one for each slice; they have rows of other versions, too."""
    replayed: bool = False
    """Whether the window had a verdict before and was judged again later, perhaps with another reference."""

    @property
    def drifted_columns(self) -> list[str]:
        """Names of the columns with a statistic above its threshold, or a sum above its limit, sorted."""
        drifted = {finding.column for finding in self.findings if finding.drifted}
        return sorted(drifted | {change.column for change in self.cumulated_changes})


class MetricEstimate(FrozenModel):
    """A metric with its 95 % confidence interval."""

    value: FiniteFloat
    """The metric on the rows."""
    low: FiniteFloat
    """Lower bound of the interval."""
    high: FiniteFloat
    """Upper bound of the interval."""


class Evaluation(FrozenModel):
    """How good predictions were on rows whose outcomes are known."""

    rows: int
    """Number of rows."""
    days: int
    """Number of days that the rows come from."""
    resampling_unit: Literal["days", "rows"]
    """What the bootstrap resamples. With too few days it resamples rows, and the intervals are too narrow."""
    metrics: dict[str, MetricEstimate]
    """``roc_auc``, ``brier``, ``accuracy`` and ``calibration_error`` for two classes; ``log_loss`` in place of
    ``roc_auc`` for more; ``rmse``, ``mae``, ``r2`` and ``bias`` for numbers; and the headline metric."""
    headline: str | None = None
    """Name of the metric by which versions of the model are compared; null if the use case is not known."""
    classes: list[Label] | None = None
    """The classes that are predicted; null if the target is a number."""


class QualityVerdict(WindowEvent):
    """A window of outcomes was evaluated: how good a version's predictions were on rows whose outcomes are known."""

    type = "driftloop.quality_verdict.v1"

    windows: int
    """Number of consecutive windows of outcomes that were evaluated together to have enough rows and days."""
    unmatched: int
    """Outcomes in this window, of any version, whose prediction was not in the archive when the window closed."""
    verdict: Literal["consistent", "degraded", "improved", "inconclusive"]
    """Quality in service compared with the quality that the gate measured before the version was promoted."""
    reason: QualityReason | None = None
    """Why the verdict is inconclusive; null if it is not."""
    explanation: str
    """The verdict in words."""
    unknown_labels: dict[str, int] = {}
    """Number of rows by outcome, as text, for outcomes that are not one of the model's classes; they are left out. Of
    more than twenty such outcomes the rarest are counted together, as ``(other)``."""
    in_service: Evaluation | None = None
    """Quality on the evaluated rows; null if it could not be measured."""
    at_gate: Evaluation | None = None
    """Quality on the gate's holdout; null for a first version, which has no holdout."""


class EstimateTrackRecord(FrozenModel):
    """Errors of a version's estimates of the ROC AUC on windows whose outcomes have become known since."""

    windows: int = 0
    """Number of such windows."""
    mean_error: float | None = None
    """Mean of estimate minus measured ROC AUC; above 0 the estimates were too high. Null without such windows."""
    mean_absolute_error: float | None = None
    """Mean of the absolute errors; null without such windows."""


class QualityEstimate(WindowEvent):
    """The quality of a window's predictions was estimated from their probabilities; outcomes are not known yet."""

    type = "driftloop.quality_estimate.v1"

    metrics: dict[str, FiniteFloat]
    """``roc_auc``, ``brier`` and ``accuracy``, if the probabilities are right; no ``roc_auc`` for more than two
    classes. A model that predicts numbers has no estimate: nothing is known of its errors before the outcomes."""
    track_record: EstimateTrackRecord
    """How far off earlier estimates of this version were."""
    trusted: bool
    """Whether the track record is long and good enough."""
    explanation: str
    """Why the estimate is trusted or not."""
