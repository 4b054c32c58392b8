"""Beside probabilities stands the class that the model decides for, which need not be the most probable one."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from driftloop.events import Prediction
from driftloop.registry.labelling import choose_labelling
from predictor.outbox.outbox import Outbox
from tests.support.predictor_app import StaticModelManager, outbox_events, serving_model

RANDOM = np.random.default_rng(0)
X = pd.DataFrame({"x": RANDOM.normal(size=200), "n": RANDOM.normal(size=200)})
TWO = np.where(X["x"] + RANDOM.normal(size=200) > 0.5, "yes", "no")
THREE = np.digitize(X["x"] + RANDOM.normal(size=200), [-0.5, 0.5]) + 1


class OtherRule(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A classifier of somebody's own that decides for the last class unless another is certain."""

    def fit(self, rows: Any, target: Any) -> "OtherRule":
        self.inner_ = LogisticRegression().fit(rows, target)
        self.classes_ = self.inner_.classes_
        return self

    def predict_proba(self, rows: Any) -> Any:
        return self.inner_.predict_proba(rows)

    def predict(self, rows: Any) -> Any:
        return self.classes_[np.where(self.predict_proba(rows)[:, 0] > 0.95, 0, -1)]


def fixed(estimator: Any = None) -> FixedThresholdClassifier:
    return FixedThresholdClassifier(estimator or LogisticRegression(), threshold=0.1)


MOST_PROBABLE = [
    *(LogisticRegression(), DecisionTreeClassifier(), RandomForestClassifier(5), HistGradientBoostingClassifier()),
    *(
        GradientBoostingClassifier(),
        KNeighborsClassifier(2),
        GaussianNB(),
        make_pipeline(StandardScaler(), GaussianNB()),
    ),
    CalibratedClassifierCV(LogisticRegression(), cv=2),
    GridSearchCV(LogisticRegression(), {"C": [1, 2]}, cv=2),
    StackingClassifier([("a", GaussianNB())], cv=2),
    VotingClassifier([("a", GaussianNB()), ("b", LogisticRegression())], voting="soft"),
]
OTHER = [
    *(SVC(probability=True, random_state=0), fixed(), TunedThresholdClassifierCV(LogisticRegression()), OtherRule()),
    *(DummyClassifier(strategy="uniform"), make_pipeline(StandardScaler(), fixed())),
    GridSearchCV(fixed(), {"estimator__C": [1, 2]}, cv=2),
    GridSearchCV(make_pipeline(StandardScaler(), GaussianNB()), {"gaussiannb": [fixed()]}, cv=2),
    StackingClassifier([("a", GaussianNB())], fixed(), cv=2),
    make_pipeline(StandardScaler(), OtherRule()),
]


@pytest.mark.parametrize("estimator", MOST_PROBABLE, ids=lambda estimator: type(estimator).__name__)
@pytest.mark.parametrize("target", [TWO, THREE], ids=["two", "three"])
def test_label_of_most_classifiers_is_the_most_probable_class(estimator: Any, target: Any) -> None:
    model = serving_model(estimator.fit(X, target), X)
    assert model.labelling == "most_probable"
    columns = model.schema.frame_to_columns(X)
    assert model.predict(columns).labels == estimator.predict(X).tolist()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("estimator", OTHER, ids=range(len(OTHER)))
def test_label_of_classifiers_with_another_rule_is_what_they_predict(estimator: Any) -> None:
    model = serving_model(estimator.fit(X, TWO), X)
    assert model.labelling == "predict"
    columns = model.schema.frame_to_columns(X)
    labels = model.predict(columns).labels
    assert labels is not None
    if "Dummy" not in type(estimator).__name__:
        assert labels == estimator.predict(X).tolist()


def test_classifier_that_disagrees_on_the_trial_has_another_rule() -> None:
    odd = LogisticRegression().fit(X, TWO)
    odd.predict = lambda rows: np.full(len(rows), "yes")  # of a type that is known
    assert choose_labelling(odd, "predict_proba", ["no", "yes"], X) == "predict"


@pytest.mark.parametrize(
    ("estimator", "target", "method"),
    [
        (LogisticRegression(), TWO, "predict"),
        (LinearRegression(), THREE, "predict"),
        (DecisionTreeClassifier(), np.column_stack([THREE, THREE]), "predict_proba"),
    ],
    ids=["labels", "numbers", "several outputs"],
)
def test_other_predictions_have_no_labels_beside_them(estimator: Any, target: Any, method: str) -> None:
    model = serving_model(estimator.fit(X, target), X, method)
    assert model.labelling is None
    assert model.predict(model.schema.frame_to_columns(X)).labels is None


@pytest.mark.parametrize("method", ["predict_proba", "predict_log_proba"])
def test_response_and_event_have_classes_and_labels(
    client: TestClient, manager: StaticModelManager, outbox: Outbox, method: str
) -> None:
    estimator = LogisticRegression().fit(X, THREE)
    manager.serving = serving_model(estimator, X, method, max_rows=3)
    rows = X.head(3)
    answer = client.post("/predict", json={"instances": rows.to_dict("records")}).json()
    (event,) = outbox_events(outbox)
    assert isinstance(event, Prediction)
    assert answer["classes"] == [1, 2, 3]
    # Whoever computes metrics from events takes what has classes for probabilities, which logarithms are not.
    assert event.classes == (None if method == "predict_log_proba" else [1, 2, 3])
    assert answer["labels"] == event.labels == estimator.predict(rows).tolist()
