"""A notebook's models on a running stack: adopted, served, watched, and challenged."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import mlflow
import pandas as pd
import pytest
from lightgbm import LGBMClassifier
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from driftloop.events import DriftVerdict, ModelStateChanged, frame_to_columns
from driftloop.exit_codes import ExitCode
from driftloop.kafka import reader
from driftloop.registry.trusted_types import TRUSTED_TYPES
from driftloop.storage.object_store import ObjectStore
from stack.running import Stack
from tests.support.running_stack import isolated_settings, serves_version
from tests.support.waiting import wait_until
from usecases.flights import usecase

WINDOW_ROWS, ROWS_PER_DAY = 200, 400
TRAINING_DAYS = (date(2013, 1, 20), date(2013, 2, 1))
FIRST_DAY, DAYS = date(2013, 2, 2), 5


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    extra = {
        "DRIFTLOOP_WINDOW__ROWS": str(WINDOW_ROWS),
        "DRIFTLOOP_WINDOW__IDLE_TIMEOUT_SECONDS": "2",
        "DRIFTLOOP_PREDICTOR__ALIAS_POLL_INTERVAL_SECONDS": "0.5",
        "DRIFTLOOP_POLICY__ENABLED": "false",
        "DRIFTLOOP_GATE__MIN_HOLDOUT_DAYS": "3",
        "DRIFTLOOP_GATE__MAX_LATENCY_RATIO": "100",  # a tree with one split has no match in speed
    }
    with Stack(isolated_settings(tmp_path_factory.mktemp("adoption")), print, extra) as stack:
        yield stack


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return usecase.load_rows()


@pytest.fixture(scope="module")
def training_rows(rows: pd.DataFrame) -> pd.DataFrame:
    of_days = usecase.rows_between(rows, *TRAINING_DAYS)
    return of_days[of_days[usecase.target].notna()]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, training_rows: pd.DataFrame) -> Path:
    path = tmp_path_factory.mktemp("data") / "january.parquet"
    training_rows.to_parquet(path)
    return path


def log(training_rows: pd.DataFrame, estimator: Any, serialization_format: str) -> str:
    """Log a pipeline as a notebook does; return its version in the model ``notebook``."""
    categories = [name for name in usecase.features if training_rows[name].dtype.kind == "O"]
    numbers = [name for name in usecase.features if name not in categories]
    pipeline = make_pipeline(
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), categories), (SimpleImputer(), numbers)),
        estimator,
    ).fit(training_rows[usecase.features], training_rows[usecase.target].astype(int))
    mlflow.set_experiment("notebook")
    with mlflow.start_run():
        uri = mlflow.sklearn.log_model(
            pipeline,
            name="model",
            serialization_format=serialization_format,
            skops_trusted_types=list(TRUSTED_TYPES) if serialization_format == "skops" else None,
            pip_requirements=["scikit-learn"],
        ).model_uri
    return str(mlflow.register_model(uri, "notebook").version)


def run(stack: Stack, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the operator's command with the settings of the stack, for as long as it takes."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("driftloop")), *arguments],
        env={**os.environ, **stack.environment},
        capture_output=True,
        text=True,
        check=False,
    )


def adopt(stack: Stack, version: str, data: Path, *options: str) -> dict[str, Any]:
    done = run(
        stack,
        *("adopt", "notebook", version, "--data", str(data), "--as", usecase.name, "--json"),
        *("--time", usecase.timestamp, "--target", usecase.target, "--timezone", usecase.timezone, *options),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def send_days(stack: Stack, rows: pd.DataFrame) -> None:
    """Request predictions for rows of each day, and report their outcomes."""
    url = stack.components["predictor"].url
    for number in range(DAYS):
        day = FIRST_DAY + timedelta(days=number)
        of_day = usecase.rows_between(rows, day, day + timedelta(days=1))
        of_day = of_day[of_day[usecase.target].notna()].head(ROWS_PER_DAY)
        at = of_day[usecase.timestamp].iloc[0].isoformat()
        columns = frame_to_columns(of_day[usecase.features])
        instances = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
        response = httpx.post(
            f"{url}/predict", json={"instances": instances}, headers={"Driftloop-Time": at}, timeout=60
        ).json()
        outcomes = [
            {"id": response["id"], "index": row, "outcome": int(outcome)}
            for row, outcome in enumerate(of_day[usecase.target])
        ]
        httpx.post(f"{url}/outcomes", json={"outcomes": outcomes}, timeout=60).raise_for_status()


@pytest.mark.timeout(1_800)  # ten processes that each import MLflow
def test_notebooks_models_are_adopted_served_watched_and_challenged(
    stack: Stack, rows: pd.DataFrame, training_rows: pd.DataFrame, data: Path
) -> None:
    stump = log(training_rows, RandomForestClassifier(1, max_depth=1, random_state=0), "cloudpickle")
    first = adopt(stack, stump, data, "--trust-pickle", "--promote")
    assert first["compared_rows"] == len(training_rows)
    wait_until(lambda: serves_version(stack, first["version"]), "the adopted version serves")
    promoted = reader.read_last(stack.kafka, "models", 1)[-1]
    assert isinstance(promoted, ModelStateChanged)
    assert (promoted.state, promoted.version) == ("promoted", first["version"])

    send_days(stack, rows)

    def verdicts() -> list[DriftVerdict] | None:
        events = reader.read_last(stack.kafka, "drift", 100)
        found = [event for event in events if isinstance(event, DriftVerdict)]
        return found if len(found) >= DAYS else None

    judged = wait_until(verdicts, "each day's window is judged")
    assert {verdict.version for verdict in judged} == {first["version"]}
    assert any(verdict.verdict != "inconclusive" for verdict in judged), [verdict.explanation for verdict in judged]
    store = ObjectStore(stack.storage)
    wait_until(lambda: len(store.list_objects("slices/outcomes/")) >= DAYS - 1 or None, "the outcomes are archived")

    booster = adopt(stack, log(training_rows, LGBMClassifier(n_estimators=20, verbose=-1, n_jobs=1), "skops"), data)
    dry = challenge(stack, booster["version"], "--dry-run")
    assert dry["rows"] > 0
    assert dry["passed"]
    assert not dry["promoted"]
    assert stack.registry.champion() == first["version"]
    assert challenge(stack, booster["version"])["promoted"]
    wait_until(lambda: serves_version(stack, booster["version"]), "the booster serves")
    rejected = challenge(stack, first["version"], code=ExitCode.RETRAIN_REJECTED)
    assert not rejected["passed"]
    assert stack.registry.champion() == booster["version"]
    assert run(stack, "challenge", booster["version"]).returncode == ExitCode.REFUSED


def challenge(stack: Stack, version: str, *options: str, code: int = 0) -> dict[str, Any]:
    done = run(stack, "challenge", version, "--json", *options)
    assert done.returncode == code, done.stdout + done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed
