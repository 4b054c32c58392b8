"""What a person does beside the loop: going back, following a retrain, looking into a prediction, trying a version."""

import json
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import httpx
import mlflow
import pandas as pd
import pytest
from mlflow.models import infer_signature

from driftloop.drift.calibration import calibrate
from driftloop.events import DataSelection, ModelStateChanged, RetrainRequested, frame_to_columns
from driftloop.kafka import reader
from driftloop.kafka.publisher import Publisher
from driftloop.registry.rollback import roll_back
from driftloop.registry.trusted_types import TRUSTED_TYPES
from driftloop.settings import RegistrySettings
from driftloop.storage import reference_store
from driftloop.storage.bucket import Bucket
from driftloop.storage.reference_store import PREDICTION_COLUMN, Reference
from driftloop_cli import explain
from driftloop_cli.explain import locate
from driftloop_cli.settings import StorageCliSettings
from stack.running import Stack
from tests.support.running_stack import FLIGHT, isolated_settings, predict, run_command, serves_version
from tests.support.waiting import wait_until
from usecases.flights import usecase

ROWS = 200
"""Of a window; a request has half as many."""
FIRST, DAYS = date(2013, 3, 1), 6
LEARNED = {"1": (date(2013, 1, 1), date(2013, 1, 21)), "2": (date(2013, 2, 1), date(2013, 2, 8))}


