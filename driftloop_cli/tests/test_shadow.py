"""A version beside those that answered, on the same rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.models import Model, infer_signature
from rich.console import Console

from driftloop.evaluation.metrics import measure, paired_difference
from driftloop.registry.model_registry import StoredModel
from driftloop.usecase import UseCase
from driftloop_cli.shadow import answers, compared, show

DAYS, ROWS = 8, 100
USE_CASE = UseCase(
    name="m",
    numbers=("a", "b"),
    categories=(),
    outcome="y",
    time="at",
    timezone="UTC",
    pipeline=lambda: None,
    pointer=Path("m.dvc"),
    rows=pd.DataFrame,
)


@pytest.fixture
def rows() -> pd.DataFrame:
    """Version 1 has answered the first three quarters, and version 2 the rest."""
    random = np.random.default_rng(0)
    chance = random.random(DAYS * ROWS)
    return pd.DataFrame(
        {
            "at": pd.Timestamp("2013-04-01", tz="UTC") + pd.to_timedelta(np.arange(DAYS * ROWS) // ROWS, unit="D"),
            "y": (random.random(DAYS * ROWS) < chance).astype(float),
            "prediction": np.clip(chance + random.normal(0, 0.3, DAYS * ROWS), 0, 1),
            "chance": chance,
            "version": np.repeat(["1", "2"], [DAYS * ROWS * 3 // 4, DAYS * ROWS // 4]),
        }
    )


def test_both_are_measured_on_the_same_rows(rows: pd.DataFrame) -> None:
    said = rows["chance"].to_numpy()
    found = compared(USE_CASE, rows, "3", said, pd.Timestamp("2013-03-31", tz="UTC"))
    outcomes, days = rows["y"].to_numpy(), USE_CASE.day_numbers(rows["at"])
    assert found.theirs == measure(outcomes, rows["prediction"].to_numpy(), days)
    assert found.its == measure(outcomes, said, days)
    assert found.differences["brier"] == paired_difference(
        "brier", outcomes, rows["prediction"].to_numpy(), said, USE_CASE.blocks(rows["at"])
    )
    assert set(found.differences) == {"roc_auc", "brier", "accuracy"}
    assert found.differences["roc_auc"].low > 0 > found.differences["brier"].high
    assert (found.answered, found.known) == ({"1": 600, "2": 200}, 0)


def test_a_regression_has_its_own_figure(rows: pd.DataFrame) -> None:
    said = rows["chance"].to_numpy() * 10
    found = compared(USE_CASE, rows.assign(y=said, prediction=said + 1), "3", said, pd.Timestamp(0, tz="UTC"))
    assert found.differences["rmse"] == pytest.approx((-1, -1, -1))


def test_rows_that_the_version_has_learned_from_are_counted_and_told(rows: pd.DataFrame) -> None:
    said = rows["chance"].to_numpy()
    found = compared(USE_CASE, rows, "3", said, pd.Timestamp("2013-04-03", tz="UTC"))
    assert found.known == 3 * ROWS
    out = Console(width=200, record=True, force_terminal=False)
    show(found, out)
    shown = out.export_text()
    assert "800 rows of 8 days, answered by version 1 (600), version 2 (200)" in shown
    assert "300 of them are of a time that version 3 has learned from, up to 2013-04-03" in shown
    assert "roc auc" in shown


class Half:
    def predict_proba(self, rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        return np.column_stack([1 - rows["a"] / 2, rows["a"] / 2])

    def predict(self, rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        return (rows["a"] * 2).to_numpy()


@pytest.mark.parametrize(("method", "expected"), [("predict_proba", [0.25, 0.5]), ("predict", [1.0, 2.0])])
def test_a_model_answers_by_the_method_that_it_was_logged_with(method: str, expected: list[float]) -> None:
    known = pd.DataFrame({"b": [1.0], "a": [0.5]})
    described = Model(signature=infer_signature(known), flavors={"python_function": {"predict_fn": method}})
    rows = pd.DataFrame({"other": ["x", "y"], "a": [0.5, 1.0], "b": [0.0, 0.0]})
    assert answers(StoredModel(Half(), described, None), rows).tolist() == expected
