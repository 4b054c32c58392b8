"""An hour of steady load on the whole stack: lag, latency, memory, open files and disk stay as they are.

Two models are served, and outcomes of the second one flow. The load is half of the first predictor's top speed; with
--at-limit it is the rate at which the slowest part just keeps up: the rate goes up as long as neither an outbox nor
what the drift worker has not read grows steadily. What must stay flat is judged by the median slope of the last two
thirds, against a bound that is printed. --beyond sends at 1.5 times that limit for some minutes afterwards, and reports
which part lags or refuses first, what callers get, and how long it takes until nothing waits any more.
"""

import argparse
import secrets
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.markup import escape

from benchmarks import soak_trends
from benchmarks.soak_picture import draw_picture
from benchmarks.soak_samples import Sampler
from benchmarks.soak_trends import Probe, Sample, Trend
from stack.running import StackStartError
from tests.support import report, stack_fixture
from tests.support.chaos.load import Load, SteadyLoad
from tests.support.chaos.setup import running_system
from tests.support.chaos.system import System
from tests.support.load_client import Interval
from tests.support.processes import exit_on_sigterm
from tests.support.report import log

FOLDER = stack_fixture.ROOT / ".stack" / "soak"
CONNECTIONS = 64
BEYOND_CONNECTIONS = 256  # a caller for each request that has no answer yet, as in production
BEYOND_FACTOR = 1.5
LIMIT_FACTOR = 1.15
PROGRESS_LINES = 20
MAX_LAG_SECONDS = 30
GOALS = {
    "not_flat": "0",
    "failed_requests": "0",
    "lag_seconds_max": f"≤ {MAX_LAG_SECONDS}",
}


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


@dataclass
class Period:
    """A load of one rate, and what was seen meanwhile."""

    rate: float
    samples: list[Sample] = field(default_factory=list)
    load: SteadyLoad = field(default_factory=SteadyLoad)

    @property
    def intervals(self) -> list[Interval]:
        """What the callers of the first model got."""
        return self.load.intervals


class Beyond(NamedTuple):
    """What a load beyond the limit has done."""

    period: Period
    signs: list[tuple[float, str]]
    statuses: Counter[int]
    retry_after: Counter[str]
    seconds_to_recover: float


class Findings(NamedTuple):
    """What a run has found."""

    top: float
    limit: float | None
    probes: list[Probe]
    steady: Period
    trends: list[Trend]
    beyond: Beyond | None


def main() -> int:
    """Run the benchmark; return the exit code."""
    options = _parse_options()
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    log(f"seed {seed}: repeat the order of the rows with --seed {seed}")
    plan = QUICK if options.quick else THOROUGH
    plan = plan._replace(minutes=options.minutes or plan.minutes)
    try:
        with exit_on_sigterm(), running_system(FOLDER, log, with_faults=False) as system:
            findings = run(system, plan, seed, options.rate, at_limit=options.at_limit, with_beyond=options.beyond)
    except (StackStartError, AssertionError) as error:
        report.warn(escape(str(error)))
        return 1
    except KeyboardInterrupt:
        return 130
    print_tables(findings)
    if options.plot is not None:
        _draw(findings, options.plot)
        log(f"picture written to {options.plot}")
    report.write_results("soak", figures(findings), GOALS, {"seed": seed, **details(findings)}, options.json)
    return 1 if has_failed(findings) else 0


def _parse_options() -> argparse.Namespace:
    parser = report.create_parser(f"{__doc__}\nRun `make setup` first. --quick takes 3 minutes in place of 60.")
    parser.add_argument("--minutes", type=float, metavar="N", help="how long the steady load lasts")
    parser.add_argument("--rate", type=float, metavar="R", help="requests a second in place of half of the top speed")
    parser.add_argument("--at-limit", action="store_true", help="as fast as the slowest part keeps up with")
    parser.add_argument("--beyond", action="store_true", help="some minutes at 1.5 times that rate afterwards")
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


def run(system: System, plan: Plan, seed: int, rate: float | None, *, at_limit: bool, with_beyond: bool) -> Findings:
    """Put the stack under load, and see how it does."""
    load = Load(system, system.stack.folder, seed)
    sampler = Sampler(system)
    top = load.measure_top_speed(plan.top_seconds, CONNECTIONS)
    log(f"top speed {top:,.0f} requests a second over {CONNECTIONS} connections")
    sampler.wait_until_drained()
    limit, probes = find_limit(sampler, load, plan, top) if at_limit or with_beyond else (None, [])
    chosen = rate or (limit if at_limit and limit else top / 2)
    log(f"{plan.minutes:g} minutes of {chosen:,.0f} requests a second")
    steady = under_load(sampler, load, chosen, plan.minutes * 60, plan.interval, CONNECTIONS)
    sampler.wait_until_drained()
    beyond = overload(sampler, load, limit * BEYOND_FACTOR, plan) if with_beyond and limit else None
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
    """Return the highest rate that all parts keep up with, and what was tried."""
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
    log(f"the limit is {limit:,.0f} requests a second")
    return limit, probes


def overload(sampler: Sampler, load: Load, rate: float, plan: Plan) -> Beyond:
    """Send more than what all parts keep up with; then wait until nothing waits any more."""
    log(f"{plan.beyond_seconds:g} seconds of {rate:,.0f} requests a second, which is beyond the limit")
    period = under_load(sampler, load, rate, plan.beyond_seconds, plan.interval, BEYOND_CONNECTIONS)
    signs = soak_trends.first_signs(rate, period.samples, period.intervals)
    seconds = sampler.wait_until_drained(period.samples.append)
    retry_after = sum((Counter(interval.retry_after) for interval in period.intervals), Counter[str]())
    return Beyond(period, signs, soak_trends.statuses(period.intervals), retry_after, seconds)


