"""Labels beside probabilities: the class that a classifier decides for.

Most classifiers decide for the most probable class, which costs nothing to find. The others are known by their types,
and by their answers for the rows of the trial; their ``predict`` is called besides.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy.typing as npt
import pandas as pd

from driftloop.events import Label
from driftloop.registry.model_output import KINDS_BY_METHOD, InvalidOutput, ModelOutput

Labelling = Literal["most_probable", "predict"]
"""How labels are found: from the probabilities, or by calling ``predict`` as well."""

OTHER_RULES = frozenset(
    {
        "DummyClassifier",  # may draw labels at random
        "FixedThresholdClassifier",
        "NuSVC",
        "OneVsRestClassifier",  # compares the scores of its parts, which may not be those of their probabilities
        "RadiusNeighborsClassifier",  # has a label for outliers
        "SVC",  # its probabilities come from a calibration, and its labels do not
        "TunedThresholdClassifierCV",
    }
)
"""Classifiers whose decision may not be for the most probable class."""
KNOWN_PACKAGES = frozenset({"sklearn", "lightgbm", "xgboost"})
"""Packages whose other classifiers decide for it. CatBoost is none of them: a model of it may have a threshold."""


def choose_labelling(
    estimator: Any, method: str, classes: Sequence[Label] | None, rows: pd.DataFrame | npt.NDArray[Any]
) -> Labelling | None:
    """Choose how labels are found for a classifier whose ``method`` returns the probabilities of ``classes``.

    Args:
        estimator: The fitted estimator.
        method: The name of its method that predicts.
        classes: The class of each probability; ``None`` if they are unknown.
        rows: Rows to try.
    """
    if method not in KINDS_BY_METHOD or classes is None or not hasattr(estimator, "predict"):
        return None
    try:
        decided = predict_labels(estimator, rows)
    except Exception:  # noqa: BLE001  # an estimator is user code and may raise anything
        return None
    if any(_has_other_rule(part) for part in _parts(estimator)):
        return "predict"
    probable = most_probable(ModelOutput.from_model(getattr(estimator, method)(rows), method, len(rows)), classes)
    return "most_probable" if decided == probable else "predict"


def most_probable(output: ModelOutput, classes: Sequence[Label]) -> list[Label]:
    """Return the most probable class of each row; of several the first, as scikit-learn does."""
    return [classes[place] for place in output.arrays[0].argmax(axis=1).tolist()]


def predict_labels(estimator: Any, rows: pd.DataFrame | npt.NDArray[Any]) -> list[Label]:
    """Return what an estimator's ``predict`` says.

    Raises:
        InvalidOutput: It is not one label for each row.
    """
    array = ModelOutput.from_model(estimator.predict(rows), "predict", len(rows)).arrays[0]
    if array.size != len(rows):
        raise InvalidOutput(f"predict returned {array.size} labels for {len(rows)} rows")
    labels: list[Label] = array.ravel().tolist()
    return labels


def _has_other_rule(part: Any) -> bool:
    package = type(part).__module__.partition(".")[0]
    return type(part).__name__ in OTHER_RULES or package not in KNOWN_PACKAGES


def _parts(estimator: Any) -> Iterator[Any]:
    """Yield an estimator and those that it consists of: steps of a pipeline, parts of an ensemble, a search's best."""
    yield estimator
    for part in estimator.get_params(deep=True).values() if hasattr(estimator, "get_params") else ():
        if hasattr(part, "predict") and not isinstance(part, type):
            yield part
    if (best := getattr(estimator, "best_estimator_", None)) is not None:
        yield from _parts(best)
