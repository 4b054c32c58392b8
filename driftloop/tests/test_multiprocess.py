"""Several processes as one service, in its metrics."""

import os
import subprocess
import sys

from driftloop.telemetry.multiprocess import Used

BUSY = """
import sys, time
while time.process_time() < 0.5: pass
print(flush=True)
sys.stdin.read()
"""


def used(*processes: int) -> dict[str, float]:
    return {metric.name: metric.samples[0].value for metric in Used(processes).collect()}


def test_processes_add_up_and_time_does_not_fall_when_one_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        mine, both = used(os.getpid()), used(os.getpid(), child.pid)
        assert both["process_cpu_seconds"] >= mine["process_cpu_seconds"] + 0.4
        assert both["process_resident_memory_bytes"] > mine["process_resident_memory_bytes"]
        assert both["process_start_time_seconds"] == mine["process_start_time_seconds"]
        child.communicate()
    after = used(os.getpid(), child.pid)
    assert after["process_cpu_seconds"] >= both["process_cpu_seconds"]


def test_what_is_written_by_some_and_known_to_others_is_listed_once() -> None:
    """In a process of its own: the client library decides when it is imported where metrics are kept."""
    code = """
import os, tempfile
with tempfile.TemporaryDirectory() as folder:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    from prometheus_client import Counter, Gauge, generate_latest
    from driftloop.telemetry.multiprocess import registry
    Counter("driftloop_a_total", "A.", ["x"]).labels("1").inc()
    Counter("driftloop_b_total", "B.", ["x"])
    Gauge("driftloop_c", "C.", multiprocess_mode="livesum").set(2)
    print(generate_latest(registry()).decode())
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
