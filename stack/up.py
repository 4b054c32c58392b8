"""Start the whole system on this machine and keep it running until Ctrl-C: ``make up``."""

import signal
import sys
import time
from datetime import date

from driftloop.command_line import load_settings_or_exit
from driftloop.events import DataSelection
from stack import prometheus
from stack.running import Stack, StackStartError
from stack.settings import StackSettings

FIRST_VERSION = DataSelection(start=date(2013, 1, 1), base_end=date(2013, 4, 1))


def main() -> int:
    """Start, train a first version if there is none, wait for a signal or for a component to exit, stop."""
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell in the background starts us with it ignored
        signal.signal(number, signal.default_int_handler)
    try:
        with Stack(load_settings_or_exit(StackSettings), print_line) as stack:
            if stack.registry.champion() is None:
                print_line("no version yet: training the first on January to March 2013")
                stack.retrain(
                    "the first version",
                    FIRST_VERSION,
                    lambda change: print_line(f"{change.state}: {change.explanation}"),
                )
            print_line(addresses(stack))
            while True:
                time.sleep(1)
                if ended := stack.exited():
                    print_line(f"{', '.join(ended)} ended; the logs are in {stack.folder / 'logs'}")
                    return 1
    except StackStartError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print_line("stopped")
    return 0


def print_line(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def addresses(stack: Stack) -> str:
    """Return the addresses to open, and how to point commands at this stack."""
    url = {"prometheus": prometheus.NOT_INSTALLED} | {
        name: component.url for name, component in stack.components.items()
    }
    return f"""
predictor     {url["predictor"]}/docs
drift worker  {url["drift_worker"]}/docs
trainer       {url["trainer"]}/docs   X-API-Key: {stack.environment["DRIFTLOOP_TRAINER__API_KEY"]}
MLflow        {url["mlflow"]}
Prometheus    {url["prometheus"]}
Kafka         {stack.kafka.bootstrap_servers}
For commands in another shell: source {stack.settings.stack.data_dir}/env
Ctrl-C stops everything; the data stays in {stack.settings.stack.data_dir} (make clean removes it).
"""


if __name__ == "__main__":
    sys.exit(main())
