"""One retrain without the service and without an event: for a runner of continuous integration, or a person.

The same life as in the service, from waiting to the alias, since it is the same code; only that the event comes from
the command line, and that its states are printed.
"""

import argparse
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kafka.errors import KafkaError
from pydantic import ValidationError

from driftloop.events import Event, ModelChange, Retrain, Wish
from driftloop.kafka.consumer_loop import NotNow, Received
from driftloop.kafka.publisher import Publisher, Unavailable
from driftloop.registry.model_registry import Registry
from driftloop.retrain_report import Report
from driftloop.settings import load, variables
from driftloop.telemetry import tracing
from driftloop.telemetry.health import configure_logging
from trainer.retrain import job, subprocess_job
from trainer.retrain.queue import Hears, Retrains
from trainer.retrain.subprocess_job import Child
from trainer.settings import TrainerSettings

LOOK_SECONDS = 0.2  # between two looks at the training
UNREACHABLE = 6
API_KEY = "DRIFTLOOP_TRAINER__API_KEY"
ABOUT = """Trains once, without a service: data, training, gate, registration, and the alias if the version is better.

The exit code is 0 when it was promoted, 3 when it was rejected, 4 when it failed, and 6 when registry, bucket or broker
are out of reach. A trainer that runs at the same time knows nothing of it."""
EXAMPLE = """driftloop-train '{"reason": "two new carriers", "data": {"last_rows": 50000}}'"""


class Printed:
    """Prints the states, and passes them on."""

    def __init__(self, on: Hears | None) -> None:
        """``on`` is told them, too."""
        self._on = on

    def publish(self, event: Event) -> None:
        """Takes one."""
        if isinstance(event, ModelChange):
            version = f" version {event.version}" if event.version else ""
            print(f"{event.state}{version}: {event.why}", flush=True)
        if self._on is not None:
            self._on.publish(event)


def main() -> None:
    """Settings, a process for training, one retrain."""
    given = _arguments()
    os.environ.setdefault(API_KEY, secrets.token_urlsafe())  # nobody is served
    settings = load(TrainerSettings)
    configure_logging("trainer", settings.log)
    subprocess_job.prepare([job.__name__])
    report = Report(given.wish, given.summary, given.annotate, given.mlflow)
    try:
        with tracing.running("trainer", settings.tracing), _told(settings, tell=given.tell) as hears:
            change = once(settings, given.wish.retrain(settings.use_case.name), hears)
    except (NotNow, Unavailable, KafkaError) as error:
        print(error, flush=True)
        report.told("not trained", str(error), "error")
        raise SystemExit(UNREACHABLE) from error
    raise SystemExit(report.ended(change))


def once(settings: TrainerSettings, retrain: Retrain, hears: Hears) -> ModelChange:
    """Runs a retrain to its end, which is published too; what is away ends it (:class:`NotNow`)."""
    mine = settings.trainer

    def begin(retrain: Retrain) -> Child:
        return Child(
            job.work,
            retrain.model_dump_json(),
            seconds=mine.longest_training_seconds,
            megabytes=mine.memory_mb,
        )

    retrains = Retrains(settings.use_case.name, Registry(settings.registry), hears, dict, begin)
    try:
        final = [*retrains.handle(Received(settings.topics.retrain, 0, 0, retrain, 0))]
        while not final:
            time.sleep(LOOK_SECONDS)
            final = [*retrains.idle()]
    finally:
        retrains.close()
    (end,) = final[0].events
    assert isinstance(end, ModelChange)
    hears.publish(end)
    return end


@contextmanager
def _told(settings: TrainerSettings, *, tell: bool) -> Iterator[Hears]:
    """Who hears the states: with ``tell`` the topic of models, which the service reads, too."""
    if tell:
        with Publisher(settings.kafka, settings.topics, "trainer") as publisher:
            yield Printed(publisher)
    else:
        yield Printed(None)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=f"{ABOUT}\n\nexample:\n  {EXAMPLE}\n\nsettings, as environment variables:\n"
        + "\n".join(variables(TrainerSettings)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("wish", type=_wish, help="what is asked for, as POST /retrain takes it (JSON)")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="append what has come of it, as Markdown")
    parser.add_argument("--mlflow", metavar="URL", help="where people open MLflow, for a link in the summary")
    parser.add_argument(
        "--annotate", action="store_true", help="tell GitHub how it ended; a rejection is a warning, with exit code 0"
    )
    parser.add_argument(
        "--tell",
        action="store_true",
        help="publish the states on the topic of models; without it a version that was promoted is on no probation",
    )
    return parser.parse_args()


def _wish(text: str) -> Wish:
    try:
        return Wish.model_validate_json(text)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise argparse.ArgumentTypeError("; ".join(problems)) from error
