"""A version and the served predictions, evaluated on the same rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.models import Model, infer_signature

from driftloop.evaluation.bootstrap import evaluate, paired_difference
from driftloop.evaluation.metric import BUILT_IN_METRICS
from driftloop.evaluation.targets import BINARY
from driftloop.registry.loading import LoadedModel
from driftloop_cli.archived_rows import predict_rows
from driftloop_cli.shadow import compare, print_comparison
from tests.support.synthetic_usecase import make_use_case

DAYS, ROWS = 8, 100
USE_CASE = make_use_case(numeric_features=("a", "b"), timezone="UTC")


@pytest.fixture
def rows() -> pd.DataFrame:
    """Rows of which version 1 has predicted the first three quarters, and version 2 the rest."""
    random = np.random.default_rng(0)
    chance = random.random(DAYS * ROWS)
    return pd.DataFrame(
        {
            "at": pd.Timestamp("2013-04-01", tz="UTC") + pd.to_timedelta(np.arange(DAYS * ROWS) // ROWS, unit="D"),
            "y": (random.random(DAYS * ROWS) < chance).astype(float),
            "_prediction": np.clip(chance + random.normal(0, 0.3, DAYS * ROWS), 0, 1),
            "chance": chance,
            "_version": np.repeat(["1", "2"], [DAYS * ROWS * 3 // 4, DAYS * ROWS // 4]),
        }
    )


def test_comparison_evaluates_both_on_the_same_rows(rows: pd.DataFrame) -> None:
    scores = rows["chance"].to_numpy()
    comparison = compare(USE_CASE, rows, "3", scores, pd.Timestamp("2013-03-31", tz="UTC"))
    outcomes, days = rows["y"].to_numpy(), USE_CASE.day_ordinals(rows["at"])
    assert comparison.served == evaluate(
        BINARY, outcomes, rows["_prediction"].to_numpy(), days, USE_CASE.headline_metric
    )
    assert comparison.shadowed == evaluate(BINARY, outcomes, scores, days, USE_CASE.headline_metric)
    assert comparison.differences["brier"] == paired_difference(
        BUILT_IN_METRICS["brier"], outcomes, rows["_prediction"].to_numpy(), scores, USE_CASE.block_ids(rows["at"])
    )
    assert set(comparison.differences) == {"roc_auc", "brier", "accuracy"}
    assert comparison.differences["roc_auc"].low > 0 > comparison.differences["brier"].high
    assert (comparison.rows_by_version, comparison.rows_seen_in_training) == ({"1": 600, "2": 200}, 0)


def test_comparison_of_a_regression_has_rmse(rows: pd.DataFrame) -> None:
    scores = rows["chance"].to_numpy() * 10
    use_case = replace(USE_CASE, classes=None)
    served = rows.assign(y=scores, _prediction=scores + 1)
    comparison = compare(use_case, served, "3", scores, pd.Timestamp(0, tz="UTC"))
    assert set(comparison.differences) == {"rmse", "mae", "r2", "bias"}
    assert comparison.differences["rmse"] == pytest.approx((-1, -1, -1))


def test_comparison_counts_and_prints_rows_seen_in_training(
    rows: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = rows["chance"].to_numpy()
    comparison = compare(USE_CASE, rows, "3", scores, pd.Timestamp("2013-04-03", tz="UTC"))
    assert comparison.rows_seen_in_training == 3 * ROWS
    print_comparison(comparison)
    shown = capsys.readouterr().out
    assert "800 rows of 8 days, predicted by version 1 (600), version 2 (200)" in shown
    assert "300 of them are no later than 2013-04-03, which the training of version 3 reaches" in shown
    assert "ROC AUC" in shown


def test_facts_of_a_comparison_have_names_for_all_numbers(rows: pd.DataFrame) -> None:
    scores = rows["chance"].to_numpy()
    comparison = compare(USE_CASE, rows, "3", scores, pd.Timestamp("2013-04-03", tz="UTC"))
    facts = comparison.facts()
    assert facts["differences"]["brier"] == comparison.differences["brier"]._asdict()
    assert (facts["version"], facts["served"].rows) == ("3", DAYS * ROWS)


class HalfModel:
    classes_ = np.array([0, 1])

    def predict_proba(self, rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        return np.column_stack([1 - rows["a"] / 2, rows["a"] / 2])

    def predict(self, rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        return (rows["a"] * 2).to_numpy()


@pytest.mark.parametrize(
    ("method", "classes", "expected"),
    [("predict_proba", (0, 1), [0.25, 0.5]), ("predict", None, [1.0, 2.0])],
    ids=["predict_proba", "predict"],
)
def test_predictions_come_from_the_method_that_the_model_was_logged_with(
    method: str, classes: tuple[int, int] | None, expected: list[float]
) -> None:
    example = pd.DataFrame({"b": [1.0], "a": [0.5]})
    description = Model(signature=infer_signature(example), flavors={"python_function": {"predict_fn": method}})
    rows = pd.DataFrame({"other": ["x", "y"], "a": [0.5, 1.0], "b": [0.0, 0.0]})
    assert (
        predict_rows(replace(USE_CASE, classes=classes), LoadedModel(HalfModel(), description, None), rows).tolist()
        == expected
    )
