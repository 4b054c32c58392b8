"""A stack whose Prometheus evaluates the project's rules in seconds, and the means to try a runbook on it."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

from driftloop.events import DataSelection, ModelStateChanged
from stack import kafka, services
from stack.component import Component
from stack.running import Stack
from stack.settings import load_named
from tests.support import regression_usecase
from tests.support.chaos.jumping_clock import JumpingClock
from tests.support.chaos.setup import kafka_properties
from tests.support.faults import kill_component
from tests.support.ports import reserve_ports
from tests.support.rentals_clients import RentalsClients
from tests.support.running_stack import RENTALS, isolated_settings
from tests.support.scaled_rules import fourth_root, load_rules, scale_rules
from tests.support.small_disk import NoSmallDisk, mounted_disk
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "alerts.md"
SCRAPE_SECONDS = 1
SMALL_DISK_MB = 64
MAX_EVENTS = 10_000
WINDOW_ROWS = 50
IDLE_TIMEOUT_SECONDS = 5
SPARE = "spare"
"""A second predictor, which a drill starts with settings of its own."""
JOBS = {"predictor": "predictor", SPARE: "predictor", "drift_worker": "drift_worker", "trainer": "trainer"}
WINDOW_SECONDS = {"BackgroundTaskFailing": 60.0, "RetrainsNotPromoting": 90.0}
"""Of alerts that count failures: five of a task, and three retrains, take longer than their scaled windows."""
COMMAND_SECONDS = 240

Drill = TypeVar("Drill", bound=Callable[..., None])


def drill_of(*alerts: str) -> Callable[[Drill], Drill]:
    """Say that a test tries the runbooks of these alerts."""

    def note(test: Drill) -> Drill:
        vars(test)["alerts"] = alerts
        return test

    return note


def runbook(alert: str) -> str:
    """Return the section of an alert in the guide, on one line."""
    found = re.search(rf"^## {alert}$(.*?)(?=^## |\Z)", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{alert} has no runbook in {GUIDE}"
    return " ".join(found[1].split())


class WatchedStack:
    """The running stack with its clients and its Prometheus; :func:`watched_stack` makes it."""

    def __init__(
        self, stack: Stack, proxies: dict[str, TcpProxy], clock: JumpingClock, no_small_disk: NoSmallDisk | None
    ) -> None:
        self.stack, self.proxies, self.clock = stack, proxies, clock
        self.no_small_disk = no_small_disk
        """Why the predictor's outbox has no small disk of its own; ``None`` if it has one."""
        self.registry = stack.registry
        self.first_version = ""
        self.clients = RentalsClients(self.url("predictor"))
        self.drilled: tuple[str, ...] = ()
        """The alerts whose runbooks are tried."""

    def url(self, name: str) -> str:
        """Return the address of a component."""
        return self.stack.components[name].url

    def instance(self, name: str) -> str:
        """Return the label ``instance`` of a component."""
        return self.url(name).removeprefix("http://")

    def alerts(self) -> list[dict[str, Any]]:
        """Return all alerts of Prometheus, firing or pending."""
        answer = httpx.get(f"{self.url('prometheus')}/api/v1/alerts", timeout=30).raise_for_status()
        return list(answer.json()["data"]["alerts"])

    def fires(self, alert: str, **labels: str) -> bool:
        """Return whether an alert is firing with these labels."""
        wanted = {"alertname": alert, **labels}.items()
        return any(one["state"] == "firing" and wanted <= one["labels"].items() for one in self.alerts())

    def wait_until_fires(self, alert: str, meanwhile: Callable[[], object] = lambda: None, **labels: str) -> None:
        """Wait until an alert fires with these labels; call a function before each look."""

        def look() -> bool | None:
            meanwhile()
            return self.fires(alert, **labels) or None

        wait_until(look, f"{alert} fires with {labels}")

    def wait_until_ends(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait until none of the alerts of this drill fires any more, with any labels."""

        def look() -> bool | None:
            meanwhile()
            return not any(map(self.fires, self.drilled)) or None

        wait_until(look, f"{', '.join(self.drilled)} end")

    def perform(self, alert: str, command: str, *more: str, codes: Sequence[int] = (0,), **values: str) -> str:
        """Run a command as the runbook of an alert prints it; return its standard output.

        Args:
            alert: The alert.
            command: The command, which must be in the runbook word for word.
            more: Further arguments.
            codes: The exit codes that are right.
            values: What stands for the words in capitals, such as ``VERSION``.
        """
        assert f"`{command}`" in runbook(alert), f"the runbook of {alert} has no {command}"
        program, *words = shlex.split(command)
        arguments = [*(values.get(word, word) for word in words), *more]
        done = subprocess.run(
            [str(Path(sys.executable).with_name(program)), *arguments],
            env={**os.environ, **self.stack.environment, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        print(f"{alert}: {program} {shlex.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
        assert done.returncode in codes, done.stderr
        return done.stdout

    def metric(self, query: str) -> float | None:
        """Return the latest value of a query of Prometheus with one result, or ``None`` without a result."""
        answer = httpx.get(f"{self.url('prometheus')}/api/v1/query", params={"query": query}, timeout=30)
        results = answer.raise_for_status().json()["data"]["result"]
        return float(results[0]["value"][1]) if results else None

    def readiness(self, name: str) -> dict[str, Any]:
        """Return what a service says of its readiness."""
        answer: dict[str, Any] = httpx.get(f"{self.url(name)}/readyz", timeout=30).json()
        return answer

    def models(self, name: str) -> dict[str, Any]:
        """Return what a predictor says of its versions."""
        answer: dict[str, Any] = httpx.get(f"{self.url(name)}/models", timeout=30).raise_for_status().json()
        return answer

    def served_version(self, name: str = "predictor") -> str | None:
        """Return the version that answers a request, or ``None`` if none does."""
        return self.clients.predict_once(self.url(name))

    def wait_until_serves(self, version: str, name: str = "predictor") -> None:
        """Wait until a version answers."""
        wait_until(lambda: self.served_version(name) == version or None, f"version {version} is served by {name}")

    def retrain(self, reason: str, end: date) -> ModelStateChanged:
        """Train on the days before ``end``; return the final state."""
        return self.stack.retrain(
            reason, DataSelection(base_end=end, archive=False), lambda change: print(change.state)
        )

    def fail_retrain(self) -> None:
        """Request a retrain on a single day, which are too few rows, and wait until it has failed."""
        first = regression_usecase.load_rows()["at"].min().date()
        result = self.retrain("a day", first + timedelta(days=1))
        assert result.state == "failed", result.explanation

    def log_has(self, name: str, event: str) -> bool:
        """Return whether a component has logged an event."""
        return f'"{event}"' in self.stack.log_file(name).read_text()

    @contextmanager
    def spare_predictor(self, **settings: str) -> Iterator[Component]:
        """Let a second predictor run in the block, with settings of its own; Prometheus scrapes it."""
        folder = self.stack.folder / "predictor" / SPARE
        component = self.stack.components["predictor"]
        port = self.stack.components[SPARE].port if SPARE in self.stack.components else reserve_ports(1)[0]
        own = {"DRIFTLOOP_PREDICTOR__PORT": str(port), "DRIFTLOOP_PREDICTOR__DATA_DIR": str(folder)}
        own |= {f"DRIFTLOOP_{name}": value for name, value in settings.items()}
        spare = replace(component, name=SPARE, port=port, environment={**component.environment, **own})
        self.stack.components[SPARE] = spare
        self.stack.start(SPARE)
        try:
            self.write_targets([*self.stack.executors])
            yield spare
        finally:
            kill_component(self.stack, SPARE)
            self.stack.executors.pop(SPARE)
            self.write_targets([*self.stack.executors])

    def write_targets(self, names: Sequence[str]) -> None:
        """Tell Prometheus which components to scrape."""
        groups = [{"targets": [self.instance(name)], "labels": {"job": JOBS[name]}} for name in names if name in JOBS]
        file = self.stack.folder / "prometheus" / "targets.json"
        file.with_suffix(".new").write_text(json.dumps(groups))
        file.with_suffix(".new").replace(file)

    def recover(self) -> None:
        """Let the first version serve, all parts run and the clients be as they should, whatever a drill has left."""
        self.clock.set(0)
        self.clients.reset()
        for name, executor in list(self.stack.executors.items()):
            if not executor.running():
                self.stack.start(name)
        if self.registry.champion() != self.first_version:
            self.registry.promote(self.first_version)
        self.wait_until_serves(self.first_version)


@contextmanager
def watched_stack(folder: Path) -> Iterator[WatchedStack]:
    """Start the stack for one small model with its Prometheus, train the first version, and keep sending requests."""
    settings = isolated_settings(folder).model_copy(update={"use_case": (load_named(RENTALS),)})
    extra = {
        regression_usecase.POINTER_VARIABLE: str(folder / "rentals.parquet.dvc"),
        "DRIFTLOOP_WINDOW__ROWS": str(WINDOW_ROWS),
        "DRIFTLOOP_WINDOW__IDLE_TIMEOUT_SECONDS": str(IDLE_TIMEOUT_SECONDS),
        "DRIFTLOOP_QUALITY__MIN_ROWS": "100",
        "DRIFTLOOP_GATE__HOLDOUT_DAYS": "10",
        "DRIFTLOOP_POLICY__ENABLED": "false",  # retrains and rollbacks are the runbooks'
        "DRIFTLOOP_PROBATION__DAYS": "0",
        "DRIFTLOOP_PREDICTOR__ALIAS_POLL_INTERVAL_SECONDS": "0.5",
        "DRIFTLOOP_PREDICTOR__MAX_CONSECUTIVE_FAILURES": "5",
        "DRIFTLOOP_OUTBOX__MAX_EVENTS": str(MAX_EVENTS),
    }
    stack = Stack(settings, print, extra)
    clock = JumpingClock(folder)
    proxied = _insert_proxies(stack, clock)
    _watch_quickly(stack)
    with ExitStack() as parts:
        disk = services.predictor_folder(settings) / regression_usecase.rentals.name
        disk.mkdir(parents=True)
        try:
            parts.enter_context(mounted_disk(disk, SMALL_DISK_MB))
            no_small_disk = None
        except NoSmallDisk as error:
            no_small_disk = error
        proxies = {name: parts.enter_context(TcpProxy(*ports)) for name, ports in proxied.items()}
        watched = WatchedStack(stack, proxies, clock, no_small_disk)
        (folder / "prometheus").mkdir()
        watched.write_targets(services.NAMES)
        parts.enter_context(stack)
        result = watched.retrain("the first version", regression_usecase.FIRST_END)
        assert result.version, result.explanation
        watched.first_version = result.version
        watched.wait_until_serves(result.version)
        parts.enter_context(watched.clients.sending())
        yield watched


def _insert_proxies(stack: Stack, clock: JumpingClock) -> dict[str, tuple[int, int]]:
    """Let the predictors reach Kafka and MLflow through proxies; return each one's port and target."""
    ports = stack.settings.stack
    listener, kafka_proxy, mlflow_proxy = reserve_ports(3)
    overrides = kafka_properties(ports.kafka_port, ports.kafka_controller_port, [("predictor", listener, kafka_proxy)])
    stack.components["kafka"] = kafka.kafka_component(
        stack.folder / "kafka", ports.kafka_port, ports.kafka_controller_port, overrides
    )
    predictor = stack.components["predictor"]
    variables = {
        "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{kafka_proxy}",
        "DRIFTLOOP_REGISTRY__URI": f"http://127.0.0.1:{mlflow_proxy}",
        **clock.variables,
    }
    stack.components["predictor"] = replace(predictor, environment={**predictor.environment, **variables})
    return {"kafka": (kafka_proxy, listener), "mlflow": (mlflow_proxy, ports.mlflow_port)}


def _watch_quickly(stack: Stack) -> None:
    """Let the stack's Prometheus scrape every second and evaluate the scaled rules."""
    folder, every = stack.folder / "prometheus", f"{SCRAPE_SECONDS}s"
    config = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": [str(folder / "alerts.yaml")],
        "scrape_configs": [
            {
                "job_name": "drills",
                "file_sd_configs": [{"files": [str(folder / "targets.json")], "refresh_interval": every}],
            }
        ],
    }

    def prepare() -> None:
        (folder / "alerts.yaml").write_text(yaml.safe_dump(scale_rules(load_rules(), fourth_root, WINDOW_SECONDS)))
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))

    stack.components["prometheus"] = replace(stack.components["prometheus"], prepare=prepare)
