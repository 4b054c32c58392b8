"""The loop on the real stack: request to event, event to verdict, retrain event to swap."""

import re
import threading
from datetime import date, timedelta
from hashlib import md5
from pathlib import Path

import duckdb
import httpx
import numpy as np
import pandas as pd
import pytest

from driftloop.drift.profile_summary import TAG_SMALLEST_SHIFTS, TAG_STRETCHES
from driftloop.evaluation.metrics import roc_auc
from driftloop.events import (
    RESERVED_COLUMNS,
    DataSelection,
    DriftVerdict,
    Event,
    Prediction,
    QualityEstimate,
    QualityVerdict,
    now,
)
from driftloop.kafka import reader
from driftloop.retrain_states import states_until_final
from driftloop.storage import dvc
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import load_gate_evaluation, load_reference
from stack.running import Stack
from tests.support.running_stack import FLIGHT, HOLDOUT_DAYS, WINDOW_ROWS, predict, run_command, serves_version
from tests.support.waiting import wait_until
from trainer.retrain import holdout as holdout_split
from trainer.retrain import training, training_set
from usecases.flights import usecase

FEW_DAYS = DataSelection(start=date(2013, 3, 5), base_end=date(2013, 4, 13), archive=False)
SUMMER = DataSelection(start=date(2013, 6, 1), base_end=date(2013, 8, 1), archive=False)

pytestmark = pytest.mark.usefixtures("version_1")


def test_predict_publishes_event_with_predictions_of_the_response(stack: Stack) -> None:
    response = predict(stack, FLIGHT, {**FLIGHT, "carrier": "DL"}).json()
    assert (response["model"], response["version"], len(response["predictions"])) == ("flights", "1", 2)
    assert all(0 < prediction < 1 for prediction in response["predictions"])
    (event,) = wait_until(lambda: published_events(stack, response["id"]) or None, "the event is on the topic")
    assert isinstance(event, Prediction)
    assert event.version == "1"
    assert event.predictions == response["predictions"]
    assert event.features == {name: [FLIGHT[name], "DL" if name == "carrier" else FLIGHT[name]] for name in FLIGHT}


def test_predict_responds_with_offline_prediction_of_the_named_version(stack: Stack) -> None:
    response = predict(stack, FLIGHT).json()
    stored = stack.registry.load("1")
    offline = stored.estimator.predict_proba(pd.DataFrame([FLIGHT], columns=usecase.features))[0, 1]
    assert response["predictions"][0] == pytest.approx(offline, abs=1e-12)


def test_predict_rejects_invalid_instance_with_its_field_and_publishes_no_event(stack: Stack) -> None:
    invalid = predict(stack, FLIGHT, {**FLIGHT, "distance": "far"})
    assert invalid.status_code == 422
    (error,) = invalid.json()["detail"]
    assert error["loc"] == ["body", "instances", 1, "distance"]
    assert "integer" in error["msg"]
    valid = predict(stack, {**FLIGHT, "distance": 1401}).json()
    wait_until(lambda: published_events(stack, valid["id"]) or None, "the event of the next request is on the topic")
    events = [e for e in reader.read_last(stack.kafka, "predictions", 100) if isinstance(e, Prediction)]
    assert not [event for event in events if "far" in event.features["distance"]]


def test_openapi_has_signature_and_valid_example(stack: Stack) -> None:
    page = httpx.get(stack.components["predictor"].url + "/openapi.json").json()
    body = page["components"]["schemas"]["Instances"]
    row = page["components"]["schemas"]["Instance"]
    assert set(row["properties"]) == set(usecase.features)
    assert {"temp", "wind_gust"}.isdisjoint(row["required"])
    assert predict(stack, *body["example"]["instances"]).status_code == 200


