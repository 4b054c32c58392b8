"""Names of metrics, their direction, and how their values are written in messages.

Standard library only: commands that just print results are installed without numpy.
"""

from typing import Literal, Protocol, get_args

MetricName = Literal["roc_auc", "brier", "accuracy", "rmse"]
HeadlineMetric = Literal["roc_auc", "rmse"]
"""The metric by which versions are compared: ROC AUC for a binary outcome, RMSE for a number."""

HEADLINE_METRICS: tuple[HeadlineMetric, ...] = get_args(HeadlineMetric)
METRIC_LABELS: dict[str, str] = {
    "roc_auc": "ROC AUC",
    "rmse": "RMSE",
    "brier": "Brier score",
    "accuracy": "accuracy",
    "calibration_error": "calibration error",
}
LOWER_IS_BETTER = frozenset({"rmse", "brier", "calibration_error"})
_FORMATS = {"roc_auc": ".3f", "accuracy": ".3f", "calibration_error": ".3f", "brier": ".4f"}  # an RMSE has any size


class ValueWithInterval(Protocol):
    """A value and the ends of its confidence interval."""

    @property
    def value(self) -> float:
        """The value itself."""
        ...

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        ...

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        ...


def metric_label(name: str) -> str:
    """Return a metric's name for people; other names with spaces in place of underscores."""
    return METRIC_LABELS.get(name, name.replace("_", " "))


def format_metric(name: str, value: float, *, signed: bool = False) -> str:
    """Return a metric's value, or with ``signed`` a difference of two, with the digits that suit the metric."""
    return format(value, f"{'+' if signed else ''}{_FORMATS.get(name, '.4g')}")


def format_interval(name: str, estimate: ValueWithInterval, *, signed: bool = False) -> str:
    """Return a metric's value with its interval, such as ``0.712 [0.698, 0.726]``.

    No parenthesis may follow directly: Markdown would take both for a link.
    """
    value, low, high = (
        format_metric(name, number, signed=signed) for number in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} [{low}, {high}]"
