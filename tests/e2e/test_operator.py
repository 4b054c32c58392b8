"""The operator's commands and requests: rollback, retrain states, explain, shadow, probation job."""

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import httpx
import mlflow
import pandas as pd
import pytest
from mlflow.models import infer_signature

from driftloop.drift.calibration import calibrate
from driftloop.events import PREDICTION_COLUMN, DataSelection, ModelStateChanged, RetrainRequested, frame_to_columns
from driftloop.kafka import reader
from driftloop.kafka.publisher import Publisher
from driftloop.registry.rollback import roll_back
from driftloop.registry.trusted_types import TRUSTED_TYPES
from driftloop.settings import RegistrySettings
from driftloop.storage import reference_store
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import Reference
from driftloop_cli import explain_search
from driftloop_cli.explain_search import locate
from driftloop_cli.settings import StorageCliSettings
from stack.running import Stack
from tests.support.running_stack import FLIGHT, isolated_settings, predict, run_command, serves_version
from tests.support.waiting import wait_until
from usecases.flights import usecase

WINDOW_ROWS = 200
"""Rows of a window; a request has half as many."""
FIRST_DAY, DAYS = date(2013, 3, 1), 6
TRAINING_DAYS = {"1": (date(2013, 1, 1), date(2013, 1, 21)), "2": (date(2013, 2, 1), date(2013, 2, 8))}
"""First day and the day after the last one, by version."""


class AnsweredRequest(NamedTuple):
    """A prediction request, its response, and the outcomes of its rows."""

    id: str
    predictions: list[float]
    outcomes: list[float | None]
    at: datetime
    """The time of the event."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a stack with small windows, whose idle timeout is long enough for tests of open windows."""
    extra = {
        "DRIFTLOOP_WINDOW__ROWS": str(WINDOW_ROWS),
        "DRIFTLOOP_WINDOW__IDLE_TIMEOUT_SECONDS": "40",
        "DRIFTLOOP_PREDICTOR__ALIAS_POLL_INTERVAL_SECONDS": "0.5",
        "DRIFTLOOP_POLICY__ENABLED": "false",
    }
    with Stack(isolated_settings(tmp_path_factory.mktemp("operating")), print, extra) as stack:
        yield stack


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return usecase.load_rows()


@pytest.fixture(scope="module", autouse=True)
def versions(stack: Stack, rows: pd.DataFrame) -> dict[str, Any]:
    """Register two versions with few training rows; version 1 serves and has a reference. Return their estimators."""
    estimators = {}
    for version, (start, end) in TRAINING_DAYS.items():
        training_rows = usecase.rows_between(rows, start, end)
        labelled = training_rows[training_rows[usecase.target].notna()]
        estimator = usecase.make_pipeline().fit(labelled[usecase.features], labelled[usecase.target].astype(int))
        mlflow.set_experiment(usecase.name)
        with mlflow.start_run():
            mlflow.set_tags({"reason": f"number {version}", "requested_by": "a test", "git_revision": "abc123"})
            mlflow.log_param("trained_through", training_rows[usecase.timestamp].max())
            mlflow.log_text(usecase.dvc_file.read_text(), "dataset/flights.parquet.dvc")
            logged_model = mlflow.sklearn.log_model(
                estimator,
                name="model",
                signature=infer_signature(rows[usecase.features], pd.Series([0.5], name="prediction")),
                input_example=training_rows[usecase.features].head(2),
                serialization_format="skops",
                skops_trusted_types=list(TRUSTED_TYPES),
                pyfunc_predict_fn="predict_proba",
                pip_requirements=["scikit-learn"],
            )
        assert stack.registry.create_version(logged_model.model_uri, f"retrain-{version}", {}) == version
        if version == "1":
            reference_rows = training_rows[usecase.features].assign(
                **{PREDICTION_COLUMN: estimator.predict_proba(training_rows[usecase.features])[:, 1]}
            )
            profile = calibrate(
                reference_rows,
                usecase.day_ordinals(training_rows[usecase.timestamp]),
                usecase.monitored_kinds,
                window_rows=WINDOW_ROWS,
                false_alarm_rate=0.01,
            )
            run_id = stack.registry.identified(version).run_id
            reference_store.save_reference(
                ObjectStore(stack.storage), usecase.name, version, Reference(reference_rows, profile), run_id
            )
        estimators[version] = estimator
    stack.registry.promote("1")
    wait_until(lambda: serves_version(stack, "1"), "version 1 serves")
    return estimators