def test_docs_pages_load_files_from_their_own_service_only(stack: Stack) -> None:
    for service in ("predictor", "drift_worker", "trainer"):
        url = stack.components[service].url
        sources = re.findall(r'(?:src|href)="([^"]+)"', httpx.get(f"{url}/docs").text)
        assert any(source.endswith(".js") for source in sources)
        for source in sources:
            assert source.startswith("/")
            assert httpx.get(url + source).status_code == 200


def test_drift_worker_publishes_verdict_and_archives_window(stack: Stack) -> None:
    produced = run_command(
        stack, "driftloop-producer", *("--from", "2013-01-10", "--to", "2013-01-13", "--rate", "max", "--rows", "50")
    )
    assert produced.returncode == 0, produced.stdout + produced.stderr
    assert "status    200: " in produced.stdout
    assert "version   1: " in produced.stdout
    assert "p50" in produced.stdout

    def conclusive_verdict() -> DriftVerdict | None:
        verdicts = [e for e in reader.read_last(stack.kafka, "drift", 300) if isinstance(e, DriftVerdict)]
        return next(
            (e for e in verdicts if e.verdict != "inconclusive" and e.first_prediction_at.date() == date(2013, 1, 10)),
            None,
        )

    verdict = wait_until(conclusive_verdict, "a conclusive verdict is published")
    assert verdict.verdict == "no_drift", verdict.explanation
    assert verdict.rows >= WINDOW_ROWS
    assert {finding.column for finding in verdict.findings} == {*usecase.features, "_prediction"}
    store = ObjectStore(stack.storage)
    rows = pd.concat(store.read_parquet(url.removeprefix(store.url(""))) for url in verdict.archive)
    assert set(usecase.features) < set(rows.columns) <= set(usecase.features) | RESERVED_COLUMNS
    assert verdict.rows <= len(rows)
    metrics = httpx.get(stack.components["drift_worker"].url + "/metrics").text
    assert 'driftloop_drift_window_score{model="flights",version="1"}' in metrics


def test_drift_worker_publishes_quality_verdict_and_estimate(stack: Stack) -> None:
    """Evaluate the rows that the test of the archived window has streamed, with their outcomes."""

    def quality_verdict() -> QualityVerdict | None:
        verdicts = [e for e in reader.read_last(stack.kafka, "drift", 300) if isinstance(e, QualityVerdict)]
        return next((e for e in verdicts if e.model == "flights" and e.rows >= WINDOW_ROWS / 2), None)

    quality = wait_until(quality_verdict, "a quality verdict is published")
    assert quality.in_service is not None
    roc_auc_estimate = quality.in_service.metrics["roc_auc"]
    assert 0.5 < roc_auc_estimate.low < roc_auc_estimate.value < roc_auc_estimate.high < 1
    assert quality.version == "1"
    assert quality.at_gate is not None  # on the latest days of its own training data, before it was trained on them too
    assert quality.at_gate.days == HOLDOUT_DAYS
    assert quality.verdict != "inconclusive"
    events = reader.read_last(stack.kafka, "drift", 300)
    estimates = [e.metrics["roc_auc"] for e in events if isinstance(e, QualityEstimate) and e.model == "flights"]
    assert estimates
    assert all(0.5 <= estimate < 1 for estimate in estimates)
    metrics = httpx.get(stack.components["drift_worker"].url + "/metrics").text
    for name in ("quality", "quality_low", "quality_high", "quality_estimate"):
        assert f'driftloop_{name}{{metric="roc_auc",model="flights",version="1"}}' in metrics


def test_reference_of_version_is_in_the_bucket(stack: Stack) -> None:
    reference = load_reference(ObjectStore(stack.storage), "flights", "1")
    compared = {*usecase.features, "_prediction"}
    assert set(reference.rows.columns) == compared
    assert reference.profile.window_rows == WINDOW_ROWS
    for span in reference.profile.spans:
        assert {normal.column for normal in span.null_distributions} == compared
    assert set(reference.profile.importance) == set(usecase.features)