def figures(findings: Findings) -> dict[str, float]:
    """Return the figures of the benchmark by name."""
    steady = findings.steady
    samples = steady.samples[soak_trends.last_two_thirds([sample.time for sample in steady.samples])]
    by_name = {trend.name: trend for trend in findings.trends}
    hours = (samples[-1].time - samples[0].time) / soak_trends.HOUR
    milliseconds = [value for interval in steady.intervals for value in interval.milliseconds]
    seconds = steady.samples[-1].time - steady.samples[0].time
    values = {
        "requests_per_second_at_top": findings.top,
        "requests_per_second": len(milliseconds) / seconds,
        "not_flat": float(sum(not trend.is_flat for trend in findings.trends)),
        "failed_requests": float(failed_requests(steady)),
        "latency_p50_ms": float(np.percentile(milliseconds, 50)),
        "latency_p99_ms": float(np.percentile(milliseconds, 99)),
        "lag_seconds_max": max((lag for sample in samples for lag in sample.lag_seconds.values()), default=0.0),
        "outbox_events_max": max(sample.outbox_events for sample in samples),
        "memory_growth_mb_per_hour": max(by_name[f"memory of {name}"].per_hour for name in samples[0].resources),
        "files_growth": max(by_name[f"files of {name}"].per_hour for name in samples[0].resources) * hours,
        "disk_mb_per_million_rows": soak_trends.disk_mb_per_million_rows(steady.samples, steady.intervals),
    }
    if findings.limit is not None:
        values["limit_requests_per_second"] = findings.limit
    if (beyond := findings.beyond) is not None:
        values |= {
            "beyond_requests_per_second": beyond.period.rate,
            "beyond_refused_requests": float(beyond.statuses.total() - beyond.statuses[200]),
            "beyond_outbox_events_max": max(sample.outbox_events for sample in beyond.period.samples),
            "beyond_unread_events_max": max(sample.unread_events for sample in beyond.period.samples),
            "beyond_seconds_to_recover": beyond.seconds_to_recover,
        }
    return values


def failed_requests(period: Period) -> int:
    """Return how many requests of both models, and outcomes, were not answered with success."""
    statuses = soak_trends.statuses(period.intervals)
    return statuses.total() - statuses[200] + period.load.second.failed


def print_tables(findings: Findings) -> None:
    """Print each trend with its bound, and what has happened beyond the limit."""
    table = report.create_table(
        "soak: growth in the last two thirds", "what", "unit", "median", "an hour", "bound", "flat"
    )
    for trend in findings.trends:
        growths = (f"{value:,.1f}" for value in (trend.median, trend.per_hour, trend.bound_per_hour))
        table.add_row(trend.name, trend.unit, *growths, "yes" if trend.is_flat else "no")
    report.console.print(table)
    if (beyond := findings.beyond) is None:
        return
    log(f"beyond the limit, {beyond.period.rate:,.0f} requests a second:")
    for seconds, sign in beyond.signs:
        log(f"after {seconds:,.0f} s {sign}")
    if not beyond.signs:
        log("no part was late, and nothing was refused")
    log(
        "responses: "
        + ", ".join(f"{count:,} with {status or 'none'}" for status, count in sorted(beyond.statuses.items()))
    )
    if beyond.retry_after:
        log("Retry-After: " + ", ".join(f"{count:,} with {value}" for value, count in beyond.retry_after.items()))
    log(f"{beyond.seconds_to_recover:,.0f} s after its end all events were published and read")


def details(findings: Findings) -> dict[str, Any]:
    """Return what the JSON file has besides the figures."""

    def described(sample: Sample) -> dict[str, Any]:
        resources = {name: held._asdict() for name, held in sample.resources.items()}
        return {**sample._asdict(), "resources": resources}

    periods = {"steady": findings.steady}
    content: dict[str, Any] = {
        "trends": [{**trend._asdict(), "is_flat": trend.is_flat} for trend in findings.trends],
        "probes": [probe._asdict() for probe in findings.probes],
    }
    if (beyond := findings.beyond) is not None:
        periods["beyond"] = beyond.period
        statuses = {str(status): count for status, count in beyond.statuses.items()}
        content |= {"signs": beyond.signs, "statuses": statuses, "retry_after": dict(beyond.retry_after)}
    return content | {f"{name}_samples": [*map(described, period.samples)] for name, period in periods.items()}


def has_failed(findings: Findings) -> bool:
    """Return whether something grew, failed or was late under the steady load."""
    is_late = figures(findings)["lag_seconds_max"] > MAX_LAG_SECONDS
    return is_late or failed_requests(findings.steady) > 0 or not all(trend.is_flat for trend in findings.trends)


def _draw(findings: Findings, file: Path) -> None:
    samples, intervals, beyond = findings.steady.samples, findings.steady.intervals, findings.beyond
    title = f"{findings.steady.rate:,.0f} requests a second"
    times = None
    if beyond is not None:
        samples, intervals = samples + beyond.period.samples, intervals + beyond.period.intervals
        title += f", then {beyond.period.rate:,.0f}"
        times = (beyond.period.samples[0].time, beyond.period.intervals[-1].end)
    draw_picture(samples, intervals, times, title, file)


if __name__ == "__main__":
    sys.exit(main())
