"""Candidates of a use case: the best on later days is chosen, and all of them are reported."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from driftloop.candidates import parameter_grid
from driftloop.privacy import Privacy
from tests.support.synthetic_usecase import make_use_case
from trainer.retrain.candidates import NoCandidate, Selection, choose, mlflow_name, run_metrics

DAYS, ROWS_PER_DAY = 10, 40
USE_CASE = replace(make_use_case(timezone="UTC"), classes=(0, 1), make_pipeline=DummyClassifier)


@pytest.fixture
def rows() -> pd.DataFrame:
    random = np.random.default_rng(0)
    x = random.normal(size=DAYS * ROWS_PER_DAY)
    return pd.DataFrame(
        {
            "at": pd.Timestamp("2013-04-01", tz="UTC")
            + pd.to_timedelta(np.arange(DAYS * ROWS_PER_DAY) // ROWS_PER_DAY, unit="D"),
            "x": x,
            "y": (x + random.normal(size=len(x)) > 0).astype(float),
        }
    )


def train(rows: pd.DataFrame, make_pipeline: Callable[[], Any]) -> Any:
    return make_pipeline().fit(rows[["x"]], rows["y"].astype(int))


def score(estimator: Any, rows: pd.DataFrame) -> npt.NDArray[np.float64]:
    return np.asarray(estimator.predict_proba(rows[["x"]])[:, 1])


def chosen(rows: pd.DataFrame, candidates: Mapping[str, Callable[[], Any]], **changes: Any) -> Selection:
    return choose(replace(USE_CASE, candidates=candidates, **changes), rows, train, score)


def failing() -> Any:
    raise ValueError("no such solver")


@pytest.mark.parametrize("metric", ["roc_auc", "neg_log_loss"])
def test_best_candidate_on_later_days_is_chosen_and_all_are_reported(rows: pd.DataFrame, metric: str) -> None:
    selection = chosen(rows, {"linear": LogisticRegression}, metric=metric)
    assert selection.name == "linear"
    assert isinstance(selection.make_pipeline(), LogisticRegression)
    assert selection.rows == 2 * ROWS_PER_DAY
    assert set(selection.values) == {"default", "linear"}
    assert len(run_metrics(selection)) == 2


def test_candidates_are_fitted_to_earlier_days_only(rows: pd.DataFrame) -> None:
    fitted: list[pd.DataFrame] = []
    scored: list[pd.DataFrame] = []

    def recording_train(rows: pd.DataFrame, make_pipeline: Callable[[], Any]) -> Any:
        fitted.append(rows)
        return train(rows, make_pipeline)

    def recording_score(estimator: Any, rows: pd.DataFrame) -> npt.NDArray[np.float64]:
        scored.append(rows)
        return score(estimator, rows)

    without_labels = rows.assign(y=rows["y"].where(rows.index % 5 != 0))
    choose(replace(USE_CASE, candidates={"a": LogisticRegression}), without_labels, recording_train, recording_score)
    assert fitted[0]["at"].max() < scored[0]["at"].min()
    assert len(fitted[0]) + len(scored[0]) == without_labels["y"].notna().sum()


def test_candidate_that_fails_is_reported_and_another_chosen(rows: pd.DataFrame) -> None:
    selection = chosen(rows, {"broken": failing, "linear": LogisticRegression})
    assert selection.name == "linear"
    assert selection.errors == {"broken": "ValueError: no such solver"}
    assert "broken failed" in str(selection)


def test_failure_of_a_candidate_is_in_the_words_that_privacy_allows(rows: pd.DataFrame) -> None:
    privacy = Privacy({"x": "drop"})
    candidates = {"broken": failing, "linear": LogisticRegression}
    selection = choose(replace(USE_CASE, candidates=candidates), rows, train, score, privacy.describe_error)
    assert "no such solver" not in str(selection)
    assert "broken failed: ValueError" in str(selection)


def test_no_candidate_is_an_error_that_names_each(rows: pd.DataFrame) -> None:
    with pytest.raises(NoCandidate, match="broken: ValueError: no such solver"):
        chosen(rows, {"broken": failing}, make_pipeline=failing)


def test_rows_of_one_day_cannot_be_divided(rows: pd.DataFrame) -> None:
    with pytest.raises(NoCandidate, match="one block of days"):
        chosen(rows[:ROWS_PER_DAY], {"linear": LogisticRegression})


def test_parameter_grid_makes_a_candidate_of_each_combination(rows: pd.DataFrame) -> None:
    grid = parameter_grid(LogisticRegression, {"C": [1e-6, 1.0], "fit_intercept": [True, False]})
    assert list(grid) == [
        "C:1e-06 fit_intercept:True",
        "C:1e-06 fit_intercept:False",
        "C:1.0 fit_intercept:True",
        "C:1.0 fit_intercept:False",
    ]
    assert [candidate().C for candidate in grid.values()] == [1e-6, 1e-6, 1.0, 1.0]
    assert set(chosen(rows, grid).values) == {"default", *grid}
    assert all(mlflow_name(name) == name for name in grid)


def test_names_are_turned_into_what_mlflow_takes() -> None:
    assert mlflow_name("depth=3, größe/2") == "depth_3_ gr__e_2"
