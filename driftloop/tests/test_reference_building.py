"""A reference has a version's predictions as its windows will have them."""

from typing import Any

import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import LinearSVC

from driftloop.drift.comparable_columns import FeatureKind
from driftloop.errors import InvalidInput
from driftloop.storage.reference_building import prediction_column

X = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]})
TWO, THREE = ["no", "no", "no", "yes", "yes", "yes"], ["a", "a", "b", "b", "c", "c"]


@pytest.mark.parametrize(
    ("estimator", "labels", "method", "kind"),
    [
        pytest.param(LogisticRegression(), TWO, "predict_proba", "number", id="two classes"),
        pytest.param(LogisticRegression(), THREE, "predict_proba", "category", id="three classes"),
        pytest.param(LinearSVC(), TWO, "predict", "category", id="labels"),
        pytest.param(LinearSVC(), [1, 1, 1, 2, 2, 2], "predict", "number", id="numeric labels"),
        pytest.param(LinearRegression(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.5], "predict", "number", id="numbers"),
    ],
)
def test_predictions_are_compared_by_what_the_estimator_returns(
    estimator: Any, labels: list[Any], method: str, kind: FeatureKind
) -> None:
    returned = getattr(estimator.fit(X, labels), method)(X)
    column, found = prediction_column(estimator, method, returned)
    assert found == kind
    if method == "predict_proba" and kind == "number":
        assert column.tolist() == returned[:, 1].tolist()
    else:  # the labels or numbers themselves
        assert column.tolist() == estimator.predict(X).tolist()


def test_several_outputs_cannot_be_compared() -> None:
    targets = [[0.0, 1.0]] * len(X)
    estimator = LinearRegression().fit(X, targets)
    with pytest.raises(InvalidInput):
        prediction_column(estimator, "predict", estimator.predict(X))