def test_changed_season_raises_alarm_that_names_drifted_columns(stack: Stack) -> None:
    produced = run_command(
        stack, "driftloop-producer", *("--from", "2013-07-10", "--to", "2013-07-13", "--rate", "max", "--rows", "50")
    )
    assert produced.returncode == 0, produced.stdout + produced.stderr

    def alarm() -> DriftVerdict | None:
        verdicts = [e for e in reader.read_last(stack.kafka, "drift", 300) if isinstance(e, DriftVerdict)]
        return next((e for e in verdicts if e.verdict == "drift" and e.first_prediction_at.month == 7), None)

    assert "temp" in wait_until(alarm, "an alarm is published").drifted_columns


def test_alarm_has_page_and_report_without_a_request(stack: Stack) -> None:
    url = stack.components["drift_worker"].url

    def newest_alarm() -> str | None:
        alarms = re.findall(r'<li><a class="drift" href="/windows/([^"]+)"', httpx.get(url).text)
        return alarms[-1] if alarms else None

    window, model, version = wait_until(newest_alarm, "the overview shows an alarm").split("/")
    page = httpx.get(f"{url}/windows/{window}/{model}/{version}", timeout=30)
    assert page.status_code == 200
    assert "<b>temp</b>" in page.text
    store = ObjectStore(stack.storage)
    path = f"reports/{model}/{version}/{window}.html"
    wait_until(lambda: store.exists(path) or None, "the report is in the bucket", seconds=180)
    assert path in store.list_modified_before("reports/", now() + timedelta(minutes=1))
    assert store.list_modified_before("reports/", now() - timedelta(days=1)) == []
    report = httpx.get(f"{url}/reports/{model}/{version}/{window}", timeout=30)
    assert report.status_code == 200
    assert "Wasserstein distance (normed)" in report.text
    metrics = httpx.get(f"{url}/metrics").text
    assert 'driftloop_drift_reports_total{state="rendered"}' in metrics


def test_gate_rejects_worse_challenger_and_champion_still_serves(stack: Stack) -> None:
    url = stack.components["trainer"].url + "/retrain"
    champion = str(stack.registry.champion())
    body = {"reason": "a few days only", "data": FEW_DAYS.model_dump(mode="json")}
    assert httpx.post(url, json=body).status_code == 401
    with reader.tail(stack.kafka, "models") as state_stream:
        response = httpx.post(url, json=body, headers={"X-API-Key": stack.environment["DRIFTLOOP_TRAINER__API_KEY"]})
        assert response.status_code == 202
        states = [change for change in states_until_final(response.json()["id"], state_stream) if change]
    assert {change.state for change in states[:-1]} == {"training"}
    assert states[-1].state == "rejected"
    assert "(non_inferiority)" in states[-1].explanation
    assert stack.registry.champion() == champion
    assert serves_version(stack, champion)


def test_retrain_without_labelled_rows_fails_with_explanation(stack: Stack) -> None:
    done = run_command(
        stack,
        *("driftloop", "retrain", "--reason", "no labelled rows", "--wait", "--no-archive"),
        *("--from", "2014-06-01"),
    )
    assert done.returncode == 4, done.stdout + done.stderr
    assert (
        "failed: InvalidTrainingData: labelled rows: 0 of 0, and 1,000 are needed (DRIFTLOOP_DATA__MIN_LABELLED_ROWS)"
        in done.stdout
    )
    assert serves_version(stack, str(stack.registry.champion()))


def test_retrain_with_too_few_rows_for_a_reference_fails_before_training(stack: Stack) -> None:
    done = run_command(
        stack, *("driftloop", "retrain", "--reason", "the latest", "--wait", "--no-archive", "--last-rows", "15000")
    )
    assert done.returncode == 4, done.stdout + done.stderr
    assert "more rows are needed, or no DRIFTLOOP_WINDOW__ROWS" in done.stdout
    assert "trains on" not in done.stdout


