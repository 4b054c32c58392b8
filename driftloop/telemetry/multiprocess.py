"""The metrics of a service: those of its process, or of several that write to one folder as if they were one."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector


def registry() -> CollectorRegistry:
    """This process' metrics; where several processes write to one folder, all of theirs."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None:
        return REGISTRY
    together = CollectorRegistry()
    together.register(Written(folder))
    together.register(Used(_writers(folder)))
    return together


class Written(Collector):
    """What the processes have written; of what none of them has, name and meaning, as a single process tells them."""

    def __init__(self, folder: str) -> None:
        """Reads nothing yet."""
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """All of it."""
        written = list(MultiProcessCollector(None, self._folder).collect())  # type: ignore[no-untyped-call]  # without types
        names = {metric.name for metric in written}
        yield from written
        for metric in REGISTRY.collect():
            if metric.name.startswith("driftloop_") and metric.name not in names:
                yield Metric(metric.name, metric.documentation, metric.type)


class Used(Collector):
    """What processes use, added up, under the names that the client library gives to what one uses."""

    def __init__(self, processes: Iterable[int]) -> None:
        """``processes`` are their numbers; those that have ended count for nothing."""
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        """Processor, memory, start."""
        seconds = resident = 0.0
        starts: list[float] = []
        for number in self._processes:
            try:
                process = psutil.Process(number)
                with process.oneshot():
                    times, memory, start = process.cpu_times(), process.memory_info(), process.create_time()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            # With that of their children which have ended: a counter may not fall.
            seconds += times.user + times.system + times.children_user + times.children_system
            resident += memory.rss
            starts.append(start)
        yield CounterMetricFamily(
            "process_cpu_seconds", "Processor time of all processes of the service together.", value=seconds
        )
        yield GaugeMetricFamily(
            "process_resident_memory_bytes",
            "Memory of all processes of the service together; what they share counts once for each.",
            value=resident,
        )
        yield GaugeMetricFamily(
            "process_start_time_seconds",
            "When the service's first process began, in seconds since 1970.",
            value=min(starts, default=0),
        )


def _writers(folder: str) -> list[int]:
    """The living processes that write to the folder; what a killed one says of itself is no longer so."""
    found = set()
    for file in Path(folder).glob("gauge_live*_*.db"):
        owner = int(file.stem.rsplit("_", 1)[1])
        if psutil.pid_exists(owner):
            found.add(owner)
        else:
            mark_process_dead(owner, folder)  # type: ignore[no-untyped-call]  # without types
    return sorted(found)
