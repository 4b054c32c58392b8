"""An hour of steady load on the whole stack: lag, latency, memory, open files and disk stay as they are.

Two models are served, and outcomes of the second one flow. The load is half of the first predictor's top speed; with
--at-limit it is the rate at which the slowest part just keeps up: the rate goes up as long as neither an outbox nor
what the drift worker has not read grows steadily. What must stay flat is judged by the median slope of the last two
thirds, against a bound that is printed. --beyond sends at 1.5 times that limit for some minutes afterwards, and reports
which part lags or refuses first, what callers get, and how long it takes until nothing waits any more.
--archived-slices begins with an archive of so many slices of each topic, none of them merged.
"""

import argparse
import secrets
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from rich.markup import escape

from benchmarks import soak_archive, soak_findings, soak_trends
from benchmarks.soak_findings import Beyond, Findings, Period
from benchmarks.soak_samples import Sampler
from benchmarks.soak_trends import Probe, Sample
from stack.running import StackStartError
from tests.support import report, stack_fixture
from tests.support.chaos.load import Load
from tests.support.chaos.setup import running_system
from tests.support.chaos.system import System
from tests.support.processes import exit_on_sigterm
from tests.support.report import log

FOLDER = stack_fixture.ROOT / ".stack" / "soak"
CONNECTIONS = 64
BEYOND_CONNECTIONS = 256  # a caller for each request that has no answer yet, as in production
BEYOND_FACTOR = 1.5
LIMIT_FACTOR = 1.15
PROGRESS_LINES = 20


class NoLimit(Exception):
    """Something did not keep up with any rate; the message says what."""


class Plan(NamedTuple):
    """How long things take."""

    minutes: float
    interval: float
    """Seconds between two samples."""
    top_seconds: float
    probe_seconds: float
    """Of a rate that is tried."""
    beyond_seconds: float


THOROUGH = Plan(60, 5, 15, 60, 300)
QUICK = Plan(3, 2, 3, 12, 60)


def main() -> int:
    """Run the benchmark; return the exit code."""
    options = _parse_options()
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    log(f"seed {seed}: repeat the order of the rows with --seed {seed}")
    plan = QUICK if options.quick else THOROUGH
    plan = plan._replace(minutes=options.minutes or plan.minutes)
    try:
        with exit_on_sigterm(), running_system(FOLDER, log, with_faults=False) as system:
            load = Load(system, system.stack.folder, seed)
            if options.archived_slices:
                soak_archive.make_archive(system, load, options.archived_slices)
            findings = run(system, load, plan, options.rate, options.beyond, at_limit=options.at_limit)
    except (StackStartError, NoLimit, AssertionError) as error:
        report.warn(escape(str(error)))
        return 1
    except KeyboardInterrupt:
        return 130
    soak_findings.print_tables(findings)
    if options.plot is not None:
        soak_findings.draw(findings, options.plot)
        log(f"picture written to {options.plot}")
    found = {"seed": seed, **soak_findings.details(findings)}
    report.write_results("soak", soak_findings.figures(findings), soak_findings.GOALS, found, options.json)
    return 1 if soak_findings.has_failed(findings) else 0


def _parse_options() -> argparse.Namespace:
    parser = report.create_parser(f"{__doc__}\nRun `make setup` first. --quick takes 3 minutes in place of 60.")
    parser.add_argument("--minutes", type=float, metavar="N", help="how long the steady load lasts")
    parser.add_argument("--rate", type=float, metavar="R", help="requests a second in place of half of the top speed")
    parser.add_argument("--at-limit", action="store_true", help="as fast as the slowest part keeps up with")
    parser.add_argument(
        "--beyond",
        type=float,
        nargs="?",
        const=BEYOND_FACTOR,
        metavar="FACTOR",
        help="some minutes at so many times that rate afterwards (default: %(const)s)",
    )
    parser.add_argument(
        "--archived-slices", type=int, metavar="N", help="slices of each topic that are in the archive at the beginning"
    )
    parser.add_argument("--plot", type=_picture, metavar="FILE", help="write a picture (.png or .svg)")
    parser.add_argument("--seed", type=int, help="repeat the order of the rows of an earlier run, which has printed it")
    options = parser.parse_args()
    if options.rate and options.at_limit:
        parser.error("--rate and --at-limit both choose the rate: give one of them")
    return options


def _picture(name: str) -> Path:
    file = Path(name)
    if file.suffix not in {".png", ".svg"}:
        raise argparse.ArgumentTypeError(f"{name} ends with neither .png nor .svg")
    if not file.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {file.parent}")
    return file


