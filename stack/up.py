"""Start the whole system on this machine and keep it running until Ctrl-C: ``make up``."""

import shlex
import signal
import sys
import time

from driftloop.command_line import parse_settings
from driftloop.events import DataSelection
from driftloop.exit_codes import ExitCode
from driftloop.registry.model_registry import AliasMissing
from stack import prometheus
from stack.readiness import wait_until_ready
from stack.running import Stack, StackStartError
from stack.services import ServedUseCase
from stack.settings import StackSettings

DESCRIPTION = """Start Kafka, a GCS server, MLflow, the drift worker, and for each use case a predictor and a trainer.

Base datasets are put under DVC and into the store, and a first version is trained where there is none. Ctrl-C stops
everything and keeps the data. Settings of the services, such as DRIFTLOOP_WINDOW__ROWS, are passed on to them.
"""
EXAMPLES = """make up USE_CASE=usecases.loans:usecase
make up USE_CASE=usecases.loans:usecase,usecases.wine:usecase
DRIFTLOOP_USE_CASE=loans:usecase DRIFTLOOP_STACK__DATA_DIR=/tmp/loans python -m stack.up"""

READY_SECONDS = 300  # for a predictor to load a version; a busy machine has taken half a minute


def main() -> int:
    """Start, train first versions where there are none, wait for a signal or for a component to exit, stop."""
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell in the background starts us with it ignored
        signal.signal(number, signal.default_int_handler)
    try:
        with Stack(parse_settings(StackSettings, DESCRIPTION, EXAMPLES), print_line) as stack:
            for served in stack.use_cases:
                train_first_version(stack, served)
            for served in stack.use_cases:
                wait_until_served(stack, served)
            print_line(addresses(stack))
            while True:
                time.sleep(1)
                if ended := stack.exited():
                    print(f"{', '.join(ended)} ended; the logs are in {stack.folder / 'logs'}", file=sys.stderr)
                    return ExitCode.ERROR
    except StackStartError as error:
        print(error, file=sys.stderr)
        return ExitCode.ERROR
    except KeyboardInterrupt:
        print_line("stopped")
    return ExitCode.SUCCESS


def print_line(line: str) -> None:
    """Print a line at once."""
    print(f"{line}\n", end="", flush=True)  # at once: threads would print between a line and its end


def train_first_version(stack: Stack, served: ServedUseCase) -> None:
    """Train a first version on the rows that the use case names, if it has none yet."""
    try:
        if served.registry.champion_unless_first() is not None:
            return
    except AliasMissing as error:
        print_line(f"{served.name}: {error}")
        return
    data = served.use_case.first_version
    print_line(f"{served.name}: no version yet; trains the first on {describe(data)}")
    result = stack.retrain(
        "the first version",
        data,
        lambda change: print_line(f"{served.name}: {change.state}: {change.explanation}"),
        served.name,
    )
    if result.state != "promoted":
        print_line(
            f"{served.name}: there is no version to serve; once the cause is mended: source "
            f'{environment_path(stack, served)} && driftloop retrain --reason "the first version" --wait'
        )


def wait_until_served(stack: Stack, served: ServedUseCase) -> None:
    """Wait until the predictor answers with the version in service, if there is one: it loads it after its next poll.

    Raises:
        StackStartError: A component has ended.
    """
    version, began = served.registry.champion(), time.monotonic()
    if version is None:
        return
    name = served.component_name("predictor")
    print_line(f"{served.name}: the predictor loads version {version}")
    answer = wait_until_ready(served.component("predictor").url, READY_SECONDS, stack.require_running)
    waited = f"{time.monotonic() - began:.0f} s"
    print_line(
        f"{served.name}: version {version} is served after {waited}"
        if answer is None
        else f"{served.name}: version {version} is not served after {waited}; /readyz of the predictor responds "
        f"{answer}; its log: {stack.log_file(name)}"
    )


def describe(data: DataSelection) -> str:
    """Return in words which rows of a base dataset are selected."""
    parts = [
        f"rows from {data.start} on" if data.start else "",
        f"{'' if data.start else 'rows '}before {data.base_end}" if data.base_end else "",
        f"without {len(data.exclude_days)} days" if data.exclude_days else "",
        f"the last {data.last_rows:,} labelled rows" if data.last_rows else "",
    ]
    return ", ".join(part for part in parts if part) or "all rows"


def addresses(stack: Stack) -> str:
    """Return the addresses to open, and how to point commands at this stack."""
    url = {"prometheus": prometheus.NOT_INSTALLED} | {
        name: component.url for name, component in stack.components.items()
    }
    lines = [""]
    for served in stack.use_cases:
        lines += [
            served.name,
            f"  predictor   {served.component('predictor').url}/docs",
            f"  trainer     {served.component('trainer').url}/docs"
            f"   X-API-Key: {served.environment['DRIFTLOOP_TRAINER__API_KEY']}",
            f"  commands    source {environment_path(stack, served)}",
        ]
    lines += [
        f"drift worker  {url['drift_worker']}",
        f"MLflow        {url['mlflow']}",
        f"Prometheus    {url['prometheus']}",
        f"Kafka         {stack.kafka.bootstrap_servers}",
        f"Ctrl-C stops everything; the data stays in {stack.settings.stack.data_dir}: delete it to begin again.",
        "",
    ]
    return "\n".join(lines)


def environment_path(stack: Stack, served: ServedUseCase) -> str:
    """Return the file by which commands find a use case, as a shell takes it."""
    return shlex.quote(str(stack.settings.stack.data_dir / served.environment_file))


if __name__ == "__main__":
    sys.exit(main())
