"""What a soak has found: figures, tables, details and a picture."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import soak_trends
from benchmarks.soak_picture import draw_picture
from benchmarks.soak_trends import Probe, Sample, Trend
from tests.support import report
from tests.support.chaos.load import SteadyLoad
from tests.support.load_client import Interval
from tests.support.report import log

MAX_LAG_SECONDS = 30
GOALS = {
    "not_flat": "0",
    "failed_requests": "0",
    "lag_seconds_max": f"≤ {MAX_LAG_SECONDS}",
}


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


def draw(findings: Findings, file: Path) -> None:
    """Draw the steady load, and what was beyond the limit after it."""
    samples, intervals, beyond = findings.steady.samples, findings.steady.intervals, findings.beyond
    title = f"{findings.steady.rate:,.0f} requests a second"
    times = None
    if beyond is not None:
        samples, intervals = samples + beyond.period.samples, intervals + beyond.period.intervals
        title += f", then {beyond.period.rate:,.0f}"
        times = (beyond.period.samples[0].time, beyond.period.intervals[-1].end)
    draw_picture(samples, intervals, times, title, file)
