"""Decide what is predicted: classes or a number, and by which metric versions are compared."""

from typing import NamedTuple

import pandas as pd

from driftloop.errors import InvalidInput
from driftloop.evaluation.metric import find_metric
from driftloop.evaluation.targets import Target
from driftloop.events import Label
from driftloop_cli.new.column_facts import ColumnFacts

MAX_TEXT_CLASSES = 50
MAX_INTEGER_CLASSES = 10  # more different integers are a number, such as a count or an amount
MAX_MISSING_FRACTION = 0.5
MIN_CLASS_ROWS = 10  # rows of a class, below which a word about it is due
MIN_OVR_FRACTION = 0.01  # of the rows: with rarer classes, days without one of them are common


class TargetChoice(NamedTuple):
    """What is predicted."""

    classes: tuple[Label, ...] | None
    """All classes in scikit-learn's order; ``None`` for a number."""
    reason: str
    """Why, in words."""


class MetricChoice(NamedTuple):
    """How versions are compared."""

    name: str
    """A scorer of scikit-learn."""
    reason: str
    """Why, in words."""


def choose_target(facts: ColumnFacts, values: pd.Series) -> TargetChoice:
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
            f"the target {name} is missing in {facts.missing:,} of {facts.rows:,} rows: leave out rows whose "
            "outcome is not known, until most are"
        )
    if facts.distinct < 2:
        value = repr(facts.examples[0]) if facts.type == "text" else facts.examples[0]
        raise InvalidInput(f"the target {name} is {value} in each row that has one: there is nothing to predict")
    counts = values.value_counts()
    if facts.type == "text" and facts.distinct > MAX_TEXT_CLASSES:
        raise InvalidInput(
            f"the target {name} has {facts.distinct:,} different texts, such as {', '.join(facts.examples)}: these are "
            f"neither numbers nor classes, of which at most {MAX_TEXT_CLASSES} are supported"
        )
    few = 2 if facts.type == "fraction" else MAX_INTEGER_CLASSES
    if facts.type in ("integer", "fraction") and facts.distinct > few:
        return TargetChoice(None, f"a number from {facts.minimum:g} to {facts.maximum:g}")
    as_label = {"boolean": bool, "integer": int, "fraction": float, "text": str}[facts.type]
    classes: tuple[Label, ...] = tuple(sorted(as_label(value) for value in counts.index))
    if len(classes) == 2:
        share = counts.loc[classes[1]] / counts.sum()
        reason = f"two classes; predictions are the probability of {classes[1]} ({share:.1%} of the rows)"
    else:
        reason = f"{len(classes)} classes"
    if few_rows := [f"{value} ({count})" for value, count in counts.items() if count < MIN_CLASS_ROWS]:
        reason += f"; with few rows: {', '.join(few_rows)}"
    return TargetChoice(classes, reason)


def choose_metric(name: str | None, target: TargetChoice, values: pd.Series) -> MetricChoice:
    """Return the metric: the one asked for, or the usual one for the target.

    Raises:
        InvalidInput: There is no such scorer, or it does not fit the target; the message lists those that do.
    """
    if name is not None:
        find_metric(name, Target(target.classes))
        return MetricChoice(name, "as asked for with --metric")
    if target.classes is None:
        return MetricChoice("neg_root_mean_squared_error", "the usual one for numbers")
    if len(target.classes) == 2:
        return MetricChoice(
            "roc_auc", "it judges the order of predictions, whatever the threshold; the usual one for two classes"
        )
    rarest = values.value_counts(normalize=True).min()
    if rarest < MIN_OVR_FRACTION:
        return MetricChoice(
            "balanced_accuracy",
            f"the rarest class has {rarest:.1%} of the rows, so some days lack it, and no ROC AUC exists",
        )
    return MetricChoice(
        "roc_auc_ovr", "the mean ROC AUC of each class against the others, which judges the order of probabilities"
    )
