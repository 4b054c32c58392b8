"""Every metric of every service, by the code, and the page that lists them.

python -m tools.metrics_page           writes docs/metrics.md anew: what stands above the mark in it is kept
python -m tools.metrics_page --check   says whether that would change it
"""

import re
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from driftloop.telemetry.multiprocess import ProcessResources

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
MARK = "<!-- What follows is written by make docs. -->\n"

MODULES = {
    "predictor": ["predictor.metrics", "driftloop.telemetry.metrics"],
    "drift_worker": [
        "drift_worker.metrics",
        "driftloop.kafka.consumer_loop",
        "driftloop.kafka.lag_metrics",
        "driftloop.telemetry.metrics",
    ],
    "trainer": [
        "trainer.metrics",
        "driftloop.kafka.consumer_loop",
        "driftloop.kafka.lag_metrics",
        "driftloop.telemetry.metrics",
    ],
}
"""Where the metrics of a service stand; a service's name is also its job in Prometheus."""
COLLECTORS: dict[str, list[Collector]] = {
    "predictor": [ProcessResources([])],
    "drift_worker": [PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR],
    "trainer": [PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR],
}
"""What the client library tells of a process, or stands in for it."""

SUFFIXES = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "summary": ["_sum", "_count"]}
UNITS = {"seconds", "bytes", "rows", "events", "windows", "outcomes", "days"}


class Described(NamedTuple):
    """What the code says of a metric."""

    family: str
    """Its name, without what a counter's series have behind it."""
    type: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def name(self) -> str:
        """As it is written in queries; of histograms and summaries without their suffixes."""
        return f"{self.family}_total" if self.type == "counter" else self.family

    @property
    def series(self) -> list[str]:
        """The names of its series."""
        return [self.family + suffix for suffix in SUFFIXES.get(self.type, [""])]

    @property
    def unit(self) -> str:
        """What its values count or measure, by its name."""
        if self.family.endswith(("_timestamp_seconds", "_start_time_seconds")):
            return "seconds since 1970"
        last = self.family.rpartition("_")[2]
        if last in UNITS:
            return last
        return "count" if self.type == "counter" else ""


def described(service: str) -> list[Described]:
    """A service's metrics, in the order of the code."""
    return [*_ours(MODULES[service]), *_collected(COLLECTORS[service])]


def _ours(modules: Iterable[str]) -> Iterator[Described]:
    for module in modules:
        for metric in vars(import_module(module)).values():
            if isinstance(metric, MetricWrapperBase):
                (about,) = metric.describe()
                yield _of(about, metric._labelnames)


def _collected(collectors: Iterable[Collector]) -> Iterator[Described]:
    for collector in collectors:
        for metric in collector.collect():
            yield _of(metric, metric.samples[0].labels if metric.samples else ())


def _of(metric: Metric, labels: Iterable[str]) -> Described:
    return Described(metric.name, metric.type, tuple(labels), metric.documentation)


def page(above: str) -> str:
    """The page; ``above`` is what stands above the mark."""
    parts = [above, MARK]
    for service in MODULES:
        parts.append(f"\n## {service.replace('_', ' ').capitalize()}\n\n")
        parts.append("| name | type | labels | unit | meaning |\n|---|---|---|---|---|\n")
        parts += [
            f"| `{one.name}` | {one.type} | {', '.join(one.labels)} | {one.unit} | {one.meaning} |\n"
            for one in described(service)
        ]
    return "".join(parts)


def names_in(query: str) -> set[str]:
    """Names of our own metrics that a query, or any other text, holds."""
    return set(re.findall(r"\bdriftloop_[a-z0-9_]+\b", query))


def main(words: list[str]) -> int:
    """Writes or checks the page."""
    there = PAGE.read_text()
    new = page(there.partition(MARK)[0])
    if words == ["--check"]:
        if new != there:
            print("docs/metrics.md is stale: run make docs")
        return int(new != there)
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
