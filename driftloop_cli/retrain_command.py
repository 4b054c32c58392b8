"""The command ``driftloop retrain``."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from rich.markup import escape

from driftloop.command_line import exit_on_invalid_settings, load_settings_or_exit, parse_url, user_name
from driftloop.errors import DependencyUnavailable
from driftloop.events import DataSelection, ModelStateChanged, RetrainRequest
from driftloop.exit_codes import ExitCode
from driftloop.retrain_report import RetrainReport
from driftloop.retrain_summary import RetrainSummary
from driftloop_cli.console import (
    AsJson,
    err,
    exit_on_registry_error,
    exit_with,
    out,
    print_json,
    print_message,
    print_notice,
)
from driftloop_cli.retrain_client import (
    HttpRetrainClient,
    KafkaRetrainClient,
    RetrainRequestRejected,
    SubmittedRetrain,
)
from driftloop_cli.settings import CliSettings, TrainerApiSettings
from driftloop_cli.status import STATE_COLORS

RetrainClient = KafkaRetrainClient | HttpRetrainClient

TRAINER_START_SECONDS = 30  # in which the trainer of a new model, which was started just before, joins its group
DATE = "%Y-%m-%d"
OPTIONS = {"start": "--from", "base_end": "--to", "last_rows": "--last-rows", "reason": "--reason"}
"""The options that set fields of the request under other names."""
Reason = Annotated[str, typer.Option(help="why a new version is needed; stored with the version and in every event")]
Wait = Annotated[bool, typer.Option("--wait", help="wait until the version is promoted or rejected, or training fails")]
Start = Annotated[
    datetime | None, typer.Option("--from", formats=[DATE], help="first day of base dataset and archive to train on")
]
BaseEnd = Annotated[
    datetime | None,
    typer.Option(
        "--to", formats=[DATE], help="day after the last one of the base dataset; the archive is not bounded by it"
    ),
]
LastRows = Annotated[
    int | None, typer.Option("--last-rows", min=1, help="use only rows from the N-th last labelled row onwards")
]
Archive = Annotated[bool, typer.Option(help="add archived predictions whose outcomes are known")]
TimeoutMinutes = Annotated[float, typer.Option(min=0, help="how long --wait waits")]
RequestedBy = Annotated[str | None, typer.Option(help="who requests the retrain; by default the current user")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="check access and selection and print the event, but do not request a retrain")
]
TrainerUrl = Annotated[
    str | None,
    typer.Option(
        parser=parse_url, metavar="URL", help="use the trainer's API with DRIFTLOOP_TRAINER__API_KEY instead of Kafka"
    ),
]
Summary = Annotated[
    Path | None, typer.Option(metavar="FILE", dir_okay=False, help="file to which a Markdown summary is appended")
]
MlflowUiUrl = Annotated[
    str | None,
    typer.Option(parser=parse_url, metavar="URL", help="URL of MLflow in a browser, for a link in the summary"),
]
GithubAnnotations = Annotated[
    bool,
    typer.Option(
        "--github-annotations",
        help="print the result as an annotation for GitHub; a rejection is a warning with exit code 0",
    ),
]


def retrain(
    reason: Reason,
    wait: Wait = False,
    start: Start = None,
    base_end: BaseEnd = None,
    last_rows: LastRows = None,
    archive: Archive = True,
    timeout_minutes: TimeoutMinutes = 60,
    requested_by: RequestedBy = None,
    dry_run: DryRun = False,
    trainer_url: TrainerUrl = None,
    summary: Summary = None,
    mlflow_ui_url: MlflowUiUrl = None,
    github_annotations: GithubAnnotations = False,
    as_json: AsJson = False,
) -> None:
    """Request a new version.

    The exit code is 0 if the version was promoted or, without --wait, requested; 2 if an option is invalid; 6 if Kafka
    or the trainer does not answer; 7 if the selection is refused, or the key by the trainer, or if neither the registry
    nor a trainer has the model. With --wait it is 3 if the version was rejected, 4 if the retrain failed and 5 if it
    took too long. A warning says if no trainer of the model runs: the retrain then waits for one.

        driftloop retrain --reason "two new carriers" --from 2013-01-01 --to 2013-04-01 --wait
    """
    request = _create_request(
        reason,
        requested_by or user_name(),
        {
            "start": start and start.date(),
            "base_end": base_end and base_end.date(),
            "archive": archive,
            "last_rows": last_rows,
        },
    )
    report = RetrainReport(request, summary, github_annotations, mlflow_ui_url)
    with exit_on_invalid_settings(), _report_errors(report), _retrain_client(trainer_url) as client:
        _warn_without_trainer(client, 0 if dry_run else TRAINER_START_SECONDS)
        if dry_run:
            _dry_run(client, request, report)
            return
        submitted = client.submit(request)
        say = print_notice if as_json else print_message
        say(f"retrain {submitted.id} requested")
        states: list[ModelStateChanged] = []
        if wait:
            code = _wait_for_result(client, submitted, report, timeout_minutes, states, on_stderr=as_json)
        else:
            code = ExitCode.SUCCESS
            report.write_message("requested", f"retrain {submitted.id}; this command does not wait for its result")
        if as_json:
            print_json({"retrain_id": submitted.id, "request": request, "states": states})
        raise typer.Exit(code)


def _warn_without_trainer(client: RetrainClient, start_seconds: float) -> None:
    """Print a warning if no trainer of the model runs, and refuse the request if the model does not exist either.

    Args:
        client: How the retrain is requested.
        start_seconds: How long to wait for the trainer of a model that does not exist yet: it may be starting.
    """
    if not isinstance(client, KafkaRetrainClient) or client.trainer_runs() is not False:
        return
    if not _is_registered(client):
        if start_seconds:
            print_notice(f"no trainer of {client.model} runs yet: waits {start_seconds} s for one to start")
        if _trainer_appears(client, start_seconds):
            return
        raise RetrainRequestRejected(
            f"there is no model {client.model} (DRIFTLOOP_REGISTRY__MODEL): the registry does not have it, and no "
            f"trainer of it runs (the consumer group {client.trainer_group} has no members)"
        )
    print_notice(f"no trainer of {client.model} runs: the retrain waits for one")


def _is_registered(client: KafkaRetrainClient) -> bool:
    from driftloop.registry.model_registry import ModelRegistry  # noqa: PLC0415  # MLflow takes seconds to import

    with exit_on_registry_error():
        return ModelRegistry(client.settings.registry).exists()


def _trainer_appears(client: KafkaRetrainClient, seconds: float) -> bool:
    """Return whether a trainer of the model joins its group in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if client.trainer_runs() is not False:
            return True
        time.sleep(1)  # the broker has no request that waits for a member
    return False


