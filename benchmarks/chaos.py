"""Faults of many kinds, one after another, on a stack under load: nothing is lost, doubled or stuck.

Two models are served at half of the first predictor's top speed, outcomes flow, and a retrain of each model is under
way. A fault lasts some seconds; then the time is measured until requests are answered, their events get to the topic
and the drift worker consumes. A process that has ended is started again, as a supervisor does. After every few faults
the load rests, and everything is counted that was answered, published, archived, judged, trained and promoted.

A fault that a consumer group has to notice may take a session timeout longer, which is not in the figures. The recovery
of Kafka, MLflow and the bucket begins when they have started again, that of the project's own processes with their
start. The seed of the faults is printed, and --seed repeats them.
"""

import argparse
import random
import secrets
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import httpx
from kafka.errors import KafkaError
from rich.markup import escape

from driftloop.errors import DriftloopError
from driftloop.kafka import reader
from stack.running import StackStartError
from tests.support import report, stack_fixture
from tests.support.chaos import counts, faults
from tests.support.chaos.counts import Counts, FaultResult
from tests.support.chaos.faults import Fault
from tests.support.chaos.load import Load
from tests.support.chaos.setup import running_system
from tests.support.chaos.system import FLIGHTS_PREDICTOR, RENTALS_PREDICTOR, SESSION_TIMEOUT_SECONDS, System
from tests.support.processes import exit_on_sigterm
from tests.support.report import log
from tests.support.waiting import wait_until

FOLDER = stack_fixture.ROOT / ".stack" / "chaos"
GOALS = {
    "faults": "≥ 100",
    "kinds": "≥ 12",
    "lost": "0",
    "doubled": "0",
    "stuck": "0",
    "longest_recovery_seconds": "≤ 10",
    "failed_requests_of_others": "0",
}
SETTLE_SECONDS = 900  # for retrains, outboxes, archive and swaps at the end of a round
MAX_PROBLEMS = 30  # that are printed; the JSON file has all


class Plan(NamedTuple):
    """How many faults there are, and how long things take."""

    faults: int
    round_faults: int
    """Faults between two counts."""
    hold_seconds: tuple[float, float]
    """How long a fault lasts, at least and at most."""
    measure_seconds: float
    stuck_seconds: float = 120
    """After the end of a fault; what does not go on by then counts as stuck, and is started again."""
    rate: float | None = None
    """Requests a second; ``None`` for half of the top speed."""


THOROUGH = Plan(120, 10, (1, 15), 10)
QUICK = Plan(8, 8, (1, 3), 2, rate=50)


class Findings(NamedTuple):
    """What a run has found."""

    results: list[FaultResult]
    counts: Counts
    not_back: list[str]
    """Components that hold more memory, files or sockets than before."""
    details: dict[str, Any]


