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

from driftloop.evaluation.metrics import roc_auc
from driftloop.events import (
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
from driftloop.storage.bucket import Bucket
from driftloop.storage.reference_store import load_gate_evaluation, load_reference
from stack.running import Stack
from tests.support.running_stack import FLIGHT, HOLDOUT_DAYS, WINDOW_ROWS, predict, run_command, serves_version
from tests.support.waiting import wait_until
from trainer.retrain import training, training_set
from usecases.flights import usecase

FEW_DAYS = DataSelection(start=date(2013, 3, 5), base_end=date(2013, 4, 13), archive=False)
SUMMER = DataSelection(start=date(2013, 6, 1), base_end=date(2013, 8, 1), archive=False)

pytestmark = pytest.mark.usefixtures("version_1")


def test_a_request_is_an_event(stack: Stack) -> None:
    answer = predict(stack, FLIGHT, {**FLIGHT, "carrier": "DL"}).json()
    assert (answer["model"], answer["version"], len(answer["predictions"])) == ("flights", "1", 2)
    assert all(0 < prediction < 1 for prediction in answer["predictions"])
    (event,) = wait_until(lambda: published(stack, answer["id"]) or None, "the event is on the topic")
    assert isinstance(event, Prediction)
    assert event.version == "1"
    assert event.predictions == answer["predictions"]
    assert event.features == {name: [FLIGHT[name], "DL" if name == "carrier" else FLIGHT[name]] for name in FLIGHT}


def test_a_prediction_is_what_the_named_version_gives_offline(stack: Stack) -> None:
    answer = predict(stack, FLIGHT).json()
    stored = stack.registry.load("1")
    offline = stored.estimator.predict_proba(pd.DataFrame([FLIGHT], columns=usecase.features))[0, 1]
    assert answer["predictions"][0] == pytest.approx(offline, abs=1e-12)


def test_a_wrong_request_is_refused_with_instance_and_field_and_is_no_event(stack: Stack) -> None:
    wrong = predict(stack, FLIGHT, {**FLIGHT, "distance": "far"})
    assert wrong.status_code == 422
    (problem,) = wrong.json()["detail"]
    assert problem["loc"] == ["body", "instances", 1, "distance"]
    assert "integer" in problem["msg"]
    right = predict(stack, {**FLIGHT, "distance": 1401}).json()
    wait_until(lambda: published(stack, right["id"]) or None, "the event behind it is on the topic")
    events = [e for e in reader.read_last(stack.kafka, "predictions", 100) if isinstance(e, Prediction)]
    assert not [event for event in events if "far" in event.features["distance"]]


def test_the_api_page_shows_the_signature_with_an_example(stack: Stack) -> None:
    page = httpx.get(stack.components["predictor"].url + "/openapi.json").json()
    body = page["components"]["schemas"]["Instances"]
    row = page["components"]["schemas"]["Instance"]
    assert set(row["properties"]) == set(usecase.features)
    assert {"temp", "wind_gust"}.isdisjoint(row["required"])
    assert predict(stack, *body["example"]["instances"]).status_code == 200


def test_the_api_page_needs_no_foreign_host(stack: Stack) -> None:
    for service in ("predictor", "drift_worker", "trainer"):
        url = stack.components[service].url
        sources = re.findall(r'(?:src|href)="([^"]+)"', httpx.get(f"{url}/docs").text)
        assert any(source.endswith(".js") for source in sources)
        for source in sources:
            assert source.startswith("/")
            assert httpx.get(url + source).status_code == 200


def test_a_window_of_events_gets_a_verdict_and_a_file_in_the_archive(stack: Stack) -> None:
    produced = run_command(
        stack, "driftloop-producer", *("--from", "2013-01-10", "--to", "2013-01-13", "--rate", "max", "--rows", "50")
    )
    assert produced.returncode == 0, produced.stdout + produced.stderr
    assert "status    200: " in produced.stdout
    assert "version   1: " in produced.stdout
    assert "p50" in produced.stdout

    def judged() -> DriftVerdict | None:
        found = [e for e in reader.read_last(stack.kafka, "drift", 300) if isinstance(e, DriftVerdict)]
        return next(
            (e for e in found if e.verdict != "inconclusive" and e.first_prediction_at.date() == date(2013, 1, 10)),
            None,
        )

    verdict = wait_until(judged, "a verdict")
    assert verdict.verdict == "no_drift", verdict.explanation
    assert verdict.rows >= WINDOW_ROWS
    assert {finding.column for finding in verdict.findings} == {*usecase.features, "prediction"}
    bucket = Bucket(stack.storage)
    rows = bucket.read_parquet(verdict.archive.removeprefix(f"gs://{bucket.name}/"))
    assert set(usecase.features) | {"id", "row", "time", "model", "version", "prediction"} == set(rows.columns)
    assert verdict.rows <= len(rows)
    metrics = httpx.get(stack.components["drift_worker"].url + "/metrics").text
    assert 'driftloop_drift_window_score{model="flights",version="1"}' in metrics


def test_outcomes_say_how_good_the_version_is(stack: Stack) -> None:
    """Of the rows that were streamed a test ago, with their outcomes."""

    def measured() -> QualityVerdict | None:
        found = [e for e in reader.read_last(stack.kafka, "drift", 300) if isinstance(e, QualityVerdict)]
        return next((e for e in found if e.model == "flights" and e.rows >= WINDOW_ROWS / 2), None)

    quality = wait_until(measured, "outcomes that are measured")
    assert quality.in_service is not None
    figure = quality.in_service.metrics["roc_auc"]
    assert 0.5 < figure.low < figure.value < figure.high < 1
    assert (quality.version, quality.verdict, quality.at_gate) == ("1", "inconclusive", None)
    judged = reader.read_last(stack.kafka, "drift", 300)
    promises = [e.metrics["roc_auc"] for e in judged if isinstance(e, QualityEstimate) and e.model == "flights"]
    assert promises
    assert all(0.5 <= promise < 1 for promise in promises)
    metrics = httpx.get(stack.components["drift_worker"].url + "/metrics").text
    for name in ("quality", "quality_low", "quality_high", "quality_estimate"):
        assert f'driftloop_{name}{{metric="roc_auc",model="flights",version="1"}}' in metrics


def test_the_reference_of_a_version_lies_in_the_bucket(stack: Stack) -> None:
    reference = load_reference(Bucket(stack.storage), "flights", "1")
    compared = {*usecase.features, "prediction"}
    assert set(reference.rows.columns) == compared
    assert reference.profile.window_rows == WINDOW_ROWS
    for span in reference.profile.spans:
        assert {normal.column for normal in span.null_distributions} == compared
    assert set(reference.profile.importance) == set(usecase.features)


def test_a_changed_season_alarms_and_the_columns_are_named(stack: Stack) -> None:
    produced = run_command(
        stack, "driftloop-producer", *("--from", "2013-07-10", "--to", "2013-07-13", "--rate", "max", "--rows", "50")
    )
    assert produced.returncode == 0, produced.stdout + produced.stderr

    def alarm() -> DriftVerdict | None:
        found = [e for e in reader.read_last(stack.kafka, "drift", 300) if isinstance(e, DriftVerdict)]
        return next((e for e in found if e.verdict == "drift" and e.first_prediction_at.month == 7), None)

    assert "temp" in wait_until(alarm, "an alarm").drifted_columns


def test_an_alarm_has_its_page_and_a_report_that_nobody_asked_for(stack: Stack) -> None:
    url = stack.components["drift_worker"].url

    def newest() -> str | None:
        alarms = re.findall(r'<li><a class="drift" href="/windows/([^"]+)"', httpx.get(url).text)
        return alarms[-1] if alarms else None

    name, model, version = wait_until(newest, "the overview shows an alarm").split("/")
    page = httpx.get(f"{url}/windows/{name}/{model}/{version}", timeout=30)
    assert page.status_code == 200
    assert "<b>temp</b>" in page.text
    bucket = Bucket(stack.storage)
    path = f"reports/{model}/{version}/{name}.html"
    wait_until(lambda: bucket.exists(path) or None, "a report", seconds=180)
    assert path in bucket.list_modified_before("reports/", now() + timedelta(minutes=1))
    assert bucket.list_modified_before("reports/", now() - timedelta(days=1)) == []
    report = httpx.get(f"{url}/reports/{model}/{version}/{name}", timeout=30)
    assert report.status_code == 200
    assert "Wasserstein distance (normed)" in report.text
    metrics = httpx.get(f"{url}/metrics").text
    assert 'driftloop_drift_reports_total{state="rendered"}' in metrics


def test_a_worse_challenger_is_rejected_and_the_champion_goes_on(stack: Stack) -> None:
    url = stack.components["trainer"].url + "/retrain"
    champion = str(stack.registry.champion())
    body = {"reason": "a few days only", "data": FEW_DAYS.model_dump(mode="json")}
    assert httpx.post(url, json=body).status_code == 401
    with reader.tail(stack.kafka, "models") as changes:
        asked = httpx.post(url, json=body, headers={"X-API-Key": stack.environment["DRIFTLOOP_TRAINER__API_KEY"]})
        assert asked.status_code == 202
        states = [state for state in states_until_final(asked.json()["id"], changes) if state]
    assert {change.state for change in states[:-1]} == {"training"}
    assert states[-1].state == "rejected"
    assert "(non_inferiority test)" in states[-1].explanation
    assert stack.registry.champion() == champion
    assert serves_version(stack, champion)


def test_a_retrain_that_cannot_be_done_fails_with_its_reason(stack: Stack) -> None:
    done = run_command(
        stack,
        *("driftloop", "retrain", "--reason", "nothing there", "--wait", "--no-archive"),
        *("--from", "2014-06-01"),
    )
    assert done.returncode == 4, done.stdout + done.stderr
    assert (
        "failed: InvalidTrainingData: labelled rows: 0 of 0, and 1,000 are needed (DRIFTLOOP_DATA__MIN_LABELLED_ROWS)"
        in done.stdout
    )
    assert serves_version(stack, str(stack.registry.champion()))


def test_too_few_rows_for_a_reference_fail_before_anything_is_trained(stack: Stack) -> None:
    done = run_command(
        stack, *("driftloop", "retrain", "--reason", "the latest", "--wait", "--no-archive", "--last-rows", "15000")
    )
    assert done.returncode == 4, done.stdout + done.stderr
    assert "more rows are needed, or a shorter window (DRIFTLOOP_WINDOW__ROWS)" in done.stdout
    assert "trains on" not in done.stdout


def test_a_better_challenger_is_swapped_in_under_load_without_a_failed_request(stack: Stack) -> None:
    stop = threading.Event()
    answers: list[httpx.Response] = []

    def ask() -> None:
        with httpx.Client(base_url=stack.components["predictor"].url, timeout=30) as client:
            while not stop.is_set():
                answers.append(client.post("/predict", json={"instances": [FLIGHT]}))

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        change = stack.retrain("it is summer", SUMMER, lambda _: None)
        assert change.state == "promoted", change.explanation
        wait_until(lambda: answers[-1].json().get("version") == change.version or None, "the new version answers")
    finally:
        stop.set()
        for asker in askers:
            asker.join()

    assert {answer.status_code for answer in answers} == {200}
    versions = [answer.json()["version"] for answer in answers]
    assert set(versions) == {"1", change.version}
    assert change.challenger["roc_auc"] > change.champion["roc_auc"]
    measured = load_gate_evaluation(Bucket(stack.storage), "flights", str(change.version))
    assert measured is not None
    assert measured.metrics["roc_auc"].value == pytest.approx(change.challenger["roc_auc"], abs=1e-12)
    assert (measured.rows, measured.days) == (change.challenger["rows"], HOLDOUT_DAYS)
    wait_until(lambda: published(stack, answers[-1].json()["id"]) or None, "the last event is on the topic")
    events = {e.id: e for e in reader.read_last(stack.kafka, "predictions", 10**6) if isinstance(e, Prediction)}
    for answer in answers:
        body = answer.json()
        assert (events[body["id"]].version, events[body["id"]].predictions) == (body["version"], body["predictions"])


def test_the_version_tells_its_story_in_the_registry(stack: Stack) -> None:
    version = stack.registry.client.get_model_version_by_alias("flights", "champion")
    run = stack.registry.client.get_run(version.run_id)
    assert "ROC AUC" in version.description
    assert run.data.tags["reason"] == "it is summer"
    assert run.data.metrics["challenger_roc_auc"] > run.data.metrics["champion_roc_auc"]
    assert run.data.tags["git_revision"]
    pointer = dvc.pointer_for_version(stack.registry, str(version.version))
    assert dvc.parse_pointer(pointer).name == "flights.parquet"


def test_what_a_version_learned_from_comes_back_byte_for_byte_and_gives_the_same_metrics(
    stack: Stack, tmp_path: Path
) -> None:
    """With the bucket and MLflow alone."""
    version = stack.registry.client.get_model_version_by_alias("flights", "champion")
    run = stack.registry.client.get_run(version.run_id)
    pointer = dvc.parse_pointer(dvc.pointer_for_version(stack.registry, str(version.version)))
    done = run_command(stack, "driftloop", "data", "restore", str(version.version), "--to", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    restored = tmp_path / pointer.name
    assert md5(restored.read_bytes(), usedforsecurity=False).hexdigest() == pointer.md5

    learn, held_out = training_set.split(usecase, training_set.read(restored), HOLDOUT_DAYS)
    estimator, _ = training.train(usecase, learn)
    said = training.predict_scores(usecase, estimator, held_out)
    auc = roc_auc(held_out[usecase.target].to_numpy(dtype=np.float64), said)
    assert auc == pytest.approx(run.data.metrics["challenger_roc_auc"], abs=1e-9)


def test_outcomes_reach_the_archive(stack: Stack) -> None:
    answer = predict(stack, FLIGHT).json()
    reported = httpx.post(
        stack.components["predictor"].url + "/outcomes",
        json={"outcomes": [{"id": answer["id"], "index": 0, "outcome": 1}]},
    )
    assert (reported.status_code, reported.json()) == (202, {"accepted": 1})

    def archived() -> pd.DataFrame | None:
        bucket = Bucket(stack.storage)
        frames = [bucket.read_parquet(path) for path in bucket.list_paths("events/outcomes/")]
        rows = pd.concat(frames) if frames else pd.DataFrame({"id": []})
        found = rows[rows["id"] == answer["id"]]
        return found if len(found) else None

    assert wait_until(archived, "the outcome in the archive")["outcome"].tolist() == [1.0]


def test_duckdb_joins_predictions_with_outcomes_where_they_lie(stack: Stack) -> None:
    bucket = Bucket(stack.storage)
    import gcsfs  # noqa: PLC0415  # see Bucket

    duckdb.register_filesystem(
        gcsfs.GCSFileSystem(token="anon", endpoint_url=stack.storage.endpoint, use_listings_cache=False)
    )

    def joined() -> tuple[int, float] | None:
        """The same from pandas; a slice that closes in between makes it another."""
        predictions, outcomes = (
            pd.concat(bucket.read_parquet(path) for path in bucket.list_paths(f"events/{topic}/"))
            for topic in ("predictions", "outcomes")
        )
        both = predictions.merge(outcomes, on=["id", "row"])
        found = duckdb.sql(
            "SELECT count(*), avg((prediction - outcome) ** 2) FROM 'gs://driftloop/events/predictions/*.parquet' "
            "JOIN 'gs://driftloop/events/outcomes/*.parquet' USING (id, row)"
        )
        assert found is not None
        ((rows, brier),) = found.fetchall()
        expected = ((both["prediction"] - both["outcome"]) ** 2).mean()
        return (rows, brier) if (rows, brier) == (len(both), pytest.approx(expected, abs=1e-12)) else None

    rows, _ = wait_until(joined, "both say the same")
    assert rows >= WINDOW_ROWS


def test_a_wrong_outcome_is_refused_with_its_field(stack: Stack) -> None:
    refused = httpx.post(
        stack.components["predictor"].url + "/outcomes", json={"outcomes": [{"id": "x", "index": -1, "outcome": 1}]}
    )
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == ["body", "outcomes", 0, "index"]


def test_status_shows_how_things_stand_and_a_replay_moves_no_metric(stack: Stack) -> None:
    before = verdicts_in_metrics(stack)
    again = run_command(
        stack, "driftloop-drift-worker", "replay", *("--from", "2013-07-10", "--to", "2100-01-01"), "--publish"
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert verdicts_in_metrics(stack) == before
    shown = run_command(stack, "driftloop", "status")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert f"models:/flights@champion is version {stack.registry.champion()}" in shown.stdout
    assert re.search(r"│ 1 +│ inconclusive +│ ROC AUC 0\.\d+ \[", shown.stdout)
    assert re.search(r"│ drift, replayed: \w+ +│", shown.stdout)
    for word in ("drift", "temp", "promoted", "rejected", "failed", "predictions-0"):
        assert word in shown.stdout


def verdicts_in_metrics(stack: Stack) -> list[str]:
    """What the worker's metrics say of its verdicts."""
    text = httpx.get(stack.components["drift_worker"].url + "/metrics").text
    found = [line for line in text.splitlines() if re.match(r"driftloop_drift_(window|alarm|column|stat)", line)]
    assert found
    return [line for line in found if "window_seconds" not in line]


def test_topics_are_made_once(stack: Stack) -> None:
    again = run_command(stack, "driftloop", "topics", "create")
    assert (again.returncode, again.stdout.strip()) == (0, "all topics exist already")


def published(stack: Stack, name: str) -> list[Event]:
    """The events with this id on the topic."""
    return [event for event in reader.read_last(stack.kafka, "predictions", 10_000) if event.id == name]