def run(
    system: System, load: Load, plan: Plan, rate: float | None, beyond_factor: float | None, *, at_limit: bool
) -> Findings:
    """Put the stack under load, and see how it does.

    Args:
        system: A stack at rest.
        load: What is sent.
        plan: How long things take.
        rate: Requests a second in place of half of the top speed.
        beyond_factor: How many times the limit is sent at the end; ``None`` for not at all.
        at_limit: Whether the steady load is the limit.

    Raises:
        NoLimit: Not even the lowest rate was low enough.
    """
    sampler = Sampler(system)
    top = load.measure_top_speed(plan.top_seconds, CONNECTIONS)
    log(f"top speed {top:,.0f} requests a second over {CONNECTIONS} connections")
    sampler.wait_until_drained()
    limit, probes = find_limit(sampler, load, plan, top) if at_limit or beyond_factor else (None, [])
    chosen = rate or (limit if at_limit and limit else top / 2)
    log(f"{plan.minutes:g} minutes of {chosen:,.0f} requests a second")
    steady = under_load(sampler, load, chosen, plan.minutes * 60, plan.interval, CONNECTIONS)
    sampler.wait_until_drained()
    beyond = overload(sampler, load, limit * beyond_factor, plan) if beyond_factor and limit else None
    trends = soak_trends.trends(steady.samples, steady.intervals, chosen)
    return Findings(top, limit, probes, steady, trends, beyond)


def under_load(
    sampler: Sampler,
    load: Load,
    rate: float,
    seconds: float,
    interval: float,
    connections: int = CONNECTIONS,
    *,
    with_resources: bool = True,
) -> Period:
    """Send requests for some time, and take samples."""
    samples: list[Sample] = []
    count = int(seconds / interval)
    with load.steady(rate, connections, interval) as answers:
        for sample in sampler.samples(seconds, interval, with_resources=with_resources):
            samples.append(sample)
            if with_resources and count and len(samples) % max(count // PROGRESS_LINES, 1) == 0:
                log(describe(sample, sample.time - samples[0].time))
    return Period(rate, samples, answers)


def describe(sample: Sample, seconds: float) -> str:
    """Return a sample as a line of progress."""
    memory = ", ".join(f"{name} {held.memory_mb:,.0f}" for name, held in sample.resources.items())
    waiting = f"{sample.unread_events:,.0f} events unread, {sample.outbox_events:,.0f} in outboxes"
    return f"{seconds / 60:.1f} minutes: {waiting}, {sum(sample.disk_mb.values()):,.0f} MB of disk; MB: {memory}"


def find_limit(sampler: Sampler, load: Load, plan: Plan, top: float) -> tuple[float, list[Probe]]:
    """Return the highest rate that all parts keep up with, and what was tried. Raises :class:`NoLimit`."""
    probes: list[Probe] = []

    def keeps_up(rate: float) -> bool:
        period = under_load(sampler, load, rate, plan.probe_seconds, 1, with_resources=False)
        probe = soak_trends.judge_probe(rate, period.samples, period.intervals)
        probes.append(probe)
        state = f"too much for {', '.join(probe.too_slow)}" if probe.too_slow else "all keep up"
        growths = f"outbox {probe.outbox_growth:+,.0f}, unread {probe.unread_growth:+,.0f} events a second"
        log(f"{rate:,.0f} requests a second: {state}; {probe.answered_rate:,.0f} answered, {growths}")
        sampler.wait_until_drained()
        return not probe.too_slow

    limit = soak_trends.find_limit(keeps_up, top / 2, LIMIT_FACTOR)
    if not limit:
        raise NoLimit(
            f"{' and '.join(probes[-1].too_slow)} did not keep up with {probes[-1].rate:.1f} requests a second"
        )
    log(f"the limit is {limit:,.0f} requests a second")
    return limit, probes


def overload(sampler: Sampler, load: Load, rate: float, plan: Plan) -> Beyond:
    """Send more than what all parts keep up with; then wait until nothing waits any more."""
    log(f"{plan.beyond_seconds:g} seconds of {rate:,.0f} requests a second, beyond the limit")
    period = under_load(sampler, load, rate, plan.beyond_seconds, plan.interval, BEYOND_CONNECTIONS)
    signs = soak_trends.first_signs(rate, period.samples, period.intervals)
    seconds = sampler.wait_until_drained(period.samples.append)
    retry_after = sum((Counter(interval.retry_after) for interval in period.intervals), Counter[str]())
    return Beyond(period, signs, soak_trends.statuses(period.intervals), retry_after, seconds)


if __name__ == "__main__":
    sys.exit(main())
