"""scikit-learn's scorers, applied to predictions that are already made."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import get_scorer, get_scorer_names

from driftloop.errors import InvalidInput
from driftloop.evaluation.metrics import FloatArray, class_probabilities, predicted_classes
from driftloop.evaluation.targets import Target
from driftloop.near_names import near_names

TRIAL_ROWS_PER_CLASS = 5
# scikit-learn's scorers do not say what they are for, and those of numbers and clusters accept classes, too.
CLASSIFICATION_LOSSES = frozenset({"neg_brier_score", "neg_log_loss", "neg_negative_likelihood_ratio"})
REGRESSION_SCORES = frozenset({"explained_variance", "r2", "d2_absolute_error_score"})
CLUSTERING_SCORES = frozenset(
    {
        "adjusted_mutual_info_score",
        "adjusted_rand_score",
        "completeness_score",
        "fowlkes_mallows_score",
        "homogeneity_score",
        "mutual_info_score",
        "normalized_mutual_info_score",
        "rand_score",
        "v_measure_score",
    }
)


class _FixedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A classifier whose rows are its predictions."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.classes_ = np.arange(classes)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict_proba(self, predictions: FloatArray) -> FloatArray:
        return class_probabilities(predictions)

    def predict(self, predictions: FloatArray) -> Any:
        return predicted_classes(predictions).astype(np.int64)


class _FixedRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A regressor whose rows are its predictions."""

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, predictions: FloatArray) -> FloatArray:
        return predictions


def scorer_function(name: str, target: Target) -> Callable[[FloatArray, FloatArray], float]:
    """Return a function of outcomes and predictions that computes the metric of a scorer.

    A scorer ``neg_…`` is a metric where lower is better, with its sign reversed: the function returns the metric.

    Args:
        name: A name of scikit-learn's, such as ``neg_log_loss`` or ``f1_macro``; ``neg_`` may be left out.
        target: What is predicted.

    Raises:
        InvalidInput: There is no such scorer, or it does not apply to the target.
    """
    names = get_scorer_names()
    scorer_name = next((candidate for candidate in (name, f"neg_{name}") if candidate in names), None)
    if scorer_name is None:
        applicable = applicable_scorers(target)
        by_metric = {scorer.removeprefix("neg_"): scorer for scorer in applicable}
        near = [by_metric[metric] for metric in near_names(name.removeprefix("neg_"), by_metric)]
        hint = f"did you mean {', '.join(near)}?" if near else f"use one of {', '.join(applicable)}"
        raise InvalidInput(f"there is no metric {name}: {hint}")
    if (reason := _reason_not_applicable(scorer_name, target)) is not None:
        raise InvalidInput(
            f"the metric {name} does not apply to this target ({reason}); use one of "
            f"{', '.join(applicable_scorers(target))}"
        )
    return _score_predictions(scorer_name, target)


def applicable_scorers(target: Target) -> list[str]:
    """Return the names of the scorers that apply to a target."""
    return [name for name in get_scorer_names() if _reason_not_applicable(name, target) is None]


def _score_predictions(scorer_name: str, target: Target) -> Callable[[FloatArray, FloatArray], float]:
    scorer = get_scorer(scorer_name)
    sign = -1 if scorer_name.startswith("neg_") else 1
    estimator = _FixedRegressor() if target.classes is None else _FixedClassifier(len(target.classes))

    def score(outcomes: FloatArray, predictions: FloatArray) -> float:
        labels = outcomes if target.classes is None else outcomes.astype(np.int64)
        return sign * float(scorer(estimator, predictions, labels))

    return score


def _reason_not_applicable(name: str, target: Target) -> str | None:
    """Try a scorer on a few made rows; return why it fails, or ``None``."""
    is_for_numbers = name in REGRESSION_SCORES or (name.startswith("neg_") and name not in CLASSIFICATION_LOSSES)
    if name in CLUSTERING_SCORES:
        return "it compares clusters"
    if is_for_numbers != (target.classes is None):
        return f"it is for {'numbers' if is_for_numbers else 'classes'}"
    function = _score_predictions(name, target)
    random = np.random.default_rng(0)
    if target.classes is None:
        outcomes, predictions = random.random(10) + 1, random.random(10) + 1
    else:
        count = len(target.classes)
        outcomes = np.tile(np.arange(count, dtype=np.float64), TRIAL_ROWS_PER_CLASS)
        probabilities = random.dirichlet(np.ones(count), len(outcomes))
        predictions = probabilities[:, 1] if count == 2 else probabilities
    try:
        with warnings.catch_warnings(action="ignore"):  # such as of top-k accuracy with as many classes
            value = function(outcomes, predictions)
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        return str(error).splitlines()[0]
    return None if np.isfinite(value) else "its value is not a finite number"
