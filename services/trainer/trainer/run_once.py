"""Run one retrain without the service: on a runner of continuous integration, or by hand.

The queue, the job and the gate are the service's own; only the request comes from the command line, and the states are
printed.
"""

import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from driftloop.command_line import exit_on_invalid_settings, help_epilog, load_settings_or_exit, parse_url, user_name
from driftloop.errors import BrokerUnavailable
from driftloop.events import Event, ModelStateChanged, RetrainRequest, RetrainRequested
from driftloop.exit_codes import ExitCode
from driftloop.kafka.consumed_message import ConsumedMessage
from driftloop.kafka.message_handler import RetryLater
from driftloop.kafka.publisher import Publisher
from driftloop.registry.model_registry import ModelRegistry
from driftloop.retrain_report import RetrainReport
from driftloop.telemetry import tracing
from driftloop.telemetry.logging import configure_logging
from trainer.event_publisher import EventPublisher
from trainer.job_starter import JobStarter
from trainer.retrain import job, subprocess_job
from trainer.retrain.queue import RetrainQueue
from trainer.settings import TrainerSettings

POLL_SECONDS = 0.2  # between two checks of the training
API_KEY = "DRIFTLOOP_TRAINER__API_KEY"
DESCRIPTION = """Train once without a service: data, training, gate, registration, and the alias if the version passes.

The exit code is 0 if the version was promoted, 3 if it was rejected, 4 if the retrain failed, and 6 if registry, store
or broker are unavailable. A trainer service that runs at the same time does not know of this retrain.
"""
EXAMPLES = """driftloop-train --request '{"reason": "two new branches", "data": {"last_rows": 50000}}'"""

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class PrintingPublisher:
    """Prints the states of a retrain, and passes them on to another publisher."""

    def __init__(self, publisher: EventPublisher | None) -> None:
        """Pass events on to ``publisher``, if there is one."""
        self._publisher = publisher

    def publish(self, event: Event) -> None:
        """Print a state; pass on any event."""
        if isinstance(event, ModelStateChanged):
            version = f" version {event.version}" if event.version else ""
            print(f"{event.state}{version}: {event.explanation}", flush=True)
        if self._publisher is not None:
            self._publisher.publish(event)


def main() -> None:
    """Run the command line."""
    app()


def _parse_request(text: str) -> RetrainRequest:
    try:
        request = RetrainRequest.model_validate_json(text)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise typer.BadParameter("; ".join(problems)) from error
    is_named = "requested_by" in request.model_fields_set
    return request if is_named else request.model_copy(update={"requested_by": user_name()})


@app.command(help=DESCRIPTION, epilog=help_epilog(TrainerSettings, EXAMPLES))
def train(
    request: Annotated[
        RetrainRequest,
        typer.Option(parser=_parse_request, metavar="JSON", help="the request, in the format of POST /retrain"),
    ],
    summary: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="file to which a Markdown summary is appended"),
    ] = None,
    mlflow_ui_url: Annotated[
        str | None,
        typer.Option(parser=parse_url, metavar="URL", help="URL of MLflow in a browser, for a link in the summary"),
    ] = None,
    github_annotations: Annotated[
        bool,
        typer.Option(
            "--github-annotations",
            help="print the result as an annotation for GitHub; a rejection is a warning with exit code 0",
        ),
    ] = False,
    publish_state: Annotated[
        bool,
        typer.Option(
            "--publish-state",
            help="publish the states on the topic of models; without it a promoted version has no probation",
        ),
    ] = False,
) -> None:
    """Run one retrain, and exit with a code that says how it ended."""
    os.environ.setdefault(API_KEY, secrets.token_urlsafe())  # required by the settings; nothing listens here
    settings = load_settings_or_exit(TrainerSettings)
    configure_logging("trainer", settings.log)
    with exit_on_invalid_settings():
        subprocess_job.preload([job.__name__])
    report = RetrainReport(request, summary, github_annotations, mlflow_ui_url)
    try:
        with (
            exit_on_invalid_settings(),
            tracing.tracing_session("trainer", settings.tracing),
            _publisher(settings, publish_state=publish_state) as publisher,
        ):
            event = request.to_event(settings.use_case.name, tracing.current_traceparent())
            change = run_once(settings, event, publisher)
    except (RetryLater, BrokerUnavailable) as error:
        print(error, file=sys.stderr, flush=True)
        report.write_message("not trained", str(error), "error")
        raise SystemExit(ExitCode.UNAVAILABLE) from error
    raise SystemExit(report.write_result(change))


class NoHistory:
    """No earlier retrains: the id of a retrain that runs once is always new."""

    def final_states(self) -> dict[str, ModelStateChanged]:
        """Return nothing."""
        return {}


def run_once(settings: TrainerSettings, retrain: RetrainRequested, publisher: EventPublisher) -> ModelStateChanged:
    """Run a retrain until its final state, publish that, and return it.

    Raises:
        RetryLater: A dependency is unavailable.
    """
    queue = RetrainQueue(
        settings.use_case.name,
        ModelRegistry(settings.registry),
        publisher,
        NoHistory(),
        JobStarter(settings.trainer),
    )
    try:
        commits = [*queue.handle(ConsumedMessage(settings.topics.retrain, 0, 0, retrain, 0))]
        while not commits:
            time.sleep(POLL_SECONDS)
            commits = [*queue.on_poll()]
    finally:
        queue.close()
    (state,) = commits[0].events
    if not isinstance(state, ModelStateChanged):
        raise TypeError(f"a retrain ended with {type(state).__name__} in place of its final state")
    publisher.publish(state)
    return state


@contextmanager
def _publisher(settings: TrainerSettings, *, publish_state: bool) -> Iterator[EventPublisher]:
    """Provide a publisher that prints, and with ``publish_state`` also publishes on the topic of models."""
    if publish_state:
        with Publisher(settings.kafka, settings.topics, "trainer") as kafka_publisher:
            yield PrintingPublisher(kafka_publisher)
    else:
        yield PrintingPublisher(None)
