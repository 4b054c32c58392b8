"""The loop of a use case with three named classes and columns of every kind: serving, drift, quality, retrain."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from driftloop.events import DataSelection, DriftVerdict, Prediction, QualityVerdict, RetrainRequest
from driftloop.kafka import reader
from driftloop.registry.model_registry import ModelRegistry
from driftloop.settings import RegistrySettings
from driftloop.storage import dvc
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import load_reference
from stack.running import Stack
from tests.support import tickets_usecase
from tests.support.ports import reserve_ports
from tests.support.processes import Server
from tests.support.running_stack import WINDOW_ROWS, run_command
from tests.support.tickets_usecase import TEAMS, usecase
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[3]
ROWS_PER_REQUEST = 100


@pytest.fixture(scope="module")
def served_rows() -> pd.DataFrame:
    """A window of tickets of May, which no version has learned from."""
    rows = tickets_usecase.load_rows(seed=1)
    return rows[rows["created"] >= pd.Timestamp("2026-04-20", tz="UTC")].head(WINDOW_ROWS).reset_index(drop=True)


@pytest.fixture(scope="module")
def environment(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The settings of the stack for tickets, whose dataset is published."""
    folder = tmp_path_factory.mktemp("tickets")
    data, pointer = folder / "tickets.parquet", folder / "tickets.parquet.dvc"
    tickets_usecase.load_rows().to_parquet(data, index=False)
    pointer.write_text(dvc.push(stack.storage, data))
    settings = {
        "DRIFTLOOP_USE_CASE": "tests.support.tickets_usecase:usecase",
        "DRIFTLOOP_REGISTRY__MODEL": usecase.name,
        "DRIFTLOOP_PREDICTOR__PORT": str(reserve_ports(1)[0]),
        "DRIFTLOOP_PREDICTOR__DATA_DIR": str(folder / "predictor"),
        tickets_usecase.POINTER_VARIABLE: str(pointer),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setitem(stack.environment, name, value)
        yield dict(stack.environment)


def train(stack: Stack, data: DataSelection) -> Any:
    request = RetrainRequest(reason="a test", requested_by="a test", data=data)
    done = run_command(stack, "driftloop-train", "--request", request.model_dump_json())
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def registry(stack: Stack, environment: dict[str, str]) -> ModelRegistry:
    """The registry of tickets, whose first version is in service."""
    train(stack, usecase.first_version.model_copy(update={"archive": False}))
    return ModelRegistry(RegistrySettings(uri=environment["DRIFTLOOP_REGISTRY__URI"], model=usecase.name))


@pytest.fixture(scope="module")
def answers(
    stack: Stack, environment: dict[str, str], registry: ModelRegistry, served_rows: pd.DataFrame
) -> list[dict[str, Any]]:
    """The predictor's answers for the served rows, whose outcomes are reported by key; one row's is no class."""
    assert registry.champion() == "1"
    url = f"http://127.0.0.1:{environment['DRIFTLOOP_PREDICTOR__PORT']}"
    log = stack.folder / "logs" / "tickets-predictor.log"
    command = stack.components["predictor"].command
    variables = {**os.environ, **environment, "DRIFTLOOP_PREDICTOR__UNKNOWN_LABELS": "accept"}
    answers = []
    with (
        Server("tickets", command, variables, f"{url}/readyz", log, ROOT),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        for start in range(0, len(served_rows), ROWS_PER_REQUEST):
            rows = served_rows.iloc[start : start + ROWS_PER_REQUEST]
            instances = [
                {name: None if pd.isna(cell) else cell for name, cell in row.items()}
                for row in rows[usecase.features].astype(object).to_dict("records")
            ]
            for instance in instances:
                if instance["due"] is not None:
                    instance["due"] = instance["due"].isoformat()
            response = client.post(
                "/predict",
                json={"instances": instances, "keys": [f"ticket-{number}" for number in rows.index]},
                headers={"Driftloop-Time": rows["created"].iloc[0].isoformat()},
            )
            assert response.status_code == 200, response.text
            answers.append(response.json())

        def archived() -> bool | None:
            rows = sum(verdict.rows for verdict in verdicts_of(stack, DriftVerdict) or [])
            return True if rows == len(served_rows) else None

        wait_until(archived, "all predictions are in closed windows")  # an outcome before its prediction is unmatched
        outcomes = [
            {"key": f"ticket-{number}", "outcome": "spam" if number == 0 else team}
            for number, team in served_rows["team"].items()
        ]
        response = client.post("/outcomes", json={"outcomes": outcomes})
        assert response.status_code == 202, response.text
    return answers


def verdicts_of(stack: Stack, kind: type[Any]) -> list[Any] | None:
    events = reader.read_last(stack.kafka, "drift", 100_000)
    return [event for event in events if isinstance(event, kind) and event.model == usecase.name] or None


def test_answers_are_the_estimators_own_with_classes_and_labels(
    registry: ModelRegistry, answers: list[dict[str, Any]], served_rows: pd.DataFrame
) -> None:
    features = served_rows[usecase.features]
    expected = registry.load("1").estimator
    predictions = np.array([line for answer in answers for line in answer["predictions"]])
    np.testing.assert_allclose(predictions, expected.predict_proba(features), atol=1e-12)
    assert [label for answer in answers for label in answer["labels"]] == expected.predict(features).tolist()
    assert {tuple(answer["classes"]) for answer in answers} == {TEAMS}


@pytest.mark.usefixtures("answers")
def test_events_have_keys_and_the_window_is_judged_by_columns_of_every_kind(stack: Stack) -> None:
    events = [event for event in reader.read_last(stack.kafka, "predictions", 100_000) if isinstance(event, Prediction)]
    keys = [key for event in events if event.model == usecase.name for key in event.keys or []]
    assert len(keys) == len(set(keys)) == WINDOW_ROWS
    profile = load_reference(ObjectStore(stack.storage), usecase.name, "1").profile
    assert profile.kinds == usecase.monitored_kinds
    verdict: DriftVerdict = wait_until(lambda: verdicts_of(stack, DriftVerdict), "a window of tickets is judged")[0]
    if verdict.verdict != "inconclusive":  # requests of other tests can divide the window
        assert {finding.column for finding in verdict.findings} == set(usecase.monitored_kinds)


@pytest.mark.usefixtures("answers")
def test_quality_counts_a_label_that_is_no_class(stack: Stack) -> None:
    def evaluated() -> QualityVerdict | None:
        verdicts = verdicts_of(stack, QualityVerdict) or []
        return next((one for one in verdicts if one.in_service is not None and one.unknown_labels), None)

    verdict = wait_until(evaluated, "the quality of tickets is evaluated")
    assert verdict.unknown_labels == {"spam": 1}
    assert verdict.in_service is not None
    assert {"accuracy", "brier", "log_loss", "calibration_error"} <= set(verdict.in_service.metrics)
    assert 0.5 < verdict.in_service.metrics["accuracy"].value < 1


@pytest.mark.usefixtures("answers")
def test_retrain_compares_classes_and_learns_from_archived_labels(stack: Stack, registry: ModelRegistry) -> None:
    wait_until(lambda: verdicts_of(stack, QualityVerdict), "outcomes are archived")
    train(stack, DataSelection())
    version = registry.client.get_model_version(usecase.name, "2")
    run = registry.client.get_run(version.run_id).data
    assert registry.champion() == "2", version.description
    assert run.metrics["champion_roc_auc_ovr"] < run.metrics["challenger_roc_auc_ovr"]
    assert run.metrics["challenger_detectable_gain"] > 0
    candidates = {name: value for name, value in run.metrics.items() if name.startswith("candidate/")}
    assert run.params["candidate"] == "default"
    assert len(candidates) == 2
    assert candidates["candidate/default/roc_auc_ovr"] == max(candidates.values())
    assert int(run.params["archived_labelled"]) == WINDOW_ROWS - 1
    assert int(run.params["unknown_labels"]) == 1
