"""Outcomes and predictions of every kind of target become the same arrays, wherever they come from."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import LinearSVC

from driftloop.evaluation.targets import BINARY, MAX_INFERRED_CLASSES, NUMBER, OTHER_LABELS, Target, infer_target

NAN = float("nan")
GRADES = Target(("good", "poor", "so-so"))
X = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]})


@pytest.mark.parametrize(
    ("classes", "outcomes", "encoded"),
    [
        pytest.param(None, [1.5, None, 2], [1.5, NAN, 2.0], id="numbers"),
        pytest.param((0, 1), [0, 1.0, True, None], [0, 1, 1, NAN], id="zero and one"),
        pytest.param((False, True), [1.0, 0.0], [1, 0], id="booleans, archived as numbers"),
        pytest.param(("no", "yes"), ["yes", "no", "maybe", None], [1, 0, NAN, NAN], id="texts"),
        pytest.param((3, 5, 7), [7.0, 3, 4], [2, 0, NAN], id="integers"),
        pytest.param((3, 10**400, 7), [7.0, 3, 4], [2, 0, NAN], id="integer beyond floats"),
    ],
)
def test_outcomes_are_encoded(classes: tuple[Any, ...] | None, outcomes: list[Any], encoded: list[float]) -> None:
    np.testing.assert_array_equal(Target(classes).encode(pd.Series(outcomes, dtype=object)), encoded)


def test_decoded_outcomes_are_labels_as_a_classifier_is_fitted_to_them() -> None:
    assert GRADES.decode(np.array([2.0, 0.0])).tolist() == ["so-so", "good"]
    assert Target((3, 5, 7)).decode(np.array([1.0])).tolist() == [5]
    assert NUMBER.decode(np.array([0.5])).tolist() == [0.5]


def test_outcomes_that_are_no_classes_are_counted_by_name() -> None:
    assert GRADES.count_unknown(pd.Series(["good", "bad", "bad", None])) == {"bad": 2}
    assert BINARY.count_unknown(pd.Series([0, 1, 2.5])) == {"2.5": 1}


def test_outcomes_that_are_rarely_reported_and_no_classes_are_counted_together() -> None:
    found = GRADES.count_unknown(pd.Series(["bad", "bad", *(f"order {number}" for number in range(1_000))]))
    assert (found["bad"], found[OTHER_LABELS], len(found), sum(found.values())) == (2, 981, 21, 1_002)


def test_free_text_has_a_limited_number_of_classes() -> None:
    texts = pd.Series([f"order {number}" for number in range(5_000)])
    labels = pd.Series(["good", "poor"] * 2_500)
    target = infer_target(texts, labels, None)
    assert len(target.classes or ()) == MAX_INFERRED_CLASSES
    assert not np.isnan(target.from_archive(labels)).any()


@pytest.mark.parametrize(
    ("estimator", "target", "labels", "method"),
    [
        pytest.param(LogisticRegression(), BINARY, [0, 0, 0, 1, 1, 1], "predict_proba", id="two classes"),
        pytest.param(
            LogisticRegression(),
            GRADES,
            ["good", "good", "so-so", "so-so", "poor", "poor"],
            "predict_proba",
            id="three classes",
        ),
        pytest.param(LinearSVC(), GRADES, ["good", "good", "so-so", "so-so", "poor", "poor"], "predict", id="labels"),
        pytest.param(LinearRegression(), NUMBER, [1.0, 2.0, 3.0, 4.0, 5.0, 6.5], "predict", id="numbers"),
    ],
)
def test_archived_predictions_equal_the_estimators_own(
    estimator: Any, target: Target, labels: list[Any], method: str
) -> None:
    estimator.fit(X, labels)
    expected = target.predict(estimator, method, X)
    returned = getattr(estimator, method)(X)
    if method == "predict":
        archived, classes = pd.Series(returned.tolist()), None
    elif target.kind == "binary":
        archived, classes = pd.Series(returned[:, 1]), pd.Series([json.dumps(estimator.classes_.tolist())] * len(X))
    else:
        archived = pd.Series([json.dumps(line) for line in returned.tolist()])
        classes = pd.Series([json.dumps(estimator.classes_.tolist())] * len(X))
    np.testing.assert_allclose(target.from_archive(archived, classes), expected, atol=1e-12)
    assert not np.isnan(expected).any()
    decided = target.to_column(expected).tolist()
    if target.kind == "multiclass":
        assert decided == estimator.predict(X).tolist()


def test_class_that_the_estimator_does_not_know_has_probability_zero() -> None:
    estimator = LogisticRegression().fit(X, ["good"] * 3 + ["so-so"] * 3)
    probabilities = GRADES.predict(estimator, "predict_proba", X)
    assert probabilities.shape == (6, 3)
    assert probabilities[:, 1].tolist() == [0.0] * 6
    np.testing.assert_allclose(probabilities[:, [0, 2]], estimator.predict_proba(X))


def test_rows_of_versions_with_other_classes_are_aligned() -> None:
    predictions = pd.Series(["[0.2, 0.8]", "[0.5, 0.25, 0.25]"], index=[7, 9])
    classes = pd.Series(['["poor", "so-so"]', '["good", "poor", "so-so"]'], index=[7, 9])
    assert GRADES.from_archive(predictions, classes).tolist() == [[0, 0.2, 0.8], [0.5, 0.25, 0.25]]


def test_numeric_labels_are_recognized_by_the_reported_classes() -> None:
    target = Target((1, 2))
    assert target.from_archive(pd.Series([1, 2, 2])).tolist() == [0, 1, 1]
    reported = pd.Series(["[1, 2]", None, "[1, 2]"])
    assert target.from_archive(pd.Series([1.0, 1.0, 0.25]), reported).tolist() == [1, 0, 0.25]


def test_predictions_of_another_target_are_missing() -> None:
    assert np.isnan(NUMBER.from_archive(pd.Series(["[0.5, 0.5]"]))).all()
    assert np.isnan(GRADES.from_archive(pd.Series(["bad"]))).all()


@pytest.mark.parametrize(
    ("prediction", "classes"),
    [
        pytest.param("[0.1, 0.9]", ["good", "poor", "so-so"], id="too few probabilities"),
        pytest.param("[0.1, 0.2, 0.3, 0.4]", ["good", "poor", "so-so"], id="too many probabilities"),
        pytest.param("[]", [], id="no classes"),
        pytest.param("[0.5, 0.25, 0.25]", ["good", "good", "poor"], id="doubled class"),
        pytest.param("[0.5, 0.25, 0.25]", ["a", "b", "c"], id="classes of another target"),
        pytest.param("good", ["good", "poor", "so-so"], id="label"),
        pytest.param('"good"', ["good", "poor", "so-so"], id="label beside lists"),
        pytest.param("0.5", ["good", "poor", "so-so"], id="number"),
        pytest.param(0.5, ["good", "poor", "so-so"], id="number beside no lists"),
        pytest.param('["a", 0.5, 0.5]', ["good", "poor", "so-so"], id="text among probabilities"),
        pytest.param("[true, 0.5, 0.5]", ["good", "poor", "so-so"], id="boolean among probabilities"),
        pytest.param("[" * 100_000, ["good", "poor", "so-so"], id="nested lists"),
        pytest.param(f"[1{'0' * 400}, 0.5, 0.5]", ["good", "poor", "so-so"], id="integer beyond floats"),
    ],
)
def test_prediction_that_is_not_one_probability_for_each_class_is_missing(prediction: Any, classes: list[str]) -> None:
    cells = pd.Series([prediction, "[0.5, 0.25, 0.25]"], dtype=object)
    reported = pd.Series([json.dumps(classes), '["good", "poor", "so-so"]'])
    np.testing.assert_array_equal(GRADES.from_archive(cells, reported), [[NAN] * 3, [0.5, 0.25, 0.25]])


def test_missing_prediction_has_no_most_probable_class() -> None:
    column = GRADES.to_column(np.array([[0.1, 0.9, 0.0], [NAN] * 3]))
    assert column.fillna("missing").tolist() == ["poor", "missing"]


@pytest.mark.parametrize(
    ("outcomes", "predictions", "classes", "expected"),
    [
        pytest.param([0.0, 1.0], [0.5, 0.25], None, BINARY, id="zero and one"),
        pytest.param([0.0, 2.0], [0.5, 0.25], None, NUMBER, id="numbers"),
        pytest.param([0.0, 1.0], [0.5, 7.0], None, NUMBER, id="predictions beyond one"),
        pytest.param(["a", 1.0], [0.5, 0.25], None, BINARY, id="text among outcomes of a number"),
        pytest.param(["a", 2.0], [0.5, 0.25], None, NUMBER, id="text among outcomes of numbers"),
        pytest.param(["a", "b"], ["a", "a"], None, Target(("a", "b")), id="labels"),
        pytest.param(["a", "b"], ["[0, 0, 1]", "[1, 0, 0]"], ["a", "b", "c"], Target(("a", "b", "c")), id="reported"),
        pytest.param([0.0, 1.0], [0.5, 0.25], [0, 0, 1], BINARY, id="reported twice"),
    ],
)
def test_target_is_inferred(
    outcomes: list[Any], predictions: list[Any], classes: list[Any] | None, expected: Target
) -> None:
    assert infer_target(pd.Series(outcomes), pd.Series(predictions), classes) == expected
