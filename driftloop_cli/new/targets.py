"""Decide what is predicted: classes or a number, and by which metric versions are compared."""

import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd

from driftloop.errors import InvalidInput
from driftloop.events import Label
from driftloop_cli.new.column_facts import ColumnFacts

MAX_TEXT_CLASSES = 50
MAX_INTEGER_CLASSES = 10  # more different integers are a number, such as a count or an amount
MAX_MISSING_FRACTION = 0.5
MIN_CLASS_ROWS = 10  # rows of a class, below which a word about it is due
MIN_OVR_FRACTION = 0.01  # of the rows: with rarer classes, days without one of them are common
METRIC_ROWS = 200  # of made-up predictions, on which a metric is tried out


class Target(NamedTuple):
    """What is predicted."""

    classes: tuple[Label, ...] | None
    """All classes in scikit-learn's order; ``None`` for a number."""
    reason: str
    """Why, in words."""


class Metric(NamedTuple):
    """How versions are compared."""

    name: str
    """A scorer of scikit-learn."""
    reason: str
    """Why, in words."""


def choose_target(facts: ColumnFacts, values: pd.Series) -> Target:
    """Return what is predicted.

    Args:
        facts: The target's counts.
        values: The target.

    Raises:
        InvalidInput: It has one value, hardly any, or values that are neither classes nor numbers.
    """
    name = facts.name
    if facts.type in ("datetime", "other"):
        raise InvalidInput(f"the target {name} has {facts.stored_type or 'datetimes'}: it must be classes or numbers")
    if facts.missing > MAX_MISSING_FRACTION * facts.rows:
        raise InvalidInput(
            f"the target {name} is missing in {facts.missing:,} of {facts.rows:,} rows: leave out rows whose outcome is "
            "not known, until most are"
        )
    if facts.distinct < 2:
        raise InvalidInput(
            f"the target {name} is {facts.examples[0]} in each row that has one: there is nothing to predict"
        )
    counts = values.value_counts()
    if facts.type == "text" and facts.distinct > MAX_TEXT_CLASSES:
        raise InvalidInput(
            f"the target {name} has {facts.distinct:,} different texts, such as {', '.join(facts.examples)}: these are "
            f"neither numbers nor classes, of which at most {MAX_TEXT_CLASSES} are supported"
        )
    few = 2 if facts.type == "fraction" else MAX_INTEGER_CLASSES
    if facts.type in ("integer", "fraction") and facts.distinct > few:
        return Target(None, f"a number from {facts.minimum:g} to {facts.maximum:g}")
    as_label = {"boolean": bool, "integer": int, "fraction": float, "text": str}[facts.type]
    classes: tuple[Label, ...] = tuple(sorted(as_label(value) for value in counts.index))
    if len(classes) == 2:
        share = counts.loc[classes[1]] / counts.sum()
        reason = f"two classes; predictions are the probability of {classes[1]} ({share:.1%} of the rows)"
    else:
        reason = f"{len(classes)} classes"
    if few_rows := [f"{value} ({count})" for value, count in counts.items() if count < MIN_CLASS_ROWS]:
        reason += f"; with few rows: {', '.join(few_rows)}"
    return Target(classes, reason)


def choose_metric(name: str | None, target: Target, values: pd.Series) -> Metric:
    """Return the metric: the one asked for, or the usual one for the target.

    Raises:
        InvalidInput: There is no such scorer, or it does not fit the target; the message lists those that do.
    """
    if name is not None:
        require_metric(name, target.classes)
        return Metric(name, "as asked for with --metric")
    if target.classes is None:
        return Metric("neg_root_mean_squared_error", "the usual one for numbers")
    if len(target.classes) == 2:
        return Metric("roc_auc", "the usual one for two classes: it judges the order of predictions, at any threshold")
    rarest = values.value_counts(normalize=True).min()
    if rarest < MIN_OVR_FRACTION:
        return Metric("balanced_accuracy", f"a class has {rarest:.1%} of the rows: some days lack it, and an AUC with it")
    return Metric("roc_auc_ovr", "ROC AUC of each class against the others: it judges the order of probabilities")


def require_metric(name: str, classes: tuple[Label, ...] | None) -> None:
    """Raise :class:`InvalidInput` unless scikit-learn has a scorer of that name which fits the target."""
    fitting = fitting_metrics(classes)
    if name not in fitting:
        kind = "a number" if classes is None else f"{len(classes)} classes"
        raise InvalidInput(f"{name!r} is no metric for {kind}: use one of {', '.join(fitting)}")


def fitting_metrics(classes: tuple[Label, ...] | None) -> list[str]:
    """Return the names of scikit-learn's scorers that work for a target, found by trying each on made-up rows."""
    from sklearn.metrics import get_scorer_names  # noqa: PLC0415  # takes seconds to import

    return [name for name in get_scorer_names() if _fits(name, classes)]


def _fits(name: str, classes: tuple[Label, ...] | None) -> bool:
    from sklearn.dummy import DummyClassifier, DummyRegressor  # noqa: PLC0415
    from sklearn.metrics import get_scorer  # noqa: PLC0415

    scorer = get_scorer(name)
    area = scorer._score_func.__module__
    if "cluster" in area or (classes is None) != area.endswith("_regression"):
        return False
    random = np.random.default_rng(0)
    rows = np.zeros((METRIC_ROWS, 1))
    targets = random.gamma(2, 1, METRIC_ROWS) if classes is None else np.arange(METRIC_ROWS) % len(classes)
    model = DummyRegressor() if classes is None else DummyClassifier(strategy="stratified", random_state=0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bool(np.isfinite(scorer(model.fit(rows, targets), rows, targets)))
    except ValueError:
        return False
