"""The metrics of a service that may consist of several processes.

Processes that set ``PROMETHEUS_MULTIPROC_DIR`` write their metrics to files in that folder; the one that answers
``/metrics`` adds them up.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector


def metrics_registry() -> CollectorRegistry:
    """Return this process's metrics, or those of all processes that share ``PROMETHEUS_MULTIPROC_DIR``."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None:
        return REGISTRY
    registry = CollectorRegistry()
    registry.register(MultiprocessMetrics(folder))
    registry.register(ProcessResources(_live_pids(folder)))
    return registry


class MultiprocessMetrics(Collector):
    """The metrics that several processes have written to one folder.

    Metrics without a value in any process are exposed with their name and help text only, as a single process does.
    """

    def __init__(self, folder: str) -> None:
        """Collect from ``folder``, the value of ``PROMETHEUS_MULTIPROC_DIR``."""
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """Yield the merged metrics, then those without a value."""
        written = list(MultiProcessCollector(None, self._folder).collect())  # type: ignore[no-untyped-call]
        names = {metric.name for metric in written}
        yield from written
        for metric in REGISTRY.collect():
            if metric.name.startswith("driftloop_") and metric.name not in names:
                yield Metric(metric.name, metric.documentation, metric.type)


class ProcessResources(Collector):
    """CPU time, memory and start time of several processes together.

    The metrics have the names that the client library uses for a single process.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        """Measure the processes ``pids``; those that have ended are ignored."""
        self._pids = pids

    def collect(self) -> Iterator[Metric]:
        """Yield the sums of CPU time and memory, and the earliest start time."""
        cpu_seconds = resident_bytes = 0.0
        start_times: list[float] = []
        for pid in self._pids:
            try:
                process = psutil.Process(pid)
                with process.oneshot():
                    times, memory, start_time = process.cpu_times(), process.memory_info(), process.create_time()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            # Including children that have ended, because a counter must not fall.
            cpu_seconds += times.user + times.system + times.children_user + times.children_system
            resident_bytes += memory.rss
            start_times.append(start_time)
        yield CounterMetricFamily(
            "process_cpu_seconds",
            "User and system CPU time of all processes of the service, in seconds.",
            value=cpu_seconds,
        )
        yield GaugeMetricFamily(
            "process_resident_memory_bytes",
            "Resident memory of all processes of the service, in bytes; shared memory counts once for each process.",
            value=resident_bytes,
        )
        yield GaugeMetricFamily(
            "process_start_time_seconds",
            "Start time of the service's first process, in seconds since 1970.",
            value=min(start_times, default=0),
        )


def _live_pids(folder: str) -> list[int]:
    """Return the processes that write to ``folder`` and are alive; drop the live gauges of those that are not."""
    live = set()
    for file in Path(folder).glob("gauge_live*_*.db"):
        pid = int(file.stem.rsplit("_", 1)[1])
        if psutil.pid_exists(pid):
            live.add(pid)
        else:
            mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
    return sorted(live)