def main() -> int:
    """Run the benchmark; return the exit code."""
    options = _parse_options()
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    log(f"seed {seed}: repeat with --seed {seed}")
    plan = QUICK if options.quick else THOROUGH
    plan = plan._replace(faults=options.faults or plan.faults, rate=options.rate or plan.rate)
    try:
        with exit_on_sigterm(), running_system(FOLDER, log) as system:
            source = random.Random(seed)
            drawn = faults.draw(source, plan.faults, system.disks)
            findings = run(system, drawn, plan, source)
    except StackStartError as error:
        report.warn(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    print_table(findings)
    details = {"seed": seed, **findings.details}
    report.write_results("chaos", counts.figures(findings.results, findings.counts), GOALS, details, options.json)
    return 1 if has_failed(findings) else 0


def _parse_options() -> argparse.Namespace:
    parser = report.create_parser(f"{__doc__}\nRun `make setup` first.")
    parser.add_argument("--seed", type=int, help="repeat the faults of an earlier run, which has printed its seed")
    parser.add_argument("--faults", type=int, metavar="N", help="how many faults to draw")
    parser.add_argument("--rate", type=float, metavar="R", help="requests a second in place of half of the top speed")
    return parser.parse_args()


def run(system: System, drawn: Sequence[Fault], plan: Plan, source: random.Random) -> Findings:
    """Cause the faults one after another under load, and count what they have done."""
    load = Load(system, system.stack.folder)
    top, rate = load.set_half_speed(plan.measure_seconds, plan.rate)
    log(f"top speed {top:,.0f} requests a second; the load has {rate:,.0f}")
    total = Counts()
    results: list[FaultResult] = []
    _settle(system, total)  # what the measurement has left
    before = system.resources()
    for number, fault in enumerate(drawn, 1):
        results.append(_cause(system, load, fault, plan, source))
        last = results[-1]
        state = f"stuck: {'; '.join(last.stuck)}" if last.stuck else f"goes on after {last.seconds:.1f} s"
        log(escape(f"{number} of {len(drawn)}, {fault.kind}: {fault.name}: {state}, {last.failed:,} requests failed"))
        if number % plan.round_faults == 0 or number == len(drawn):
            log("the load rests; counting")
            _settle(system, total)
            total += system.audit.count_round()
            log(f"{total.lost.total()} lost, {total.doubled.total()} doubled so far")
    total += system.audit.count_rest()
    not_back = counts.not_back(before, system.resources())
    details = {
        "requests_per_second_at_top": top,
        "requests_per_second": rate,
        "session_timeout_seconds": SESSION_TIMEOUT_SECONDS,
        "small_disks": sorted(system.disks),
        "retrains": len(system.audit.retrains),
        "exits_without_a_kill": system.exits,
        "results": [result._asdict() for result in results],
        "problems": total.problems,
        "not_back": not_back,
    }
    return Findings(results, total, not_back, details)


def _cause(system: System, load: Load, fault: Fault, plan: Plan, source: random.Random) -> FaultResult:
    """Cause a fault under load, end it, and wait until everything goes on."""
    hold_seconds = source.uniform(*plan.hold_seconds)
    with suppress(DriftloopError):  # then there is none during this fault
        system.keep_retraining(fault.name)
    with load.running(fault.name) as answers:
        try:
            load.wait_until_flowing()
            with ExitStack() as active:
                active.enter_context(fault.cause(system, source))
                time.sleep(hold_seconds)
                system.fault_ended_at = time.monotonic()
        except (AssertionError, DriftloopError, KafkaError) as error:
            seconds, stuck = 0.0, [f"the fault could not be caused or ended: {type(error).__name__}: {error}"]
        else:
            seconds, stuck = system.wait_until_going_on(plan.stuck_seconds)
        if stuck:
            log(escape(f"{fault.name}: {'; '.join(stuck)}; all services are started again"))
            system.start_all()
            system.fault_ended_at = time.monotonic()
            stuck += [f"after a restart, too: {each}" for each in system.wait_until_going_on(plan.stuck_seconds)[1]]
    allowance = SESSION_TIMEOUT_SECONDS if fault.needs_session_timeout else 0
    return FaultResult(
        fault.name, fault.kind, answers.failed, max(seconds - allowance, 0), stuck, fault.is_predictors_own
    )


def _settle(system: System, total: Counts) -> None:
    """Wait until nothing is under way any more; what does not end in time is counted as lost."""
    audit, stack = system.audit, system.stack

    def ready() -> bool | None:
        return not system.not_ready() or None

    def retrains_ended() -> bool | None:
        return audit.retrains.keys() <= audit.final_retrains() or None

    def outboxes_empty() -> bool | None:
        names = (FLIGHTS_PREDICTOR, RENTALS_PREDICTOR)
        return sum(system.metric(name, "driftloop_outbox_pending_events") for name in names) == 0 or None

    def archived() -> bool | None:
        return reader.is_caught_up(stack.kafka, "drift_worker", audit.topics) or None

    def swapped() -> bool | None:
        return all(alias == serving for alias, serving in map(audit.alias_and_serving, stack.use_cases)) or None

    def no_orphans() -> bool | None:
        return audit.overlapping_slices() == 0 or None

    for condition, description in (
        (ready, "all services are ready"),
        (retrains_ended, "all retrains have ended"),
        (outboxes_empty, "all outboxes are empty"),
        (archived, "everything is archived"),
        (swapped, "the aliases' versions serve"),
        (no_orphans, "no slice overlaps another one"),
    ):

        def is_met(condition: Any = condition) -> bool | None:
            system.restart_exited()
            try:
                return bool(condition()) or None
            except (DriftloopError, KafkaError, httpx.HTTPError):
                return None

        try:
            wait_until(is_met, description, SETTLE_SECONDS)
        except AssertionError as error:
            total.note(total.lost, counts.AT_THE_END, str(error))


def print_table(findings: Findings) -> None:
    """Print a line for each fault, and what is wrong in words."""
    table = report.create_table(
        "chaos: faults", "fault", "kind", "times", "failed requests", "seconds to recover", "lost", "doubled", "stuck"
    )
    for line in counts.summarize(findings.results, findings.counts):
        seconds = f"{line.seconds:.1f}" if line.times else ""
        cells = (line.times, f"{line.failed:,}", seconds, line.lost, line.doubled, line.stuck)
        table.add_row(line.name, line.kind, *map(str, cells))
    report.console.print(table)
    problems = findings.counts.problems + findings.not_back
    for problem in problems[:MAX_PROBLEMS]:
        report.warn(escape(problem))
    if len(problems) > MAX_PROBLEMS:
        report.warn(f"and {len(problems) - MAX_PROBLEMS} more")


def has_failed(findings: Findings) -> bool:
    """Return whether something was lost, doubled or stuck, holds more than before, or failed requests of others."""
    wrong = findings.counts.lost.total() + findings.counts.doubled.total() + len(findings.not_back)
    others = [result.failed for result in findings.results if not result.is_predictors_own]
    return wrong > 0 or sum(others) > 0 or any(result.stuck for result in findings.results)


if __name__ == "__main__":
    sys.exit(main())
