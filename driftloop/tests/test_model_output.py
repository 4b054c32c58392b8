"""An output is one valid prediction for each row, or an error; its description says what the predictions mean."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.linear_model import LinearRegression, LogisticRegression

from driftloop.registry.model_output import InvalidOutput, ModelOutput, OutputDescription, describe_output

X = np.array([[0.0], [1.0], [2.0], [3.0]])


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (np.array([1.0]), "returned 1 predictions for 3 rows; the estimator was probably fitted on a Series"),
        (np.array([1.0, 2.0, 3.0, 4.0]), "returned 4 predictions for 3 rows"),
        ((np.zeros(3), np.zeros(3)), "a tuple of 2 values"),
        (np.zeros((3, 0)), "without columns"),
        ([np.zeros(3), np.zeros(2)], "returned 2 predictions for 3 rows"),
        ([[1.0], [1.0, 2.0], [1.0]], "what is no array"),
        (np.array([1.0, np.nan, 3.0]), "not a finite number"),
        (np.array(["a", None, "b"], dtype=object), "None, which is neither"),
        (np.array(["a", np.nan, "b"], dtype=object), "nan, which is neither"),
        (np.array([{"a": 1}, {}, {}], dtype=object), "neither a finite number nor a text"),
        (np.zeros((3, 2, 2)), "3 dimensions"),
        (np.array(["2013-07-01"] * 3, dtype="datetime64[D]"), "type datetime64"),
        (5.0, "0 dimensions"),
        (None, "0 dimensions"),
    ],
)
def test_output_that_is_not_one_prediction_per_row_is_an_error(returned: Any, reason: str) -> None:
    with pytest.raises(InvalidOutput, match=reason):
        ModelOutput.from_model(returned, "predict", 3)


@pytest.mark.parametrize(
    "labels",
    [[7, 8], [2**53 + 1, 0], [True, False], ["a", "b"], [1.5, 2.0]],
    ids=["integers", "large integers", "booleans", "texts", "floats"],
)
@pytest.mark.parametrize("dtype", [None, object])
def test_scores_keep_the_type_of_labels(labels: list[Any], dtype: Any) -> None:
    scores = ModelOutput.from_model(np.array(labels, dtype=dtype), "predict", 2).scores()
    assert [(type(score), score) for score in scores] == [(type(label), label) for label in labels]


def test_output_accepts_sparse_matrix() -> None:
    output = ModelOutput.from_model(scipy.sparse.csr_matrix([[1, 0], [0, 1]]), "predict", 2)
    assert output.scores() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("target", "method", "expected"),
    [
        ([0, 0, 1, 1], "predict_proba", OutputDescription("probability", [0, 1], 1)),
        (["no", "no", "yes", "yes"], "predict_proba", OutputDescription("probability", ["no", "yes"], 1)),
        (["a", "b", "c", "c"], "predict_proba", OutputDescription("probability", ["a", "b", "c"], 3)),
        ([0, 0, 1, 1], "predict_log_proba", OutputDescription("log_probability", [0, 1], 2)),
        ([0, 0, 1, 1], "predict", OutputDescription("label", None, 1)),
    ],
)
def test_description_of_a_classifier_has_its_classes(
    target: list[Any], method: str, expected: OutputDescription
) -> None:
    estimator = LogisticRegression().fit(X, target)
    output = ModelOutput.from_model(getattr(estimator, method)(X), method, 4)
    assert describe_output(estimator, method, output) == expected


def test_description_of_a_regressor_is_a_number() -> None:
    estimator = LinearRegression().fit(X, [0, 1, 2, 3])
    output = ModelOutput.from_model(estimator.predict(X), "predict", 4)
    assert describe_output(estimator, "predict", output) == OutputDescription("number", None, 1)


@pytest.mark.parametrize(
    ("new", "reasons"),
    [
        (OutputDescription("probability", [0, 1], 1), []),
        (OutputDescription("label", None, 1), ["the predictions have changed from probability to label"]),
        (
            OutputDescription("probability", [0, 1, 2], 3),
            ["the classes of the probabilities have changed from [0, 1] to [0, 1, 2]"],
        ),
    ],
)
def test_description_lists_incompatibilities(new: OutputDescription, reasons: list[str]) -> None:
    assert OutputDescription("probability", [0, 1], 1).incompatibilities_with(new) == reasons


@pytest.mark.parametrize(("method", "classes"), [("predict_proba", [0, 1]), ("predict_log_proba", None)])
def test_only_probabilities_have_classes_on_an_event(method: str, classes: list[int] | None) -> None:
    estimator = LogisticRegression().fit(X, [0, 0, 1, 1])
    output = ModelOutput.from_model(getattr(estimator, method)(X), method, 4)
    assert describe_output(estimator, method, output).probability_classes == classes