def _create_request(reason: str, requested_by: str, data: dict[str, object]) -> RetrainRequest:
    try:
        return RetrainRequest(reason=reason, requested_by=requested_by, data=DataSelection.model_validate(data))
    except ValidationError as error:
        message = "; ".join(map(_describe_problem, error.errors()))
        if any(problem["loc"] == ("reason",) for problem in error.errors()):
            raise typer.BadParameter(message) from error
        raise exit_with(ExitCode.REFUSED, message) from error


def _describe_problem(problem: ErrorDetails) -> str:
    """Return what is wrong with an option; an error of several names them by the fields of the request."""
    text = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        for field, option in OPTIONS.items():
            text = re.sub(rf"\b{field}\b", option, text)
        return text
    field = str(problem["loc"][-1])
    return f"{OPTIONS.get(field, field)} {problem['input']}: {text}"


def _dry_run(client: RetrainClient, request: RetrainRequest, report: RetrainReport) -> None:
    event = client.dry_run(request)
    out.print_json(event.model_dump_json(exclude={"id", "time"}, exclude_none=True))
    report.write_message("dry run", f"access and selection are valid; a retrain of {event.model} would be requested")


def _wait_for_result(
    client: RetrainClient,
    submitted: SubmittedRetrain,
    report: RetrainReport,
    timeout_minutes: float,
    states: list[ModelStateChanged],
    *,
    on_stderr: bool,
) -> ExitCode:
    """Print the retrain's states until the final one or the timeout, and collect them; return the exit code."""
    deadline = time.monotonic() + timeout_minutes * 60
    said = ""
    for state in submitted.states:
        if isinstance(state, RetrainSummary):
            if (notice := _describe_retrain_before(state)) != said:
                print_notice(notice)
                said = notice
        elif state is not None:
            states.append(state)
            _print_state(state, on_stderr=on_stderr)
            if state.is_final:
                return report.write_result(state)
        if time.monotonic() > deadline:
            break
    message = f"no result after {timeout_minutes:g} minutes; {_what_goes_on(client, states)}"
    print_notice(message)
    report.write_message("no result yet", f"retrain {submitted.id}: {message}", "error")
    return ExitCode.TIMED_OUT


def _describe_retrain_before(before: RetrainSummary) -> str:
    origin = f" ({before.requested_by})" if before.requested_by else ""
    return f"waiting for retrain {before.retrain_id}{origin}: {before.state}: {before.explanation}"


def _what_goes_on(client: RetrainClient, states: list[ModelStateChanged]) -> str:
    if isinstance(client, KafkaRetrainClient) and client.trainer_runs() is False:
        return f"no trainer of {client.model} runs, and the retrain waits for one"
    goes_on = "the retrain goes on" if states else "the retrain waits for its turn"
    return f"{goes_on}, driftloop status shows its result"


def _print_state(state: ModelStateChanged, *, on_stderr: bool) -> None:
    color = STATE_COLORS.get(state.state, "cyan")
    version = f" version {state.version}" if state.version else ""
    console = err if on_stderr else out
    console.print(f"[{color}]{state.state}[/]{version}: {escape(state.explanation)}", highlight=False, soft_wrap=True)


@contextmanager
def _retrain_client(trainer_url: str | None) -> Iterator[RetrainClient]:
    """Provide the client for the trainer's URL or, without one, for Kafka."""
    if trainer_url is None:
        settings = load_settings_or_exit(CliSettings)
        with KafkaRetrainClient(settings) as kafka_client:
            yield kafka_client
        return
    api_key = load_settings_or_exit(TrainerApiSettings).trainer.api_key.get_secret_value()
    with HttpRetrainClient(trainer_url, api_key) as http_client:
        yield http_client


@contextmanager
def _report_errors(report: RetrainReport) -> Iterator[None]:
    """Turn a request that was rejected or could not be sent into a message, a report and an exit code."""
    try:
        yield
    except (DependencyUnavailable, RetrainRequestRejected) as error:
        report.write_message("not requested", str(error), "error")
        code = ExitCode.REFUSED if isinstance(error, RetrainRequestRejected) else ExitCode.UNAVAILABLE
        raise exit_with(code, str(error)) from error