@pytest.fixture(scope="module")
def answered_requests(stack: Stack, rows: pd.DataFrame) -> list[AnsweredRequest]:
    """Request predictions for the rows of six days, report their outcomes, and wait until both are archived."""
    url = stack.components["predictor"].url
    requests: list[AnsweredRequest] = []
    for day in range(DAYS):
        start = FIRST_DAY + timedelta(days=day)
        rows_of_day = usecase.rows_between(rows, start, start + timedelta(days=1)).head(WINDOW_ROWS)
        for request_rows in (rows_of_day[: WINDOW_ROWS // 2], rows_of_day[WINDOW_ROWS // 2 :]):
            at = request_rows[usecase.timestamp].iloc[0].to_pydatetime()
            columns = frame_to_columns(request_rows[usecase.features])
            instances = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
            response = httpx.post(
                f"{url}/predict", json={"instances": instances}, headers={"Driftloop-Time": at.isoformat()}, timeout=30
            ).json()
            outcomes = [None if pd.isna(outcome) else float(outcome) for outcome in request_rows[usecase.target]]
            requests.append(AnsweredRequest(response["id"], response["predictions"], outcomes, at))
    report_outcomes(
        stack,
        [
            (request.id, n, outcome)
            for request in requests
            for n, outcome in enumerate(request.outcomes)
            if outcome is not None
        ],
    )
    store = ObjectStore(stack.storage)
    wait_until(lambda: len(store.list_objects("slices/predictions/")) >= DAYS or None, "the predictions are archived")
    wait_until(lambda: len(store.list_objects("slices/outcomes/")) >= DAYS - 1 or None, "the outcomes are archived")
    return requests


def report_outcomes(stack: Stack, outcomes: Sequence[tuple[str, int, float]], at: datetime | None = None) -> None:
    """Report outcomes, each with prediction id and row, as known at a time."""
    body = {
        "outcomes": [
            {"id": prediction_id, "index": row, "outcome": outcome} for prediction_id, row, outcome in outcomes
        ]
    }
    headers = {"Driftloop-Time": at.isoformat()} if at else {}
    httpx.post(
        stack.components["predictor"].url + "/outcomes", json=body, headers=headers, timeout=30
    ).raise_for_status()


def api_key_header(stack: Stack) -> dict[str, str]:
    """Return the header with the trainer's API key."""
    return {"X-API-Key": stack.environment["DRIFTLOOP_TRAINER__API_KEY"]}


def test_rollback_command_without_target_version_exits_with_7(stack: Stack) -> None:
    for arguments, expected_error in (
        ((), "no version to roll back to"),
        (("--to", "9"), "flights has no version 9; its versions are 1, 2"),
    ):
        rejected = run_command(stack, "driftloop", "rollback", *arguments)
        assert (rejected.returncode, rejected.stderr.startswith(expected_error)) == (7, True), (
            rejected.stdout + rejected.stderr
        )
    assert stack.registry.champion() == "1"


def test_predictor_follows_published_rollback(stack: Stack) -> None:
    stack.registry.promote("2")
    wait_until(lambda: serves_version(stack, "2"), "version 2 serves")
    with Publisher(stack.kafka, stack.topics, "test") as publisher:
        change = roll_back(stack.registry, "it was slow")
        publisher.publish(change)
    assert (change.version, change.trained_through is not None) == ("1", True)
    wait_until(lambda: serves_version(stack, "1"), "version 1 serves again")


def test_rollback_command_publishes_the_state(stack: Stack) -> None:
    stack.registry.promote("2")
    done = run_command(stack, "driftloop", "rollback", "--reason", "wrong units")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == "version 1 serves again instead of version 2: wrong units"
    last = reader.read_last(stack.kafka, "models", 1)[-1]
    assert isinstance(last, ModelStateChanged)
    assert (last.state, last.version, last.retrain_id) == ("rolled_back", "1", "retrain-2")
    rolled_back = stack.registry.client.get_model_version("flights", "2")
    assert rolled_back.description.endswith(f"rolled_back: {done.stdout.strip()}")
    retrains = status_of_flights(stack)["retrains"]
    assert [(change["state"], change["version"]) for change in retrains[-1:]] == [("rolled_back", "1")]
    wait_until(lambda: serves_version(stack, "1"), "version 1 serves again")


def test_rollback_over_http_requires_key_and_swaps_the_alias(stack: Stack) -> None:
    url = stack.components["trainer"].url + "/rollback"
    assert httpx.post(url, json={"reason": "units"}).status_code == 401
    stack.registry.promote("2")
    done = httpx.post(url, json={"reason": "units"}, headers=api_key_header(stack), timeout=30)
    assert done.status_code == 200, done.text
    assert done.json()["explanation"] == "version 1 serves again instead of version 2: units"
    assert stack.registry.champion() == "1"
    repeated = httpx.post(url, json={"reason": "units"}, headers=api_key_header(stack), timeout=30)
    assert repeated.status_code == 409
    assert "no version to roll back to" in repeated.json()["detail"]


def test_retrain_states_are_streamed_over_http(stack: Stack) -> None:
    url = stack.components["trainer"].url + "/retrain"
    assert httpx.get(f"{url}/unknown", headers=api_key_header(stack), timeout=30).status_code == 404
    body = {"reason": "no labelled rows", "data": {"start": "2014-06-01", "archive": False}}
    retrain_id = httpx.post(url, json=body, headers=api_key_header(stack), timeout=30).json()["id"]
    with httpx.stream(
        "GET", f"{url}/{retrain_id}", params={"wait": True}, headers=api_key_header(stack), timeout=90
    ) as stream:
        states = [json.loads(line) for line in stream.iter_lines() if line]  # an empty one is a heartbeat
    assert states[0]["state"] == "training"
    assert states[-1]["state"] == "failed"
    so_far = httpx.get(f"{url}/{retrain_id}", headers=api_key_header(stack), timeout=30).json()
    assert so_far == states
    last = httpx.get(url, headers=api_key_header(stack), timeout=30).json()[0]
    assert (last["retrain_id"], last["state"], last["reason"]) == (retrain_id, "failed", "no labelled rows")
    assert last["requested_by"] == "API key"


def test_retrain_of_unknown_model_exits_with_7_and_of_a_known_one_without_trainer_warns(stack: Stack) -> None:
    request = ("driftloop", "retrain", "--reason", "a test", "--dry-run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(stack.environment, "DRIFTLOOP_REGISTRY__MODEL", "unknown")
        refused = run_command(stack, *request)
        stack.registry.client.create_registered_model("without-trainer")
        patch.setitem(stack.environment, "DRIFTLOOP_REGISTRY__MODEL", "without-trainer")
        warned = run_command(stack, *request)
    assert (refused.returncode, refused.stdout) == (7, ""), refused.stderr
    assert "there is no model unknown" in refused.stderr
    assert (warned.returncode, "no trainer of without-trainer runs" in warned.stderr) == (0, True), warned.stderr
    silent = run_command(stack, *request)
    assert (silent.returncode, silent.stderr) == (0, "")


def test_status_of_all_models_says_for_which_a_trainer_runs(stack: Stack) -> None:
    stack.registry.client.create_registered_model("cars")
    result = run_command(stack, "driftloop", "status", "--all", "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    trainers = {model["model"]: model["trainer"] for model in json.loads(result.stdout)["models"]}
    assert (trainers["flights"], trainers["cars"]) == ("runs", "does not run")


def status_of_flights(stack: Stack) -> dict[str, Any]:
    """Return what the command prints about the model."""
    result = run_command(stack, "driftloop", "status", "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    (model,) = json.loads(result.stdout)["models"]
    return dict(model)


def test_trainer_rejects_ninth_state_stream_and_stays_healthy(stack: Stack) -> None:
    """Open eight streams of a retrain that never ends, because no trainer has its model; the ninth gets 503."""
    event = RetrainRequested(
        model="without-trainer", trigger="manual", reason="", requested_by="a test", data=DataSelection()
    )
    with Publisher(stack.kafka, stack.topics, "test") as publisher:
        publisher.publish(event)
    url = stack.components["trainer"].url
    stream_url = f"{url}/retrain/{event.id}?wait=true"
    with ExitStack() as streams:
        for _ in range(8):
            stream = streams.enter_context(httpx.stream("GET", stream_url, headers=api_key_header(stack), timeout=30))
            assert stream.status_code == 200
        rejected = httpx.get(stream_url, headers=api_key_header(stack), timeout=30)
        assert (rejected.status_code, rejected.headers["Retry-After"]) == (503, "10")
        assert httpx.get(f"{url}/healthz", timeout=5).status_code == 200

    def stream_is_accepted() -> bool | None:
        with httpx.stream("GET", stream_url, headers=api_key_header(stack), timeout=30) as stream:
            return True if stream.status_code == 200 else None

    wait_until(stream_is_accepted, "a stream is accepted after others were closed", seconds=20)


def test_explain_shows_row_outcome_verdict_and_version_of_prediction(
    stack: Stack, answered_requests: list[AnsweredRequest]
) -> None:
    request = next(request for request in answered_requests[3:] if request.outcomes[7] is not None)
    correction = 1 - int(request.outcomes[7] or 0)
    report_outcomes(stack, [(request.id, 7, float(correction))])
    result = run_command(stack, "driftloop", "explain", request.id, "--row", "7")
    assert result.returncode == 0, result.stdout + result.stderr
    for term in (
        f"{request.at:%Y-%m-%d %H:%M:%S} by version 1 of flights",
        f"prediction {request.predictions[7]}",
        "carrier=",
        f"outcome {correction}, known at 20",
        f"(corrected: before it was {1 - correction}, known at",
        "slices/predictions/predictions-0-",
        "on 200 rows of version 1: score",
        "1 @champion",
        "requested by a test: number 1",
        "dataset flights.parquet, ",
        "abc123",
        usecase.dvc_file.read_text().split("md5: ")[1].split()[0],
        f"gs://driftloop/references/flights/1/{stack.registry.identified('1').run_id}",
    ):
        assert term in " ".join(result.stdout.split()), f"{term}\n{result.stdout}"


def test_explain_prints_facts_as_json(stack: Stack, answered_requests: list[AnsweredRequest]) -> None:
    request = answered_requests[0]
    result = run_command(stack, "driftloop", "explain", request.id, "--row", "7", "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    facts = json.loads(result.stdout)
    (row,) = facts["rows"]
    assert (row["row"], row["prediction"]) == (7, request.predictions[7])
    assert (facts["registered"]["aliases"], facts["registered"]["git_revision"]) == (["champion"], "abc123")
    assert facts["verdict"]["rows"] >= WINDOW_ROWS  # rows that an earlier test has sent can be in the same window


def test_explain_shows_prediction_that_is_not_archived_yet(
    stack: Stack, answered_requests: list[AnsweredRequest]
) -> None:
    assert answered_requests
    response = predict(stack, FLIGHT).json()
    report_outcomes(stack, [(response["id"], 0, 1.0)])
    result = run_command(stack, "driftloop", "explain", response["id"])
    assert result.returncode == 0, result.stdout + result.stderr
    assert "not judged yet: its window is still open" in result.stdout
    assert "1, known at" in result.stdout
    assert "carrier=UA" in result.stdout


def test_explain_of_unknown_id_exits_with_7(stack: Stack, answered_requests: list[AnsweredRequest]) -> None:
    assert answered_requests
    unknown_id = "0197c8a4-0000-7000-8000-000000000001"
    result = run_command(stack, "driftloop", "explain", unknown_id)
    assert result.returncode == 7
    assert result.stdout == ""
    expected = f"prediction {unknown_id} is of 2025-07-02, and the archive has predictions since 20"
    assert result.stderr.startswith(expected)


def test_locate_searches_latest_windows_for_id_without_timestamp(
    stack: Stack, answered_requests: list[AnsweredRequest]
) -> None:
    settings = StorageCliSettings(
        kafka=stack.kafka, registry=RegistrySettings(model="flights"), storage=stack.storage, topics=stack.topics
    )
    store = ObjectStore(stack.storage)
    assert locate(settings, store, "nothing") is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explain_search, "event_id_time", lambda _: None)
        located = locate(settings, store, answered_requests[0].id)
    assert located is not None
    assert [prediction for prediction, _ in located.rows] == answered_requests[0].predictions
    assert located.verdict is not None


def test_shadow_evaluates_version_on_archived_rows(
    stack: Stack, answered_requests: list[AnsweredRequest], versions: dict[str, Any], rows: pd.DataFrame
) -> None:
    """Compare the Brier score that the command prints with the estimator's own on the same rows."""
    labelled = sum(outcome is not None for request in answered_requests for outcome in request.outcomes)

    def shadow_of_all_rows() -> "subprocess.CompletedProcess[str] | None":
        result = run_command(stack, "driftloop", "shadow", "--version", "2")
        assert result.returncode == 0, result.stdout + result.stderr
        match = re.match(r"([\d,]+) rows of \d days, predicted by version 1 \(\1\)", result.stdout)
        assert match is not None, result.stdout
        # The last slice may still be open, and a row of another test may be archived by now.
        return result if int(match[1].replace(",", "")) - labelled in (0, 1) else None

    result = wait_until(shadow_of_all_rows, "all rows are archived")
    assert "are too good" not in result.stdout
    assert re.search(r"│ ROC AUC +│ 0\.\d+ \[0\.\d+, 0\.\d+\] +│ 0\.\d+ \[[^│]*\] +│ [+-]0\.\d+ \[", result.stdout)
    facts = json.loads(run_command(stack, "driftloop", "shadow", "--version", "2", "--json").stdout)
    rows_of_days = usecase.rows_between(rows, FIRST_DAY, FIRST_DAY + timedelta(days=DAYS))
    archived_rows = pd.concat(
        [day.head(WINDOW_ROWS) for _, day in rows_of_days.groupby(usecase.local_dates(rows_of_days[usecase.timestamp]))]
    )
    predictions = versions["2"].predict_proba(archived_rows[usecase.features])[:, 1]
    has_outcome = archived_rows[usecase.target].notna().to_numpy()
    brier = ((predictions[has_outcome] - archived_rows[usecase.target].to_numpy()[has_outcome]) ** 2).mean()
    match = re.search(r"│ Brier score +│[^│]+│ (0\.\d+)", result.stdout)
    assert match is not None, result.stdout
    assert float(match[1]) == pytest.approx(brier, abs=0.002)  # the row of another test may be among them
    assert facts["shadowed"]["metrics"]["brier"]["value"] == pytest.approx(brier, abs=0.002)


def test_shadow_of_unknown_version_exits_with_7(stack: Stack, answered_requests: list[AnsweredRequest]) -> None:
    assert answered_requests
    result = run_command(stack, "driftloop", "shadow", "--version", "9")
    assert (result.returncode, "version 9: the registry does not have it" in result.stderr) == (7, True), result.stderr


def test_probation_job_compares_version_with_previous_version(
    stack: Stack, answered_requests: list[AnsweredRequest]
) -> None:
    assert answered_requests
    stack.registry.promote("2")
    stack.registry.promote("1")
    result = run_command(stack, "python", "-m", "trainer.probation.job")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.startswith("version 1 ")
    assert f"rows of {DAYS} days since its promotion, and the version before would have had" in result.stdout
