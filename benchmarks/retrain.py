"""Retrain time: from the request to the first response of the new version, and how much of it is not training.

The first version is trained on January to March; each retrain adds a month to the base dataset, while a client requests
a prediction twenty times a second. Training is the time in which the pipeline is fitted: once for the gate, and once
more with the holdout. Everything else is delivery, data, gate, smoke test, reference, registration and swap.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from statistics import median
from threading import Event, Thread
from typing import Any, NamedTuple

import httpx
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.peers import servers
from driftloop.events import DataSelection, ModelStateChanged
from driftloop.kafka import reader
from stack.running import Stack, StackStartError
from tests.support import flights_model, report, stack_fixture
from tests.support.processes import exit_on_sigterm
from tests.support.report import log
from tests.support.running_stack import isolated_settings

GOALS = {"seconds_beyond_training": "≤ 5", "failures": "0"}
DATA_START = date(2013, 1, 1)
FIRST_END, *LATER_ENDS = (date(2013, month, 1) for month in range(4, 13))
RETRAINS, QUICK_RETRAINS = 5, 2
TRAINING_PHASES = ("training", "refit")  # phases in which the pipeline is fitted, and nothing else is done
REQUEST_INTERVAL_SECONDS = 0.05
SWAP_TIMEOUT_SECONDS = 30


class RetrainTiming(NamedTuple):
    """Durations of one promoted retrain."""

    seconds: float
    """From the request event to the first response of the new version."""
    phases: dict[str, float]
    """Seconds by phase, from the trainer's metrics; ``delivery`` is the rest, before and after, with the swap."""

    @property
    def beyond_training(self) -> float:
        """Seconds in which the pipeline was not fitted."""
        return self.seconds - sum(self.phases.get(phase, 0) for phase in TRAINING_PHASES)


class PredictionClient(Thread):
    """Requests the prediction of one row repeatedly; records each version's first response, and failures."""

    def __init__(self, url: str) -> None:
        """Set the predictor's address; :meth:`start` starts the requests."""
        super().__init__(daemon=True)
        self.first_response: dict[str, float] = {}
        self.requests = self.failures = 0
        self._url = url
        self._stopped = Event()

    def run(self) -> None:
        """Send requests until :meth:`stop` is called."""
        body = servers.encode_instances(flights_model.sample_rows(flights_model.WINTER)[:1])
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._stopped.wait(REQUEST_INTERVAL_SECONDS):
                self.requests += 1
                response = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
                if response.is_success:
                    self.first_response.setdefault(response.json()["version"], time.time())
                else:
                    self.failures += 1

    def stop(self) -> None:
        """Stop sending requests."""
        self._stopped.set()
        self.join()


def main() -> int:
    """Run the benchmark; return the exit code."""
    options = report.create_parser(f"{__doc__}\nRun `make setup` first.").parse_args()
    try:
        with exit_on_sigterm():
            figures, details = measure(QUICK_RETRAINS if options.quick else RETRAINS)
    except StackStartError as error:
        report.warn(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    report.write_results("retrain", figures, GOALS, details, options.json)
    return 0


def measure(count: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Time ``count`` retrains; return figures and details."""
    settings = {"DRIFTLOOP_POLICY__ENABLED": "false"}
    with Stack(isolated_settings(stack_fixture.STACK_DIR), log, settings, reset=True) as stack:
        first = run_retrain(stack, FIRST_END)
        with running_client(stack) as client:
            wait_for_first_response(client, first)
            client.failures = 0  # before its first version the predictor responds with 503
            timings = [time_retrain(stack, client, end) for end in LATER_ENDS[:count]]
    print_table(timings)
    figures = {
        "seconds_beyond_training": median(timing.beyond_training for timing in timings),
        "seconds": median(timing.seconds for timing in timings),
        "failures": float(client.failures),
    }
    return figures, {"retrains": [timing._asdict() for timing in timings], "requests": client.requests}


@contextmanager
def running_client(stack: Stack) -> Iterator[PredictionClient]:
    """Run a client for the duration of the block."""
    client = PredictionClient(stack.components["predictor"].url)
    client.start()
    try:
        yield client
    finally:
        client.stop()


def time_retrain(stack: Stack, client: PredictionClient, end: date) -> RetrainTiming:
    """Time one retrain on the days before ``end``.

    Raises:
        StackStartError: The new version is not promoted or does not serve.
    """
    before = read_phase_seconds(stack)
    change = run_retrain(stack, end)
    (request,) = reader.read_last(stack.kafka, stack.topics.retrain, 1)
    seconds = wait_for_first_response(client, change) - request.time.timestamp()
    phases = {phase: total - before.get(phase, 0) for phase, total in read_phase_seconds(stack).items()}
    phases["delivery"] = seconds - sum(phases.values())
    timing = RetrainTiming(seconds, phases)
    log(f"version {change.version}: {seconds:.1f} s, {timing.beyond_training:.1f} of them beyond training")
    return timing


def wait_for_first_response(client: PredictionClient, change: ModelStateChanged) -> float:
    """Return when a promoted version responded first, in seconds since 1970.

    Raises:
        StackStartError: The version does not respond in time.
    """
    assert change.version is not None
    deadline = time.monotonic() + SWAP_TIMEOUT_SECONDS
    while change.version not in client.first_response:
        if time.monotonic() > deadline:
            raise StackStartError(
                f"version {change.version} did not respond within {SWAP_TIMEOUT_SECONDS} s of its promotion"
            )
        time.sleep(REQUEST_INTERVAL_SECONDS)
    return client.first_response[change.version]


def run_retrain(stack: Stack, end: date) -> ModelStateChanged:
    """Request a version that is trained on the days before ``end``, and wait for its promotion.

    Raises:
        StackStartError: The version is not promoted.
    """
    data = DataSelection(start=DATA_START, base_end=end, archive=False)
    change = stack.retrain(f"up to {end}", data, lambda _: None)
    if change.state != "promoted":
        raise StackStartError(f"a version of the days before {end} was not promoted: {change.explanation}")
    return change


def read_phase_seconds(stack: Stack) -> dict[str, float]:
    """Return the seconds that all retrains so far have spent in each phase."""
    text = httpx.get(f"{stack.components['trainer'].url}/metrics", timeout=30).text
    return {
        sample.labels["phase"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "driftloop_trainer_phase_duration_seconds_sum"
    }


def print_table(timings: list[RetrainTiming]) -> None:
    """Print the seconds of each phase, a column per retrain."""
    phases = list(dict.fromkeys(phase for timing in timings for phase in timing.phases))
    versions = [f"{number}" for number in range(2, len(timings) + 2)]
    table = report.create_table("retrain: seconds", "phase", *versions)
    for phase in phases:
        table.add_row(phase, *(f"{timing.phases.get(phase, 0):.2f}" for timing in timings))
    table.add_row("beyond training", *(f"{timing.beyond_training:.2f}" for timing in timings))
    table.add_row("all", *(f"{timing.seconds:.2f}" for timing in timings))
    report.console.print(table)


if __name__ == "__main__":
    sys.exit(main())
