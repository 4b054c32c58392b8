"""The command line: exit codes, error messages and output, without Kafka, MLflow or a bucket."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from driftloop.errors import (
    BrokerUnavailable,
    InvalidInput,
    RegistryUnavailable,
    Rejected,
    StorageUnavailable,
    TrainerUnavailable,
)
from driftloop.events import DriftVerdict, Event, ModelStateChanged, RetrainRequest, RetrainRequested, Window
from driftloop.exit_codes import ExitCode
from driftloop.kafka import reader, topics
from driftloop.registry import rollback
from driftloop.registry.model_registry import ModelRegistry
from driftloop.registry.rollback import RollbackNotPossible
from driftloop.retrain_summary import summarize_state
from driftloop_cli import explain, main, retrain_command
from driftloop_cli.explain import ExplainedRow, Explanation
from driftloop_cli.main import app
from driftloop_cli.retrain_client import HttpRetrainClient, KafkaRetrainClient, RetrainRequestRejected, SubmittedRetrain

URL = "http://trainer.example"
RETRAIN = ["retrain", "--reason", "test", "--trainer-url", URL]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def text_of(result: Result) -> str:
    """Return the output without line breaks and frames."""
    return " ".join(result.output.replace("│", "").split())


def model_state(state: str) -> ModelStateChanged:
    fields = {"retrain_id": "a", "model": "flights", "version": "2", "state": state, "explanation": f"is {state} [x]"}
    return ModelStateChanged.model_validate(fields)


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_REGISTRY__MODEL", "flights")
    monkeypatch.setenv("DRIFTLOOP_TRAINER__API_KEY", "open sesame")
    monkeypatch.setenv("DRIFTLOOP_TRAINER__PORT", "8002")  # the trainer's own settings in this section are ignored


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[RetrainRequest]:
    """Requests that were submitted; the retrain has no state for ever."""
    return submit_with(monkeypatch, iter(lambda: None, 0))


def submit_with(monkeypatch: pytest.MonkeyPatch, states: Iterator[Any]) -> list[RetrainRequest]:
    requests: list[RetrainRequest] = []

    def submit(_: HttpRetrainClient, request: RetrainRequest) -> SubmittedRetrain:
        requests.append(request)
        return SubmittedRetrain("a", states)

    monkeypatch.setattr(HttpRetrainClient, "submit", submit)
    return requests


def raise_error(error: Exception) -> Any:
    def call(*_: object, **__: object) -> None:
        raise error

    return call


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("promoted", ExitCode.SUCCESS),
        ("rejected", ExitCode.RETRAIN_REJECTED),
        ("failed", ExitCode.RETRAIN_FAILED),
    ],
)
def test_retrain_wait_exits_with_the_code_of_the_result(
    state: str, code: ExitCode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_with(monkeypatch, iter([None, model_state("training"), model_state(state)]))
    summary = tmp_path / "summary.md"
    result = run(*RETRAIN, "--wait", "--summary", str(summary))
    assert result.exit_code == code
    assert f"{state} version 2: is {state} [x]" in result.stdout
    assert summary.read_text().splitlines()[0].endswith(f"flights: {state}, version 2")


def test_retrain_wait_tells_each_state_of_the_retrain_before_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = summarize_state(
        model_state("training").model_copy(update={"retrain_id": "b", "explanation": "compares"}),
        {"b": RetrainRequested(id="b", model="flights", trigger="drift", reason="drift", requested_by="policy")},
    )
    later = before.model_copy(update={"explanation": "registers"})
    submit_with(monkeypatch, iter([None, before, before, later, model_state("promoted")]))
    result = run(*RETRAIN, "--wait")
    assert result.exit_code == ExitCode.SUCCESS
    assert result.stderr.splitlines() == [
        "waiting for retrain b (policy): training: compares",
        "waiting for retrain b (policy): training: registers",
    ]


def test_retrain_wait_with_github_annotations_reports_a_rejection_as_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    submit_with(monkeypatch, iter([model_state("rejected")]))
    result = run(*RETRAIN, "--wait", "--github-annotations")
    assert result.exit_code == ExitCode.SUCCESS
    assert "::warning title=" in result.output


def test_retrain_wait_times_out(submitted: list[RetrainRequest], tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    result = run(*RETRAIN, "--wait", "--timeout-minutes", "0", "--summary", str(summary))
    assert result.exit_code == ExitCode.TIMED_OUT
    assert summary.read_text().startswith("## no result yet\n\nretrain a: ")
    assert len(submitted) == 1


def test_retrain_without_wait_submits_the_request(submitted: list[RetrainRequest]) -> None:
    options = ["--from", "2013-01-01", "--to", "2013-04-01", "--last-rows", "500", "--no-archive"]
    result = run(*RETRAIN, "--requested-by", "somebody", *options)
    assert result.exit_code == ExitCode.SUCCESS
    (request,) = submitted
    assert request.model_dump(mode="json") == {
        "reason": "test",
        "requested_by": "somebody",
        "data": {
            "start": "2013-01-01",
            "base_end": "2013-04-01",
            "exclude_days": [],
            "archive": False,
            "last_rows": 500,
        },
    }


def test_retrain_dry_run_prints_the_event(submitted: list[RetrainRequest], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpRetrainClient, "dry_run", lambda _, request: request.to_event("flights"))
    result = run(*RETRAIN, "--dry-run", "--last-rows", "500")
    assert result.exit_code == ExitCode.SUCCESS
    event = json.loads(result.output)
    assert (event["model"], event["data"]["last_rows"]) == ("flights", 500)
    assert "id" not in event
    assert not submitted


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RetrainRequestRejected("wrong key"), ExitCode.REFUSED),
        (TrainerUnavailable("no answer"), ExitCode.UNAVAILABLE),
    ],
)
def test_retrain_that_is_not_submitted_exits_with_message_and_summary(
    error: Exception, code: ExitCode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HttpRetrainClient, "submit", raise_error(error))
    summary = tmp_path / "summary.md"
    result = run(*RETRAIN, "--wait", "--summary", str(summary))
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", f"{error}\n")
    assert summary.read_text().startswith(f"## not requested\n\n{error}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["retrain", "--reason", "", "--trainer-url", URL], "at least 1 character"),
        (["retrain", "--reason", "test", "--trainer-url", "trainer.example"], "is not a URL"),
        ([*RETRAIN, "--last-rows", "0"], "--last-rows"),
        ([*RETRAIN, "--from", "January"], "--from"),
        (["retrain"], "--reason"),
        (["status", "--windows", "0"], "--windows"),
        (["data"], "restore"),
    ],
)
def test_invalid_option_exits_with_usage_error(
    arguments: list[str], message: str, submitted: list[RetrainRequest]
) -> None:
    result = run(*arguments)
    assert result.exit_code == ExitCode.USAGE
    assert message in text_of(result)
    assert not submitted


def test_missing_setting_exits_with_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRIFTLOOP_REGISTRY__MODEL")
    result = run("status")
    assert result.exit_code == ExitCode.USAGE
    assert "DRIFTLOOP_REGISTRY__MODEL" in result.output


def test_retrain_over_kafka_exits_if_the_broker_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "has_members", lambda *_: True)
    monkeypatch.setattr(KafkaRetrainClient, "submit", raise_error(BrokerUnavailable("no broker")))
    result = run("retrain", "--reason", "test")
    assert (result.exit_code, result.output) == (ExitCode.UNAVAILABLE, "no broker\n")


@pytest.fixture
def submitted_over_kafka(monkeypatch: pytest.MonkeyPatch) -> list[RetrainRequest]:
    """Requests that were published; the retrain has no state for ever. No trainer runs, and the model exists."""
    requests: list[RetrainRequest] = []

    def submit(_: KafkaRetrainClient, request: RetrainRequest) -> SubmittedRetrain:
        requests.append(request)
        return SubmittedRetrain("a", iter(lambda: None, 0))

    monkeypatch.setattr(KafkaRetrainClient, "submit", submit)
    monkeypatch.setattr(reader, "has_members", lambda _, group: {"trainer-flights": False}[group])
    monkeypatch.setattr(ModelRegistry, "exists", lambda _: True)
    return requests


def test_retrain_warns_if_no_trainer_of_the_model_runs(submitted_over_kafka: list[RetrainRequest]) -> None:
    result = run("retrain", "--reason", "test")
    assert (result.exit_code, result.stdout) == (ExitCode.SUCCESS, "retrain a requested\n")
    assert result.stderr.startswith("no trainer of flights runs")
    assert len(submitted_over_kafka) == 1


def test_retrain_wait_that_times_out_says_that_no_trainer_runs(submitted_over_kafka: list[RetrainRequest]) -> None:
    result = run("retrain", "--reason", "test", "--wait", "--timeout-minutes", "0")
    assert result.exit_code == ExitCode.TIMED_OUT
    assert [line.count("no trainer of flights runs") for line in result.stderr.splitlines()] == [1, 1]
    assert "goes on" not in result.stderr
    assert len(submitted_over_kafka) == 1


@pytest.mark.parametrize("options", [[], ["--wait"], ["--dry-run"]], ids=["requested", "waited for", "tried"])
def test_retrain_of_a_model_that_nobody_knows_is_refused(
    options: list[str], submitted_over_kafka: list[RetrainRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelRegistry, "exists", lambda _: False)
    monkeypatch.setattr(retrain_command, "TRAINER_START_SECONDS", 0)
    result = run("retrain", "--reason", "test", *options)
    assert (result.exit_code, result.stdout) == (ExitCode.REFUSED, "")
    for term in ("flights", "DRIFTLOOP_REGISTRY__MODEL", "trainer-flights"):
        assert term in result.stderr
    assert not submitted_over_kafka


def test_first_retrain_waits_for_a_trainer_that_is_starting(
    submitted_over_kafka: list[RetrainRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, True])
    monkeypatch.setattr(reader, "has_members", lambda *_: next(answers))
    monkeypatch.setattr(ModelRegistry, "exists", lambda _: False)
    monkeypatch.setenv("DRIFTLOOP_TRAINER__GROUP", "retrainers")
    assert run("retrain", "--reason", "test").exit_code == ExitCode.SUCCESS
    assert len(submitted_over_kafka) == 1


def test_retrain_does_not_warn_if_the_broker_does_not_say_whether_a_trainer_runs(
    submitted_over_kafka: list[RetrainRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "has_members", lambda *_: None)
    result = run("retrain", "--reason", "test")
    assert (result.exit_code, result.stderr) == (ExitCode.SUCCESS, "")
    assert len(submitted_over_kafka) == 1


def test_retrain_json_has_request_and_states_and_progress_is_on_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    submit_with(monkeypatch, iter([None, model_state("training"), model_state("rejected")]))
    result = run(*RETRAIN, "--wait", "--json")
    assert result.exit_code == ExitCode.RETRAIN_REJECTED
    facts = json.loads(result.stdout)
    assert (facts["retrain_id"], facts["request"]["reason"]) == ("a", "test")
    assert [state["state"] for state in facts["states"]] == ["training", "rejected"]
    assert "rejected version 2: is rejected [x]" in result.stderr


def test_topics_create_lists_created_topics_or_exits_if_the_broker_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for created, changed, output in (
        (["drift", "drift.dlq"], [], "created drift, drift.dlq\n"),
        ([], [], "all topics exist already\n"),
        (
            [],
            ["drift"],
            "all topics exist already\nchanged message.timestamp.type to LogAppendTime: drift\n",
        ),
    ):
        monkeypatch.setattr(topics, "create", lambda *_, created=created: created)
        monkeypatch.setattr(topics, "use_broker_time", lambda *_, changed=changed: changed)
        assert run("topics", "create").output == output
        assert json.loads(run("topics", "create", "--json").stdout) == {"created": created, "changed": changed}
    monkeypatch.setattr(topics, "create", raise_error(BrokerUnavailable("no broker")))
    result = run("topics", "create")
    assert (result.exit_code, result.output) == (ExitCode.UNAVAILABLE, "no broker\n")


class FakePublisher:
    """Remembers what the command publishes."""

    def __init__(self, *_: object) -> None:
        self.events: list[Event] = []

    def __enter__(self) -> "FakePublisher":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def publish(self, event: Event) -> None:
        self.events.append(event)


def test_rollback_publishes_the_event(monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = FakePublisher()
    monkeypatch.setattr(main, "Publisher", lambda *_: publisher)
    monkeypatch.setattr(rollback, "roll_back", lambda *_: model_state("rolled_back"))
    result = run("rollback")
    assert (result.exit_code, result.output) == (ExitCode.SUCCESS, "is rolled_back [x]\n")
    assert [event.message_key for event in publisher.events] == ["flights"]
    facts = json.loads(run("rollback", "--json").stdout)
    assert (facts["state"], facts["version"], facts["model"]) == ("rolled_back", "2", "flights")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RollbackNotPossible("no version"), ExitCode.REFUSED),
        (RegistryUnavailable("no registry"), ExitCode.UNAVAILABLE),
    ],
)
def test_rollback_that_fails_exits_with_message(
    error: Exception, code: ExitCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollback, "roll_back", raise_error(error))
    result = run("rollback", "--to", "9")
    assert (result.exit_code, result.output) == (code, f"{error}\n")


def explanation(rows: int = 2) -> Explanation:
    return Explanation(
        id="some-id",
        model="flights",
        version="2",
        time=datetime(2013, 7, 1, tzinfo=UTC),
        trace_id="abc",
        rows=[
            ExplainedRow(row=n, features={"carrier": "[UA]", "gust": float("nan")}, prediction=0.5, outcomes=[])
            for n in range(rows)
        ],
        archive=None,
        verdict=None,
        report=None,
        registered=None,
        registry_error="no registry",
        reference="gs://b/references/flights/2",
        reference_is_complete=True,
    )


def test_explain_prints_labels_and_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "explain_prediction", lambda *_: explanation())
    result = run("explain", "some-id", "--row", "1")
    assert result.exit_code == ExitCode.SUCCESS
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[:3] == [
        "predicted 2013-07-01 00:00:00 by version 2 of flights",
        "trace abc",
        "row 1 carrier=[UA], gust=nan",
    ]
    assert not any(line.startswith("row 0") for line in lines)


def test_explain_json_is_valid_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "explain_prediction", lambda *_: explanation())
    facts = json.loads(run("explain", "some-id", "--json").stdout)
    assert (facts["id"], facts["time"]) == ("some-id", "2013-07-01T00:00:00Z")
    assert facts["rows"][1]["features"] == {"carrier": "[UA]", "gust": None}


def test_explain_of_a_row_that_the_request_does_not_have_exits_with_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "explain_prediction", lambda *_: explanation(rows=2))
    result = run("explain", "some-id", "--row", "2")
    assert (result.exit_code, result.stdout) == (ExitCode.REFUSED, "")
    assert result.stderr.startswith("there is no row 2")


def test_explain_unknown_prediction_exits_with_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(explain, "explain_prediction", lambda *_: None)
    monkeypatch.setenv("DRIFTLOOP_STORAGE__URL", tmp_path.as_uri())
    result = run("explain", "some-id")
    assert (result.exit_code, result.stdout) == (ExitCode.REFUSED, "")
    assert "some-id" in result.stderr


def test_error_that_no_command_expects_ends_with_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    for error, code in ((InvalidInput("not a model"), ExitCode.USAGE), (Rejected("not now"), ExitCode.REFUSED)):
        monkeypatch.setattr(explain, "explain_prediction", raise_error(error))
        result = run("explain", "some-id")
        assert (result.exit_code, result.stdout, result.stderr) == (code, "", f"{error}\n")


def test_explain_without_bucket_exits_with_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "explain_prediction", raise_error(StorageUnavailable("no bucket")))
    result = run("explain", "some-id")
    assert (result.exit_code, result.output) == (ExitCode.UNAVAILABLE, "no bucket (DRIFTLOOP_STORAGE__URL)\n")


@pytest.fixture
def topic_events(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Event]]:
    """Events by topic; version 2 is in service, and a trainer of flights runs."""
    events: dict[str, list[Event]] = {"drift": [], "models": [], "retrain": [], "predictions": []}
    monkeypatch.setattr(ModelRegistry, "champion", lambda _: "2")
    monkeypatch.setattr(ModelRegistry, "last_champion", lambda _: None)
    monkeypatch.setattr(ModelRegistry, "model_names", lambda _: ["flights", "cars"])
    monkeypatch.setattr(reader, "read_last", lambda _, topic, count: events[topic][-count:])
    monkeypatch.setattr(reader, "consumer_lag", lambda _, group, __: {f"{group}-0": 7})
    monkeypatch.setattr(reader, "has_members", lambda _, group: group == "trainer-flights")
    return events


def test_status_prints_champion_retrains_and_lag(topic_events: dict[str, list[Event]]) -> None:
    older = model_state("training").model_copy(update={"time": datetime(2013, 1, 1, tzinfo=UTC)})
    topic_events["models"] += [older, model_state("promoted")]
    result = run("status")
    assert result.exit_code == ExitCode.SUCCESS
    assert "models:/flights@champion is version 2\n" in result.stdout
    for text in ("no windows yet", "promoted", "drift_worker-0", "trainer-flights-0"):
        assert text in text_of(result)
    assert "training" not in result.stdout  # only the latest state of a retrain
    assert "cars" not in result.stdout


def test_status_of_all_models_has_registered_ones_and_those_with_events(topic_events: dict[str, list[Event]]) -> None:
    topic_events["models"].append(model_state("failed").model_copy(update={"model": "wine"}))
    facts = json.loads(run("status", "--all", "--json").stdout)
    assert [(model["model"], model["trainer"], len(model["retrains"])) for model in facts["models"]] == [
        ("cars", "does not run", 0),
        ("flights", "runs", 0),
        ("wine", "does not run", 1),
    ]
    assert facts["lag"]["trainer-wine"] == {"trainer-wine-0": 7}
    text = run("status", "--all").stdout
    assert [line for line in text.splitlines() if line.startswith("models:/")] == [
        f"models:/{model}@champion is version 2" for model in ("cars", "flights", "wine")
    ]


def test_status_finds_the_windows_of_a_model_behind_those_of_another(topic_events: dict[str, list[Event]]) -> None:
    topic_events["drift"] += [drift_verdict(n, "flights") for n in range(3)]
    topic_events["drift"] += [drift_verdict(n, "cars") for n in range(500)]
    (model,) = json.loads(run("status", "--windows", "2", "--json").stdout)["models"]
    assert [window["window"]["first_offset"] for window in model["windows"]] == [1, 2]


def drift_verdict(number: int, model: str) -> DriftVerdict:
    return DriftVerdict(
        window=Window(topic="predictions", partition=0, first_offset=number, last_offset=number),
        model=model,
        version="2",
        rows=1,
        first_prediction_at=datetime(2013, 7, 1, tzinfo=UTC),
        last_prediction_at=datetime(2013, 7, 1, tzinfo=UTC),
        verdict="no_drift",
        explanation="",
        archive=["gs://b/x"],
    )


def test_status_before_the_first_version_says_how_to_train_it(
    topic_events: dict[str, list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any(topic_events.values())
    monkeypatch.setattr(ModelRegistry, "champion", lambda _: None)
    result = run("status")
    assert result.exit_code == ExitCode.SUCCESS
    assert "no version yet: driftloop retrain" in text_of(result)
    assert "no retrains yet" in text_of(result)


def test_status_shows_what_the_other_one_knows_while_a_dependency_is_away(
    topic_events: dict[str, list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic_events["drift"].append(drift_verdict(1, "flights"))
    with monkeypatch.context() as away:
        away.setattr(ModelRegistry, "champion", raise_error(RegistryUnavailable("no registry")))
        away.setattr(ModelRegistry, "model_names", raise_error(RegistryUnavailable("no registry")))
        for arguments in ((), ("--all",)):
            result = run("status", *arguments)
            assert (result.exit_code, result.stderr) == (ExitCode.UNAVAILABLE, "no registry\n")
            assert "Windows of flights" in result.stdout
    monkeypatch.setattr(reader, "read_last", raise_error(BrokerUnavailable("no broker")))
    result = run("status")
    assert (result.exit_code, result.stderr) == (ExitCode.UNAVAILABLE, "no broker\n")
    assert result.stdout == "models:/flights@champion is version 2\n"
    facts = json.loads(run("status", "--all", "--json").stdout)
    assert [(model["model"], model["version"]) for model in facts["models"]] == [("cars", "2"), ("flights", "2")]
    assert facts["unavailable"] == {"kafka": "no broker"}


def test_status_of_a_lost_alias(topic_events: dict[str, list[Event]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelRegistry, "champion", lambda _: None)
    monkeypatch.setattr(ModelRegistry, "last_champion", lambda _: "4")
    assert not any(topic_events.values())
    assert "rollback --to 4" in run("status").stdout


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--last-rows", "99999999999"], ["--last-rows 99999999999"]),
        (["--from", "0001-01-01"], ["--from 0001-01-01"]),
        (["--to", "9999-12-31"], ["--to 9999-12-31"]),
        (["--from", "2013-04-01", "--to", "2013-01-01"], ["--to 2013-01-01", "--from 2013-04-01"]),
        (["--from", "2013-04-01", "--to", "2013-04-01", "--no-archive"], ["--from 2013-04-01", "--to 2013-04-01"]),
    ],
    ids=["too many rows", "first year", "last year", "end before start", "no day"],
)
@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--trainer-url", "http://127.0.0.1:1"]], ids=str)
def test_selection_that_cannot_be_meant_is_refused_with_its_option(
    options: list[str], named: list[str], more: list[str]
) -> None:
    result = run(*RETRAIN, *options, *more)
    assert (result.exit_code, result.stdout) == (ExitCode.REFUSED, "")
    assert all(text in result.stderr for text in named), result.stderr
