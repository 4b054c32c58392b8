"""Names of metrics, their direction, and how their values are written in messages.

Standard library only: commands that just print results are installed without numpy.
"""

from collections.abc import Collection
from typing import Protocol

HEADLINE_METRICS = ("roc_auc", "rmse", "log_loss")
"""Metrics by which versions are compared where an evaluation does not name one."""
METRIC_LABELS: dict[str, str] = {
    "roc_auc": "ROC AUC",
    "rmse": "RMSE",
    "brier": "Brier score",
    "accuracy": "accuracy",
    "calibration_error": "calibration error",
    "log_loss": "log loss",
    "mae": "MAE",
    "r2": "R²",
    "bias": "bias (mean of prediction − outcome)",
}
LOWER_IS_BETTER = frozenset(
    {
        "brier",
        "calibration_error",
        "cost",
        "log_loss",
        "mae",
        "max_error",
        "mean_absolute_percentage_error",
        "mean_gamma_deviance",
        "mean_poisson_deviance",
        "mean_squared_error",
        "mean_squared_log_error",
        "median_absolute_error",
        "negative_likelihood_ratio",
        "rmse",
        "root_mean_squared_log_error",
    }
)
_SHORT_NAMES = {"root_mean_squared_error": "rmse", "mean_absolute_error": "mae", "brier_score": "brier"}
_FORMATS = {  # a metric that is not listed has any size
    **dict.fromkeys(("roc_auc", "accuracy", "calibration_error", "r2", "roc_auc_ovr", "balanced_accuracy"), ".3f"),
    "brier": ".4f",
}


def choose_headline(headline: str | None, metrics: Collection[str]) -> str | None:
    """Return the metric that an evaluation is summed up by: the headline, or the first usual one that it has."""
    return next((name for name in (headline, *HEADLINE_METRICS) if name in metrics), None)


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


def canonical_metric_name(name: str) -> str:
    """Return the name under which a scikit-learn scorer's metric is reported.

    scikit-learn negates metrics where lower is better; here they keep their sign, so ``neg_log_loss`` is ``log_loss``.
    """
    name = name.removeprefix("neg_")
    return _SHORT_NAMES.get(name, name)


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
