"""One real stack for all end-to-end tests, on ports of its own, where what is quiet or held out is short."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import pytest

from stack.running import Stack
from stack.settings import Ports, Service, StackSettings
from tests.support import otlp_collector
from tests.support.otlp_collector import Collector
from tools.screenshots import CHROMIUM

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WINDOW_ROWS = 1_000
HELD_OUT_DAYS = 12


T = TypeVar("T")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


FLIGHT = {
    **{"sched_dep_time": 1720, "distance": 1400, "temp": 75.2, "dewp": 66.0, "humid": 73.0, "wind_dir": 200.0},
    **{"wind_speed": 11.5, "wind_gust": None, "precip": 0.0, "pressure": 1011.8, "visib": 10.0, "day_of_week": 3},
    **{"carrier": "UA", "origin": "EWR", "dest": "IAH"},
}


def until(found: Callable[[], T | None], what: str, seconds: float = 180) -> T:
    """Waits for a condition and returns what it found."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (value := found()) is not None:
            return value
        time.sleep(0.2)
    raise AssertionError(f"waited {seconds:g} s in vain: {what}")


def predict(stack: Stack, *instances: dict[str, Any]) -> httpx.Response:
    return httpx.post(stack.parts["predictor"].url + "/predict", json={"instances": list(instances)}, timeout=30)


def command(stack: Stack, *words: str) -> "subprocess.CompletedProcess[str]":
    """Runs an installed command with the settings of the stack."""
    return subprocess.run(
        [str(Path(sys.executable).with_name(words[0])), *words[1:]],
        env={**os.environ, **stack.environment, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def serving(stack: Stack, version: str) -> bool | None:
    answer = predict(stack, FLIGHT)
    return True if answer.status_code == 200 and answer.json()["version"] == version else None


def elsewhere(folder: Path) -> StackSettings:
    """A stack on ports of its own."""
    kafka, controller, gcs, mlflow, prometheus, predictor, drift_worker, trainer = free_ports(8)
    return StackSettings(
        stack=Ports(
            folder=folder,
            kafka_port=kafka,
            kafka_controller_port=controller,
            gcs_port=gcs,
            mlflow_port=mlflow,
            prometheus_port=prometheus,
        ),
        predictor=Service(port=predictor),
        drift_worker=Service(port=drift_worker),
        trainer=Service(port=trainer),
    )


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """What takes the stack's traces."""
    with otlp_collector.collector() as collector:
        yield collector


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Stack]:
    """The running stack, empty at the start. What asks for a trace is traced, and what is rare."""
    extra = {
        "DRIFTLOOP_WINDOW__ROWS": str(WINDOW_ROWS),
        "DRIFTLOOP_WINDOW__QUIET_SECONDS": "2",
        "DRIFTLOOP_GATE__HELD_OUT_DAYS": str(HELD_OUT_DAYS),
        "DRIFTLOOP_POLICY__ENABLED": "false",  # retrains are the tests' own
        "DRIFTLOOP_PREDICTOR__POLL_SECONDS": "0.5",
        "DRIFTLOOP_TRACING__ENDPOINT": collector.url,
        "DRIFTLOOP_TRACING__SHARE": "0",
        "OTEL_BSP_SCHEDULE_DELAY": "200",  # milliseconds
    }
    with Stack(elsewhere(tmp_path_factory.mktemp("stack")), print, extra) as stack:
        yield stack


@pytest.fixture(scope="session")
def version_1(stack: Stack) -> str:
    """The first version, trained on January to March and in service."""
    done = command(
        stack,
        *("driftloop", "retrain", "--reason", "the first version", "--wait", "--no-archive"),
        *("--from", "2013-01-01", "--to", "2013-04-01"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "promoted version 1: the first version" in done.stdout
    until(lambda: serving(stack, "1"), "version 1 answers")
    return "1"


@pytest.fixture(scope="module")  # playwright's loop is in the way of asyncio.run in other modules
def browser() -> "Iterator[Browser]":
    """Debian's chromium, driven by playwright; where either is missing the tests are skipped, but not in CI."""
    lacks = [
        name for name, there in (("chromium", CHROMIUM.exists()), ("playwright", find_spec("playwright"))) if not there
    ]
    if lacks and os.environ.get("CI") != "true":
        pytest.skip(f"{' and '.join(lacks)} not installed: apt-get install chromium, make setup")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  # it may be missing

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
