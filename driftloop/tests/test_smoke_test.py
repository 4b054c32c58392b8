"""The smoke test: loading and timing a model in a fresh process before it may serve."""

import json
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
import skops.io
from mlflow.models import infer_signature
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from driftloop.evaluation.gate import Decision, HoldoutPredictions, SmokeTestResult, decide
from driftloop.evaluation.gate_settings import GateSettings
from driftloop.evaluation.metric import BUILT_IN_METRICS
from driftloop.evaluation.targets import BINARY
from driftloop.registry.smoke_test import ROWS, SmokeTestProcess, column_types, run_in_process

pytestmark = pytest.mark.integration

FRAME = pd.DataFrame({"x": np.arange(400.0), "kind": pd.Series(["a", None] * 200), "count": np.arange(400)})
OUTCOMES = [0, 1] * 200
MINUTES = 600  # seconds, for a machine that is busy


def decision_on(smoke_test: SmokeTestResult) -> Decision:
    """Return the decision on a challenger that predicts as the champion does, on enough days."""
    scores = np.tile(np.linspace(0.1, 0.9, 40), 10)
    outcomes = np.array(OUTCOMES, dtype=float)
    holdout = HoldoutPredictions(BINARY, outcomes, scores, scores, np.repeat(np.arange(10), 40))
    return decide(BUILT_IN_METRICS["roc_auc"], holdout, smoke_test, GateSettings())


def save(
    folder: Path, estimator: object, predict_fn: str = "predict_proba", inputs: pd.DataFrame = FRAME[["x"]]
) -> Path:
    mlflow.sklearn.save_model(
        estimator,
        folder,
        serialization_format="skops",
        signature=infer_signature(inputs),
        skops_trusted_types=skops.io.get_untrusted_types(data=skops.io.dumps(estimator)),
        input_example=FRAME[["x"]].head(3),
        pip_requirements=["scikit-learn"],
        pyfunc_predict_fn=predict_fn,
    )
    return folder


def run_smoke_test(folder: Path, champion: Path | None, timeout_seconds: float) -> SmokeTestResult:
    with SmokeTestProcess() as process:
        if champion is not None:
            process.set_champion(champion)
        return process.run(folder, timeout_seconds)


def trees(count: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=count, early_stopping=False).fit(FRAME[["x"]], OUTCOMES)


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("champion") / "model", trees(20))


def test_smoke_test_reports_columns_and_latencies_of_both_models(champion: Path) -> None:
    result = run_smoke_test(champion, champion, timeout_seconds=MINUTES)
    assert result.error is None
    for trial in (result.challenger, result.champion):
        assert trial is not None
        assert trial.columns == {"x": "double"}
        assert tuple(trial.latency_seconds) == ROWS
        assert all(0 < seconds < 1 for seconds in trial.latency_seconds.values())
    decision = decision_on(result)
    assert decision.promote, decision.explanation


def test_smoke_test_runs_by_hand_without_champion(champion: Path) -> None:
    command = [sys.executable, "-m", "driftloop.registry.smoke_test"]
    printed = json.loads(
        subprocess.run(command, input=f"\n{champion}\n", capture_output=True, text=True, check=True).stdout
    )
    assert (printed["error"], printed["champion"]) == (None, None)
    assert printed["challenger"]["columns"] == {"x": "double"}


def test_smoke_test_accepts_regression_model(tmp_path: Path) -> None:
    model = save(tmp_path / "model", LinearRegression().fit(FRAME[["x"]], OUTCOMES), predict_fn="predict")
    assert run_in_process(model, None).error is None


def test_gate_rejects_slow_model(tmp_path: Path, champion: Path) -> None:
    decision = decision_on(run_in_process(save(tmp_path / "model", trees(1500)), champion))
    assert not decision.promote
    assert all("times the champion's" in reason for reason in decision.reasons), decision.explanation


def test_smoke_test_names_untrusted_type(tmp_path: Path, champion: Path) -> None:
    rows = make_pipeline(FunctionTransformer(np.nan_to_num), LogisticRegression()).fit(FRAME[["x"]], OUTCOMES)
    folder = save(tmp_path / "model", rows)
    (reason,) = decision_on(run_smoke_test(folder, champion, timeout_seconds=MINUTES)).reasons
    assert reason.startswith("it cannot serve: ")
    assert "DRIFTLOOP_REGISTRY__TRUSTED_TYPES=numpy.nan_to_num" in reason
    with SmokeTestProcess(["numpy.nan_to_num"]) as process:
        assert process.run(folder, MINUTES).error is None