def test_swap_to_promoted_challenger_under_load_fails_no_request(stack: Stack) -> None:
    stop = threading.Event()
    responses: list[httpx.Response] = []

    def send_requests() -> None:
        with httpx.Client(base_url=stack.components["predictor"].url, timeout=30) as client:
            while not stop.is_set():
                responses.append(client.post("/predict", json={"instances": [FLIGHT]}))

    threads = [threading.Thread(target=send_requests) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        change = stack.retrain("it is summer", SUMMER, lambda _: None)
        assert change.state == "promoted", change.explanation
        wait_until(lambda: responses[-1].json().get("version") == change.version or None, "the new version serves")
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert {response.status_code for response in responses} == {200}
    versions = [response.json()["version"] for response in responses]
    assert set(versions) == {"1", change.version}
    assert change.challenger["roc_auc"] > change.champion["roc_auc"]
    evaluation = load_gate_evaluation(ObjectStore(stack.storage), "flights", str(change.version))
    assert evaluation is not None
    assert evaluation.metrics["roc_auc"].value == pytest.approx(change.challenger["roc_auc"], abs=1e-12)
    assert (evaluation.rows, evaluation.days) == (change.challenger["rows"], HOLDOUT_DAYS)
    wait_until(lambda: published_events(stack, responses[-1].json()["id"]) or None, "the last event is on the topic")
    events = {e.id: e for e in reader.read_last(stack.kafka, "predictions", 10**6) if isinstance(e, Prediction)}
    for response in responses:
        body = response.json()
        assert (events[body["id"]].version, events[body["id"]].predictions) == (body["version"], body["predictions"])


def test_registry_has_reason_metrics_revision_and_dataset_of_version(stack: Stack) -> None:
    version = stack.registry.client.get_model_version_by_alias("flights", "champion")
    run = stack.registry.client.get_run(version.run_id)
    assert "ROC AUC" in version.description
    assert version.tags[TAG_STRETCHES]
    assert "sched_dep_time" in version.tags[TAG_SMALLEST_SHIFTS]
    assert run.data.tags["reason"] == "it is summer"
    assert run.data.metrics["challenger_roc_auc"] > run.data.metrics["champion_roc_auc"]
    assert run.data.tags["git_revision"]
    pointer = dvc.pointer_for_version(stack.registry, str(version.version))
    assert dvc.parse_pointer(pointer).name == "flights.parquet"


def test_restored_dataset_is_identical_and_reproduces_challenger_metric(stack: Stack, tmp_path: Path) -> None:
    """Restore from bucket and registry alone, train on the result, and compare the ROC AUC on the holdout."""
    version = stack.registry.client.get_model_version_by_alias("flights", "champion")
    run = stack.registry.client.get_run(version.run_id)
    pointer = dvc.parse_pointer(dvc.pointer_for_version(stack.registry, str(version.version)))
    done = run_command(stack, "driftloop", "data", "restore", str(version.version), "--to", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    restored = tmp_path / pointer.name
    assert md5(restored.read_bytes(), usedforsecurity=False).hexdigest() == pointer.md5

    training_rows, holdout = holdout_split.split(usecase, training_set.read(restored), HOLDOUT_DAYS)
    estimator, _ = training.train(usecase, training_rows)
    scores = training.predict(usecase, estimator, holdout)
    auc = roc_auc(holdout[usecase.target].to_numpy(dtype=np.float64), scores)
    assert auc == pytest.approx(run.data.metrics["challenger_roc_auc"], abs=1e-9)


def test_drift_worker_archives_outcomes(stack: Stack) -> None:
    response = predict(stack, FLIGHT).json()
    reported = httpx.post(
        stack.components["predictor"].url + "/outcomes",
        json={"outcomes": [{"id": response["id"], "index": 0, "outcome": 1}]},
    )
    assert (reported.status_code, reported.json()) == (202, {"accepted": 1, "unmatchable": 0})

    def archived() -> pd.DataFrame | None:
        store = ObjectStore(stack.storage)
        frames = [store.read_parquet(path) for path, *_ in store.list_objects("slices/outcomes/")]
        rows = pd.concat(frames) if frames else pd.DataFrame({"_id": []})
        rows = rows[rows["_id"] == response["id"]]
        return rows if len(rows) else None

    assert wait_until(archived, "the outcome is archived")["outcome"].tolist() == [1.0]


def test_duckdb_joins_predictions_with_outcomes_in_the_bucket(stack: Stack) -> None:
    store = ObjectStore(stack.storage)
    import gcsfs  # noqa: PLC0415  # see ObjectStore

    duckdb.register_filesystem(
        gcsfs.GCSFileSystem(token="anon", endpoint_url=stack.storage.endpoint, use_listings_cache=False)
    )

    def joined_statistics() -> tuple[int, float] | None:
        """Return count and Brier score if pandas and DuckDB agree; they differ if a slice closes in between."""
        predictions, outcomes = (
            pd.concat(store.read_parquet(path) for path, *_ in store.list_objects(f"slices/{topic}/"))
            for topic in ("predictions", "outcomes")
        )
        joined_rows = predictions.merge(outcomes, on=["_id", "_row"])
        result = duckdb.sql(
            "SELECT count(*), avg((_prediction - outcome) ** 2) FROM 'gs://driftloop/slices/predictions/*.parquet' "
            "JOIN 'gs://driftloop/slices/outcomes/*.parquet' USING (_id, _row)"
        )
        assert result is not None
        ((rows, brier),) = result.fetchall()
        expected = ((joined_rows["_prediction"] - joined_rows["outcome"]) ** 2).mean()
        return (rows, brier) if (rows, brier) == (len(joined_rows), pytest.approx(expected, abs=1e-12)) else None

    rows, _ = wait_until(joined_statistics, "pandas and DuckDB agree")
    assert rows >= WINDOW_ROWS


def test_outcomes_api_rejects_invalid_outcome_with_its_field(stack: Stack) -> None:
    rejected = httpx.post(
        stack.components["predictor"].url + "/outcomes", json={"outcomes": [{"id": "x", "index": -1, "outcome": 1}]}
    )
    assert rejected.status_code == 422
    assert rejected.json()["detail"][0]["loc"] == ["body", "outcomes", 0, "index"]


def test_status_shows_verdicts_and_retrains_and_replay_changes_no_metric(stack: Stack) -> None:
    before = verdict_metrics(stack)
    result = run_command(
        stack, "driftloop-drift-worker", "replay", *("--from", "2013-07-10", "--to", "2100-01-01"), "--publish"
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert verdict_metrics(stack) == before
    status = run_command(stack, "driftloop", "status")
    assert status.returncode == 0, status.stdout + status.stderr
    assert f"models:/flights@champion is version {stack.registry.champion()}" in status.stdout
    assert re.search(r"^1 +(consistent|degraded|improved) +ROC AUC 0\.\d+ \[", status.stdout, re.MULTILINE)
    assert re.search(r" drift, replayed: \w+ ", status.stdout)
    for term in ("drift", "temp", "promoted", "rejected", "failed", "it is summer", "predictions-0"):
        assert term in status.stdout


def verdict_metrics(stack: Stack) -> list[str]:
    """Return the drift worker's metrics of verdicts, without those of reports and of durations."""
    text = httpx.get(stack.components["drift_worker"].url + "/metrics").text
    lines = [line for line in text.splitlines() if re.match(r"driftloop_drift_(?!report|verdict_latency)", line)]
    assert lines
    return lines


def test_topics_create_twice_changes_nothing(stack: Stack) -> None:
    result = run_command(stack, "driftloop", "topics", "create")
    assert (result.returncode, result.stdout.strip()) == (0, "all topics exist already")


def published_events(stack: Stack, event_id: str) -> list[Event]:
    """Return the events with this id on the topic of predictions."""
    return [event for event in reader.read_last(stack.kafka, "predictions", 10_000) if event.id == event_id]
