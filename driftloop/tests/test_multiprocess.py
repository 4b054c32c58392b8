"""Metrics of a service that consists of several processes."""

import os
import subprocess
import sys

from driftloop.telemetry.multiprocess import ProcessResources

BUSY = """
import sys, time
while time.process_time() < 0.5: pass
print(flush=True)
sys.stdin.read()
"""


def resources(*pids: int) -> dict[str, float]:
    return {metric.name: metric.samples[0].value for metric in ProcessResources(pids).collect()}


def test_process_resources_are_summed_and_cpu_time_never_falls_when_a_process_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        own, both = resources(os.getpid()), resources(os.getpid(), child.pid)
        assert both["process_cpu_seconds"] >= own["process_cpu_seconds"] + 0.4
        assert both["process_resident_memory_bytes"] > own["process_resident_memory_bytes"]
        assert both["process_start_time_seconds"] == own["process_start_time_seconds"]
        child.communicate()
    after = resources(os.getpid(), child.pid)
    assert after["process_cpu_seconds"] >= both["process_cpu_seconds"]


def test_multiprocess_registry_exposes_each_metric_once_with_or_without_values() -> None:
    """Run in another process, because the client library decides at import where it keeps metrics."""
    code = """
import os, tempfile
with tempfile.TemporaryDirectory() as folder:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    from prometheus_client import Counter, Gauge, generate_latest
    from driftloop.telemetry.multiprocess import metrics_registry
    Counter("driftloop_a_total", "A.", ["x"]).labels("1").inc()
    Counter("driftloop_b_total", "B.", ["x"])
    Gauge("driftloop_c", "C.", multiprocess_mode="livesum").set(2)
    print(generate_latest(metrics_registry()).decode())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert sorted(line for line in lines if line.startswith("# TYPE driftloop")) == [
        "# TYPE driftloop_a_total counter",
        "# TYPE driftloop_b_total counter",
        "# TYPE driftloop_c gauge",
    ]
    assert 'driftloop_a_total{x="1"} 1.0' in lines
    assert [line for line in lines if "process_cpu_seconds_total" in line and not line.startswith("#")]
