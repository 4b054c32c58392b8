"""The command line: exit codes, error messages and output, without Kafka, MLflow or a bucket."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from driftloop.errors import BrokerUnavailable, RegistryUnavailable, StorageUnavailable, TrainerUnavailable
from driftloop.events import Event, ModelStateChanged, RetrainRequest
from driftloop.exit_codes import ExitCode
from driftloop.kafka import reader, topics
from driftloop.registry import rollback
from driftloop.registry.model_registry import ModelRegistry
from driftloop.registry.rollback import RollbackNotPossible
from driftloop_cli import explain, main
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
    assert f"{state} version 2: is {state} [x]" in result.output
    assert summary.read_text().splitlines()[0].endswith(f"flights: {state}, version 2")


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
    assert (result.exit_code, result.output) == (code, f"{error}\n")
    assert summary.read_text().startswith(f"## not requested\n\n{error}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*RETRAIN, "--from", "2013-04-01", "--to", "2013-01-01", "--no-archive"], "no day is between"),
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
    monkeypatch.setattr(KafkaRetrainClient, "submit", raise_error(BrokerUnavailable("no broker")))
    result = run("retrain", "--reason", "test")
    assert (result.exit_code, result.output) == (ExitCode.UNAVAILABLE, "no broker\n")


def test_topics_create_lists_created_topics_or_exits_if_the_broker_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for created, output in ((["drift", "drift.dlq"], "created drift, drift.dlq\n"), ([], "all topics exist already\n")):
        monkeypatch.setattr(topics, "create", lambda *_, created=created: created)
        assert run("topics", "create").output == output
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


def test_explain_prints_labels_and_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "describe_prediction", lambda *_: iter([("row 0", "carrier=[UA]"), ("trace", "abc")]))
    result = run("explain", "some-id")
    assert result.exit_code == ExitCode.SUCCESS
    assert [line.split() for line in result.output.splitlines()] == [["row", "0", "carrier=[UA]"], ["trace", "abc"]]


def test_explain_unknown_prediction_exits_with_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "describe_prediction", lambda *_: iter(()))
    result = run("explain", "some-id")
    assert result.exit_code == ExitCode.REFUSED
    assert "some-id" in result.output


def test_explain_without_bucket_exits_with_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "describe_prediction", raise_error(StorageUnavailable("no bucket")))
    result = run("explain", "some-id")
    assert (result.exit_code, result.output) == (ExitCode.UNAVAILABLE, "no bucket (DRIFTLOOP_STORAGE__BUCKET)\n")


def test_status_prints_champion_retrains_and_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    older = model_state("training").model_copy(update={"time": datetime(2013, 1, 1, tzinfo=UTC)})
    events = {"drift": [], "models": [older, model_state("promoted")]}
    monkeypatch.setattr(ModelRegistry, "champion", lambda _: "2")
    monkeypatch.setattr(reader, "read_last", lambda _, topic, __: events[topic])
    monkeypatch.setattr(reader, "consumer_lag", lambda _, group, __: {f"{group}-0": 7})
    result = run("status")
    assert result.exit_code == ExitCode.SUCCESS
    assert result.output.startswith("models:/flights@champion is version 2\n")
    for text in ("no windows yet", "promoted", "drift_worker-0", "trainer-flights-0"):
        assert text in text_of(result)
    assert "training" not in result.output  # only the latest state of a retrain


def test_status_before_the_first_version_says_how_to_train_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelRegistry, "champion", lambda _: None)
    monkeypatch.setattr(reader, "read_last", lambda *_: [])
    monkeypatch.setattr(reader, "consumer_lag", lambda *_: {})
    result = run("status")
    assert result.exit_code == ExitCode.SUCCESS
    assert "no version yet: driftloop retrain" in text_of(result)
    assert "no retrains yet" in text_of(result)