class Asked(NamedTuple):
    """A request, what became of it, and what was answered."""

    id: str
    predictions: list[float]
    outcomes: list[float | None]
    at: datetime


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of its own, where windows are small, and stay open for as long as a test looks at them."""
    extra = {
        "DRIFTLOOP_WINDOW__ROWS": str(ROWS),
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
    """Two versions of little learning; the first is in service, and has a reference."""
    made = {}
    for version, (start, end) in LEARNED.items():
        learn = usecase.rows_between(rows, start, end)
        labelled = learn[learn[usecase.target].notna()]
        estimator = usecase.make_pipeline().fit(labelled[usecase.features], labelled[usecase.target].astype(int))
        mlflow.set_experiment(usecase.name)
        with mlflow.start_run():
            mlflow.set_tags({"reason": f"number {version}", "requested_by": "a test", "git_revision": "abc123"})
            mlflow.log_param("trained_through", learn[usecase.timestamp].max())
            mlflow.log_text(usecase.dvc_file.read_text(), "dataset/flights.parquet.dvc")
            logged = mlflow.sklearn.log_model(
                estimator,
                name="model",
                signature=infer_signature(rows[usecase.features], pd.Series([0.5], name="prediction")),
                input_example=learn[usecase.features].head(2),
                serialization_format="skops",
                skops_trusted_types=list(TRUSTED_TYPES),
                pyfunc_predict_fn="predict_proba",
                pip_requirements=["scikit-learn"],
            )
        assert stack.registry.create_version(logged.model_uri, f"retrain-{version}", {}) == version
        if version == "1":
            shown = learn[usecase.features].assign(
                **{PREDICTION_COLUMN: estimator.predict_proba(learn[usecase.features])[:, 1]}
            )
            profile = calibrate(
                shown,
                usecase.day_ordinals(learn[usecase.timestamp]),
                usecase.column_types | {PREDICTION_COLUMN: "number"},
                window_rows=ROWS,
                false_alarm_rate=0.01,
            )
            reference_store.save_reference(Bucket(stack.storage), usecase.name, version, Reference(shown, profile))
        made[version] = estimator
    stack.registry.promote("1")
    wait_until(lambda: serves_version(stack, "1"), "version 1 answers")
    return made


@pytest.fixture(scope="module")
def asked(stack: Stack, rows: pd.DataFrame) -> list[Asked]:
    """Requests of six days, with their outcomes, in the archive."""
    url = stack.components["predictor"].url
    made: list[Asked] = []
    for day in range(DAYS):
        start = FIRST + timedelta(days=day)
        of_day = usecase.rows_between(rows, start, start + timedelta(days=1)).head(ROWS)
        for part in (of_day[: ROWS // 2], of_day[ROWS // 2 :]):
            at = part[usecase.timestamp].iloc[0].to_pydatetime()
            columns = frame_to_columns(part[usecase.features])
            instances = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
            answer = httpx.post(
                f"{url}/predict", json={"instances": instances}, headers={"Driftloop-Time": at.isoformat()}, timeout=30
            ).json()
            outcomes = [None if pd.isna(outcome) else float(outcome) for outcome in part[usecase.target]]
            made.append(Asked(answer["id"], answer["predictions"], outcomes, at))
    report(stack, [(a.id, n, outcome) for a in made for n, outcome in enumerate(a.outcomes) if outcome is not None])
    bucket = Bucket(stack.storage)
    wait_until(lambda: len(bucket.list_paths("events/predictions/")) >= DAYS or None, "the predictions are archived")
    wait_until(lambda: len(bucket.list_paths("events/outcomes/")) >= DAYS - 1 or None, "the outcomes are archived")
    return made


def report(stack: Stack, outcomes: Sequence[tuple[str, int, float]], at: datetime | None = None) -> None:
    body = {"outcomes": [{"id": name, "index": row, "outcome": outcome} for name, row, outcome in outcomes]}
    headers = {"Driftloop-Time": at.isoformat()} if at else {}
    httpx.post(
        stack.components["predictor"].url + "/outcomes", json=body, headers=headers, timeout=30
    ).raise_for_status()


def key(stack: Stack) -> dict[str, str]:
    return {"X-API-Key": stack.environment["DRIFTLOOP_TRAINER__API_KEY"]}


def test_where_there_is_nothing_to_go_back_to_it_says_so(stack: Stack) -> None:
    for words, why in (
        ((), "no version to roll back to"),
        (("--to", "9"), "flights has no version 9; its versions are 1, 2"),
    ):
        refused = run_command(stack, "driftloop", "rollback", *words)
        assert (refused.returncode, refused.stdout.startswith(why)) == (7, True), refused.stdout + refused.stderr
    assert stack.registry.champion() == "1"


def test_going_back_takes_less_than_a_second_and_predictors_follow(stack: Stack) -> None:
    stack.registry.promote("2")
    wait_until(lambda: serves_version(stack, "2"), "version 2 answers")
    began = time.monotonic()
    change = roll_back(stack.registry, "it was slow")
    with Publisher(stack.kafka, stack.topics, "test") as publisher:
        publisher.publish(change)
        assert time.monotonic() - began < 1
    wait_until(lambda: serves_version(stack, "1"), "version 1 answers again", seconds=5)
    assert (change.version, change.trained_through is not None) == ("1", True)


def test_rollback_command_publishes_the_state(stack: Stack) -> None:
    stack.registry.promote("2")
    done = run_command(stack, "driftloop", "rollback", "--reason", "wrong units")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == "version 1 serves again instead of version 2: wrong units"
    last = reader.read_last(stack.kafka, "models", 1)[-1]
    assert isinstance(last, ModelStateChanged)
    assert (last.state, last.version, last.retrain_id) == ("rolled_back", "1", "retrain-2")
    withdrawn = stack.registry.client.get_model_version("flights", "2")
    assert withdrawn.description.endswith(f"rolled_back: {done.stdout.strip()}")
    wait_until(lambda: serves_version(stack, "1"), "version 1 answers again", seconds=5)


def test_going_back_over_http(stack: Stack) -> None:
    url = stack.components["trainer"].url + "/rollback"
    assert httpx.post(url, json={"reason": "units"}).status_code == 401
    stack.registry.promote("2")
    done = httpx.post(url, json={"reason": "units"}, headers=key(stack), timeout=30)
    assert done.status_code == 200, done.text
    assert done.json()["explanation"] == "version 1 serves again instead of version 2: units"
    again = httpx.post(url, json={"reason": "units"}, headers=key(stack), timeout=30)
    assert again.status_code == 409
    assert "no version to roll back to" in again.json()["detail"]


def test_a_retrain_is_followed_over_http(stack: Stack) -> None:
    url = stack.components["trainer"].url + "/retrain"
    assert httpx.get(f"{url}/nobody", headers=key(stack), timeout=30).status_code == 404
    wish = {"reason": "nothing there", "data": {"start": "2014-06-01", "archive": False}}
    asked = httpx.post(url, json=wish, headers=key(stack), timeout=30).json()["id"]
    with httpx.stream("GET", f"{url}/{asked}", params={"wait": True}, headers=key(stack), timeout=90) as lines:
        states = [json.loads(line) for line in lines.iter_lines()]
    assert states[0]["state"] == "training"
    assert states[-1]["state"] == "failed"
    so_far = httpx.get(f"{url}/{asked}", headers=key(stack), timeout=30).json()
    assert so_far == states


def test_those_who_wait_leave_room_for_others(stack: Stack) -> None:
    """Eight wait for a retrain that never ends, since it is of a model that nobody trains."""
    event = RetrainRequested(model="nobody's", trigger="manual", reason="", requested_by="a test", data=DataSelection())
    with Publisher(stack.kafka, stack.topics, "test") as publisher:
        publisher.publish(event)
    url = stack.components["trainer"].url
    waiting = f"{url}/retrain/{event.id}?wait=true"
    with ExitStack() as streams:
        for _ in range(8):
            stream = streams.enter_context(httpx.stream("GET", waiting, headers=key(stack), timeout=30))
            assert stream.status_code == 200
        refused = httpx.get(waiting, headers=key(stack), timeout=30)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "10")
        assert httpx.get(f"{url}/healthz", timeout=5).status_code == 200

    def room() -> bool | None:
        with httpx.stream("GET", waiting, headers=key(stack), timeout=30) as stream:
            return True if stream.status_code == 200 else None

    wait_until(room, "who has gone leaves room", seconds=20)


def test_a_prediction_is_explained(stack: Stack, asked: list[Asked]) -> None:
    one = next(a for a in asked[3:] if a.outcomes[7] is not None)
    corrected = datetime(2100, 1, 2, tzinfo=UTC)
    report(stack, [(one.id, 7, 1 - (one.outcomes[7] or 0))], corrected)
    shown = run_command(stack, "driftloop", "explain", one.id, "--row", "7")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for words in (
        f"{one.at:%Y-%m-%d %H:%M:%S} by version 1 of flights",
        f"prediction {one.predictions[7]}",
        "carrier=",
        "known at 2100-01-02 00:00 (corrected: before it was",
        "events/predictions/predictions-0-",
        "on 200 rows of version 1: score",
        "1 @champion",
        "requested by a test: number 1",
        "dataset/flights.parquet.dvc",
        "abc123",
        usecase.dvc_file.read_text().split("md5: ")[1].split()[0],
        "gs://driftloop/references/flights/1",
    ):
        assert words in " ".join(shown.stdout.split()), f"{words}\n{shown.stdout}"


def test_a_prediction_that_is_not_archived_yet_is_explained_too(stack: Stack, asked: list[Asked]) -> None:
    assert asked
    answer = predict(stack, FLIGHT).json()
    report(stack, [(answer["id"], 0, 1.0)])
    shown = run_command(stack, "driftloop", "explain", answer["id"])
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "not archived yet: its window is still open" in shown.stdout
    assert "1, known at" in shown.stdout
    assert "carrier=UA" in shown.stdout


def test_what_is_no_prediction_is_said_to_be_none(stack: Stack, asked: list[Asked]) -> None:
    assert asked
    unknown = "0197c8a4-0000-7000-8000-000000000001"
    shown = run_command(stack, "driftloop", "explain", unknown)
    assert shown.returncode == 7
    assert shown.stdout.strip() == f"prediction {unknown} is neither in the archive nor on its topic"


def test_an_id_that_holds_no_time_is_looked_for_in_the_latest_windows(stack: Stack, asked: list[Asked]) -> None:
    settings = StorageCliSettings(
        kafka=stack.kafka, registry=RegistrySettings(model="flights"), storage=stack.storage, topics=stack.topics
    )
    bucket = Bucket(stack.storage)
    assert locate(settings, bucket, "nothing") is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explain, "id_timestamp", lambda _: None)
        found = locate(settings, bucket, asked[0].id)
    assert found is not None
    assert [prediction for prediction, _ in found.rows] == asked[0].predictions
    assert found.verdict is not None


def test_a_version_is_tried_on_what_others_have_answered(
    stack: Stack, asked: list[Asked], versions: dict[str, Any], rows: pd.DataFrame
) -> None:
    """The figures are those of the version itself, asked about the same rows here."""
    labelled = sum(outcome is not None for one in asked for outcome in one.outcomes)

    def of_all() -> "subprocess.CompletedProcess[str] | None":
        shown = run_command(stack, "driftloop", "shadow", "--version", "2")
        assert shown.returncode == 0, shown.stdout + shown.stderr
        said = re.match(r"([\d,]+) rows of \d days, predicted by version 1 \(\1\)", shown.stdout)
        assert said is not None, shown.stdout
        # The last slice may still be open, and a row of another test may be archived by now.
        return shown if int(said[1].replace(",", "")) - labelled in (0, 1) else None

    shown = wait_until(of_all, "all rows are archived")
    assert "are too good" not in shown.stdout
    assert re.search(r"│ ROC AUC +│ 0\.\d+ \[0\.\d+, 0\.\d+\] │ 0\.\d+ \[.*\] │ [+-]0\.\d+ \[", shown.stdout)
    of_days = usecase.rows_between(rows, FIRST, FIRST + timedelta(days=DAYS))
    first = pd.concat([day.head(ROWS) for _, day in of_days.groupby(usecase.local_dates(of_days[usecase.timestamp]))])
    expected = versions["2"].predict_proba(first[usecase.features])[:, 1]
    known = first[usecase.target].notna().to_numpy()
    brier = ((expected[known] - first[usecase.target].to_numpy()[known]) ** 2).mean()
    said = re.search(r"│ Brier score +│[^│]+│ (0\.\d+)", shown.stdout)
    assert said is not None, shown.stdout
    assert float(said[1]) == pytest.approx(brier, abs=0.002)  # the row of another test may be among them


def test_a_version_that_there_is_not_cannot_be_tried(stack: Stack, asked: list[Asked]) -> None:
    assert asked
    shown = run_command(stack, "driftloop", "shadow", "--version", "9")
    assert (shown.returncode, "version 9: the registry does not have it" in shown.stdout) == (7, True), shown.stdout


def test_a_version_on_probation_is_held_against_the_one_before(stack: Stack, asked: list[Asked]) -> None:
    assert asked
    stack.registry.promote("2")
    stack.registry.promote("1")
    judged = run_command(stack, "python", "-m", "trainer.probation.job")
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert judged.stdout.startswith("version 1 ")
    assert f"rows of {DAYS} days since its promotion, and the version before would have had" in judged.stdout