@pytest.mark.parametrize("file", ["MLmodel", "model.skops", "input_example.json"])
def test_smoke_test_reports_damaged_files(tmp_path: Path, champion: Path, file: str) -> None:
    folder = save(tmp_path / "model", trees(2))
    (folder / file).write_bytes((folder / file).read_bytes()[:40])
    result = run_in_process(folder, champion)
    assert result.error is not None
    assert "loaded" in result.error


def test_smoke_test_reports_model_that_cannot_predict_its_example(tmp_path: Path) -> None:
    two_columns = HistGradientBoostingClassifier(max_iter=2).fit(FRAME[["x", "count"]], OUTCOMES)
    result = run_in_process(save(tmp_path / "model", two_columns), None)
    assert result.error is not None
    assert "cannot predict its own input example: ValueError" in result.error


def test_smoke_test_names_champion_that_cannot_be_loaded(tmp_path: Path, champion: Path) -> None:
    result = run_in_process(champion, tmp_path)
    assert result.error is not None
    assert result.error.startswith("the champion: ")


def test_smoke_test_process_times_out(champion: Path) -> None:
    result = run_smoke_test(champion, None, timeout_seconds=0.1)
    assert (result.error, result.exceeded_seconds) == (None, 0.1)


def test_smoke_test_process_reports_exit_code(monkeypatch: pytest.MonkeyPatch, champion: Path) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert "ended with code 1" in (run_smoke_test(champion, None, timeout_seconds=MINUTES).error or "")


def test_smoke_test_process_exits_with_parent() -> None:
    script = (
        "import time; from driftloop.registry.smoke_test import SmokeTestProcess; "
        "print(SmokeTestProcess()._process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        trial = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
        trial.wait(MINUTES)


@pytest.mark.parametrize(
    ("inputs", "x", "problem"),
    [
        (FRAME[["x"]], [1.0, 2.0], None),
        (FRAME[["x"]].replace(0.0, np.nan), [1.0, None], None),
        (FRAME[["x"]], [1.0, None], "the column x may not be missing, and is missing in rows that were answered"),
        (FRAME[["x"]].rename(columns={"x": "y"}), [1.0, 2.0], "it requires the column y"),
        (FRAME[["x"]].rename(columns={"x": "_id"}), [1.0, 2.0], "columns named _id"),
    ],
    ids=["complete", "optional", "required", "other column", "reserved name"],
)
def test_smoke_test_asks_whether_rows_that_were_answered_are_answered_again(
    tmp_path: Path, inputs: pd.DataFrame, x: list[float | None], problem: str | None
) -> None:
    rows = tmp_path / "rows.parquet"
    pd.DataFrame({"x": x}, dtype="float64").to_parquet(rows)
    error = run_in_process(save(tmp_path / "model", trees(2), inputs=inputs), None, rows=rows).error
    assert error is None if problem is None else problem in (error or "")


def test_smoke_test_process_predicts_rows(tmp_path: Path, champion: Path) -> None:
    rows = tmp_path / "rows.parquet"
    pd.DataFrame({"x": [1.0, None]}).to_parquet(rows)
    with SmokeTestProcess() as process:
        process.set_champion(champion)
        error = process.run(champion, MINUTES, rows).error
    assert "the column x may not be missing" in (error or "")


def test_smoke_test_tells_predictions_of_another_kind(tmp_path: Path, champion: Path) -> None:
    result = run_in_process(save(tmp_path / "labels", trees(2), predict_fn="predict"), champion)
    assert any("from probability to label" in reason for reason in decision_on(result).reasons)
    three = HistGradientBoostingClassifier(max_iter=2).fit(FRAME[["x"]], np.arange(400) % 3)
    result = run_in_process(save(tmp_path / "three", three), champion)
    assert any("the classes of the probabilities have changed" in reason for reason in decision_on(result).reasons)


def test_column_types_as_text() -> None:
    assert column_types(infer_signature(FRAME)) == {"x": "double", "kind": "string or missing", "count": "long"}
    assert column_types(infer_signature(np.zeros((3, 2)))) == {"input 0": "{'dtype': 'float64', 'shape': (-1, 2)}"}
