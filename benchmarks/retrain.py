"""Retrains: from the event to the first answer of the new version, and how much of it is not the training itself.

The first version knows January to March; then the base dataset grows by a month a retrain. Somebody asks for a
prediction twenty times a second. The training itself is what the pipeline takes to learn: once for the gate, and once
more with the held-out rows. All else is delivery, data, gate, trial, reference, registration, and the swap.
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
from stack.running import CannotStart, Stack
from tests.support import flights_model, report, stack_fixture
from tests.support.processes import exit_on_sigterm
from tests.support.report import log
from tests.support.running_stack import isolated_settings

GOALS = {"seconds_beyond_training": "≤ 5", "failures": "0"}
BEGIN = date(2013, 1, 1)
FIRST, *LATER = (date(2013, month, 1) for month in range(4, 13))
RETRAINS, QUICK_RETRAINS = 5, 2
TRAINING = ("training", "refit")  # phases in which the pipeline learns, and nothing else is done
ASKED_SECONDS = 0.05
SWAP_SECONDS = 30


class Retrained(NamedTuple):
    """One retrain that was promoted."""

    seconds: float
    """From the event to the first answer of the new version."""
    phases: dict[str, float]
    """Seconds of each, as the trainer's metrics have them; ``delivery`` is what came before and after, the swap."""

    @property
    def beyond_training(self) -> float:
        """Seconds that the pipeline did not learn in."""
        return self.seconds - sum(self.phases.get(phase, 0) for phase in TRAINING)


class Asking(Thread):
    """Asks for one row again and again; knows when each version answered first, and how many answers were none."""

    def __init__(self, url: str) -> None:
        """Nothing is asked yet."""
        super().__init__(daemon=True)
        self.first: dict[str, float] = {}
        self.asked = self.failures = 0
        self._url = url
        self._enough = Event()

    def run(self) -> None:
        """Until it is stopped."""
        body = servers.instances(flights_model.rows(flights_model.WINTER)[:1])
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._enough.wait(ASKED_SECONDS):
                self.asked += 1
                answer = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
                if answer.is_success:
                    self.first.setdefault(answer.json()["version"], time.time())
                else:
                    self.failures += 1

    def stop(self) -> None:
        """Asks no more."""
        self._enough.set()
        self.join()


def main() -> int:
    """Runs everything; returns the exit code."""
    options = report.create_parser(f"{__doc__}\nNeeds what `make setup` installs.").parse_args()
    try:
        with exit_on_sigterm():
            figures, details = measure(QUICK_RETRAINS if options.quick else RETRAINS)
    except CannotStart as error:
        report.warn(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    report.write_results("retrain", figures, GOALS, details, options.json)
    return 0


def measure(count: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures and details."""
    settings = {"DRIFTLOOP_POLICY__ENABLED": "false"}
    with Stack(isolated_settings(stack_fixture.FOLDER), log, settings, fresh=True) as stack:
        first = retrain(stack, FIRST)
        with asking(stack) as clients:
            answers(clients, first)
            clients.failures = 0  # before its first version a predictor has nothing to answer with
            found = [retrained(stack, clients, end) for end in LATER[:count]]
    show(found)
    figures = {
        "seconds_beyond_training": median(one.beyond_training for one in found),
        "seconds": median(one.seconds for one in found),
        "failures": float(clients.failures),
    }
    return figures, {"retrains": [one._asdict() for one in found], "requests": clients.asked}


@contextmanager
def asking(stack: Stack) -> Iterator[Asking]:
    """Somebody who asks while the block runs."""
    clients = Asking(stack.parts["predictor"].url)
    clients.start()
    try:
        yield clients
    finally:
        clients.stop()


def retrained(stack: Stack, clients: Asking, end: date) -> Retrained:
    """One retrain on the days before ``end``. Raises :class:`CannotStart` where it brings no answer."""
    before = phases(stack)
    change = retrain(stack, end)
    (asked,) = reader.read_last(stack.kafka, stack.topics.retrain, 1)
    seconds = answers(clients, change) - asked.time.timestamp()
    took = {phase: total - before.get(phase, 0) for phase, total in phases(stack).items()}
    took["delivery"] = seconds - sum(took.values())
    one = Retrained(seconds, took)
    log(f"version {change.version}: {seconds:.1f} s, {one.beyond_training:.1f} of them beyond the training")
    return one


def answers(clients: Asking, change: ModelStateChanged) -> float:
    """When a promoted version answered first. Raises :class:`CannotStart` where it does not."""
    assert change.version is not None
    deadline = time.monotonic() + SWAP_SECONDS
    while change.version not in clients.first:
        if time.monotonic() > deadline:
            raise CannotStart(f"version {change.version} did not answer within {SWAP_SECONDS} s of its promotion")
        time.sleep(ASKED_SECONDS)  # as often as somebody asks
    return clients.first[change.version]


def retrain(stack: Stack, end: date) -> ModelStateChanged:
    """Asks for a version that knows the days before ``end``, and waits for it."""
    data = DataSelection(start=BEGIN, base_end=end, archive=False)
    change = stack.retrain(f"up to {end}", data, lambda _: None)
    if change.state != "promoted":
        raise CannotStart(f"a version of the days before {end} was not promoted: {change.explanation}")
    return change


def phases(stack: Stack) -> dict[str, float]:
    """Seconds that all trainings so far have spent in each phase."""
    text = httpx.get(f"{stack.parts['trainer'].url}/metrics", timeout=30).text
    return {
        sample.labels["phase"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "driftloop_trainer_phase_duration_seconds_sum"
    }


def show(found: list[Retrained]) -> None:
    """A column for each retrain."""
    names = list(dict.fromkeys(phase for one in found for phase in one.phases))
    shown = report.create_table("retrain: seconds", "phase", *(f"{number}" for number in range(2, len(found) + 2)))
    for name in names:
        shown.add_row(name, *(f"{one.phases.get(name, 0):.2f}" for one in found))
    shown.add_row("beyond training", *(f"{one.beyond_training:.2f}" for one in found))
    shown.add_row("all", *(f"{one.seconds:.2f}" for one in found))
    report.console.print(shown)


if __name__ == "__main__":
    sys.exit(main())
