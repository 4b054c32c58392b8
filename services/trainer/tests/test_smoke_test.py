"""What a fresh process finds out about a model before it may serve."""

import json
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
from mlflow.models import infer_signature
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression

from driftloop.settings import TRUSTED_TYPES
from trainer.gate.gate import Answers, Decision, Tried, decide
from trainer.gate.smoke_test import ROWS, Fresh, columns, tried_here
from trainer.settings import Gate

FRAME = pd.DataFrame({"x": np.arange(400.0), "kind": pd.Series(["a", None] * 200), "count": np.arange(400)})
OUTCOMES = [0, 1] * 200


def decided(tried: Tried) -> Decision:
    """The decision on a challenger that answers as the champion does, on days enough."""
    scores = np.tile(np.linspace(0.1, 0.9, 40), 10)
    answers = Answers(np.array(OUTCOMES, dtype=float), scores, scores, np.repeat(np.arange(10), 40))
    return decide("roc_auc", answers, tried, Gate())


def save(folder: Path, estimator: object, trusted: tuple[str, ...] = (), predict_fn: str = "predict_proba") -> Path:
    mlflow.sklearn.save_model(
        estimator,
        folder,
        serialization_format="skops",
        signature=infer_signature(FRAME[["x"]]),
        skops_trusted_types=[*TRUSTED_TYPES, *trusted],
        input_example=FRAME[["x"]].head(3),
        pip_requirements=["scikit-learn"],
        pyfunc_predict_fn=predict_fn,
    )
    return folder


def tried(folder: Path, champion: Path | None, seconds: float) -> Tried:
    with Fresh() as trial:
        if champion is not None:
            trial.hold_against(champion)
        return trial.tried(folder, seconds)


def trees(count: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=count, early_stopping=False).fit(FRAME[["x"]], OUTCOMES)


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("champion") / "model", trees(20))


def test_a_fresh_process_tells_columns_and_times_of_both(champion: Path) -> None:
    found = tried(champion, champion, seconds=60)
    assert found.broken is None
    for trial in (found.challenger, found.champion):
        assert trial is not None
        assert trial.columns == {"x": "double"}
        assert tuple(trial.seconds) == ROWS
        assert all(0 < seconds < 1 for seconds in trial.seconds.values())
    decision = decided(found)
    assert decision.promote, decision.why


def test_it_can_be_run_by_hand_without_a_champion(champion: Path) -> None:
    command = [sys.executable, "-m", "trainer.gate.smoke_test"]
    printed = json.loads(
        subprocess.run(command, input=f"\n{champion}\n", capture_output=True, text=True, check=True).stdout
    )
    assert (printed["broken"], printed["champion"]) == (None, None)
    assert printed["challenger"]["columns"] == {"x": "double"}


def test_numbers_are_answers_too(tmp_path: Path) -> None:
    model = save(tmp_path / "model", LinearRegression().fit(FRAME[["x"]], OUTCOMES), predict_fn="predict")
    assert tried_here(model, None).broken is None


def test_a_slow_model_is_refused(tmp_path: Path, champion: Path) -> None:
    decision = decided(tried_here(save(tmp_path / "model", trees(1500)), champion))
    assert not decision.promote
    assert all("times the champion's" in reason for reason in decision.reasons), decision.why


def test_a_type_outside_of_the_allow_list_is_refused_by_name(tmp_path: Path, champion: Path) -> None:
    forest = RandomForestClassifier(2).fit(FRAME[["x"]], OUTCOMES)
    found = tried(save(tmp_path / "model", forest, trusted=("sklearn.tree._tree.Tree",)), champion, seconds=60)
    (reason,) = decided(found).reasons
    assert reason.startswith("it cannot serve: ")
    assert "sklearn.tree._tree.Tree" in reason


@pytest.mark.parametrize("file", ["MLmodel", "model.skops", "input_example.json"])
def test_a_broken_folder_is_refused(tmp_path: Path, champion: Path, file: str) -> None:
    folder = save(tmp_path / "model", trees(2))
    (folder / file).write_bytes((folder / file).read_bytes()[:40])
    found = tried_here(folder, champion)
    assert found.broken is not None
    assert "loaded" in found.broken


def test_a_model_that_does_not_answer_its_example_is_refused(tmp_path: Path) -> None:
    two_columns = HistGradientBoostingClassifier(max_iter=2).fit(FRAME[["x", "count"]], OUTCOMES)
    found = tried_here(save(tmp_path / "model", two_columns), None)
    assert found.broken is not None
    assert "does not answer its own input example: ValueError" in found.broken


def test_a_champion_that_cannot_be_tried_is_named_as_the_one(tmp_path: Path, champion: Path) -> None:
    found = tried_here(champion, tmp_path)
    assert found.broken is not None
    assert found.broken.startswith("the champion beside it: ")


def test_a_time_limit_ends_it(champion: Path) -> None:
    assert "after 0.1 s (DRIFTLOOP_GATE__TRY_SECONDS)" in (tried(champion, None, seconds=0.1).broken or "")


def test_a_process_that_ends_without_a_word_is_told_with_its_code(
    monkeypatch: pytest.MonkeyPatch, champion: Path
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert "ended with code 1" in (tried(champion, None, seconds=60).broken or "")


def test_a_process_that_nobody_asks_ends_with_who_began_it() -> None:
    began = (
        "import time; from trainer.gate.smoke_test import Fresh; "
        "print(Fresh()._process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", began], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        trial = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
        trial.wait(60)


def test_columns_are_told_in_words() -> None:
    assert columns(infer_signature(FRAME)) == {"x": "double", "kind": "string or missing", "count": "long"}
    assert columns(infer_signature(np.zeros((3, 2)))) == {"input 0": "{'dtype': 'float64', 'shape': (-1, 2)}"}
