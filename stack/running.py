"""Start and stop the components of the stack."""

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import psutil
from mirakuru import HTTPExecutor, TCPExecutor
from mirakuru.exceptions import ExecutorError, ProcessFinishedWithError

from driftloop.events import DataSelection, ModelStateChanged, RetrainRequested
from driftloop.kafka import reader, topics
from driftloop.kafka.publisher import Publisher
from driftloop.retrain_states import states_until_final
from driftloop.settings import KafkaSettings, StorageSettings, TopicsSettings
from stack import gcs, kafka, mlflow, prometheus, services
from stack.component import Component
from stack.services import ServedUseCase
from stack.settings import StackSettings

FOLDER_VARIABLE = "STACK_FOLDER"  # set in the environment of every process of a stack, so that orphans can be found
START_SECONDS = 600  # two processors that much else keeps busy have taken minutes for the imports alone


class StackStartError(Exception):
    """The stack cannot start; the message says what to do."""


class Stack:
    """The whole system. Use it in a ``with`` statement: nothing keeps running after it."""

    def __init__(
        self,
        settings: StackSettings,
        log: Callable[[str], None],
        extra_settings: Mapping[str, str] = {},
        *,
        services_to_start: Sequence[str] | None = None,
        reset: bool = False,
    ) -> None:
        """Describe a stack; entering it starts it.

        Args:
            settings: Use cases, data folder and ports.
            log: Receives one line for each component that is started, and one when it is ready.
            extra_settings: Further environment variables of the services.
            services_to_start: Services that are started with Kafka, the GCS server and MLflow, by their components'
                names; by default all.
            reset: Delete the data of an earlier stack in the same folder.
        """
        self.settings = settings
        self.folder = settings.stack.data_dir.resolve()
        self.kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{settings.stack.kafka_port}")
        self.topics = TopicsSettings()
        self.storage = StorageSettings(
            url=f"gs://{services.BUCKET}", endpoint=f"http://127.0.0.1:{settings.stack.gcs_port}"
        )
        self.use_cases = services.served_use_cases(settings, extra_settings)
        first = self.use_cases[0]
        self.registry = first.registry
        self.environment = first.environment
        ours = settings.stack
        self.components: dict[str, Component] = {
            "kafka": kafka.kafka_component(self.folder / "kafka", ours.kafka_port, ours.kafka_controller_port),
            "gcs": gcs.gcs_component(self.folder / "gcs", ours.gcs_port, services.BUCKET),
            "mlflow": mlflow.mlflow_component(self.folder / "mlflow", ours.mlflow_port, self.storage),
        }
        described = services.shared_components(settings, first.environment)
        for served in self.use_cases:
            described |= served.components
        self.components |= described
        self._services = tuple(described) if services_to_start is None else tuple(services_to_start)
        binary = prometheus.find_binary()
        if binary is not None and set(services.NAMES) <= set(self._services):
            self.components["prometheus"] = prometheus.prometheus_component(
                binary,
                self.folder / "prometheus",
                ours.prometheus_port,
                [self.components[name] for name in self._services],
            )
        self.executors: dict[str, TCPExecutor | HTTPExecutor] = {}
        self._log_line = log
        self._reset = reset
        self._stopping = False
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        """Start everything and return when each component is ready. Raises :class:`StackStartError`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = self._acquire_lock()
        pool = ThreadPoolExecutor()
        under_way: list[Future[None]] = []

        def begin(work: Callable[..., None], *words: str) -> Future[None]:
            under_way.append(pool.submit(work, *words))
            return under_way[-1]

        try:
            self._kill_orphans()
            self._require_free_ports()
            if self._reset:
                for name in ("kafka", "gcs", "mlflow", "predictor", "prometheus"):
                    shutil.rmtree(self.folder / name, ignore_errors=True)
            begin(self.start, "mlflow")
            for future in [begin(self.start, name) for name in ("kafka", "gcs")]:
                future.result()
            topics.create(self.kafka, self.topics)
            for served in self.use_cases:
                if served.component_name("trainer") in self._services:
                    begin(self.publish_dataset, served.name)
            for name in (*self._services, *({"prometheus"} & self.components.keys())):
                begin(self.start, name)
            for future in under_way:
                future.result()
        except BaseException:
            self._stopping = True
            pool.shutdown(wait=False, cancel_futures=True)
            # A start that waits for its component ends when that is killed; one that was about to begin follows.
            while wait(under_way, timeout=0.2).not_done:
                for process in orphans(self.folder):
                    process.kill()
            self.stop()
            raise
        pool.shutdown()
        self._write_environment_files()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything."""
        self.stop()

    def start(self, name: str) -> None:
        """Start one component and wait until it is ready."""
        component, began = self.components[name], time.monotonic()
        self._log_line(f"{component.name:<13} starting")
        component.prepare()
        if self._stopping:
            return
        log = self.log_file(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as output:
            common: dict[str, Any] = {
                "timeout": START_SECONDS,
                "stdout": output,
                "stderr": output,
                "envvars": {**component.environment, FOLDER_VARIABLE: str(self.folder)},
            }
            executor = self.executors[name] = (
                HTTPExecutor(component.command, component.url + component.ready_path, method="GET", **common)
                if component.ready_path
                else TCPExecutor(component.command, "127.0.0.1", component.port, **common)
            )
            try:
                executor.start()
            except ExecutorError as error:
                last = "\n  ".join(log.read_text().splitlines()[-5:])
                raise StackStartError(
                    f"{component.name} did not start: {error}\n  {last}\n  (all of it: {log})"
                ) from error
        self._log_line(f"{component.name:<13} ready after {time.monotonic() - began:.0f} s")

    def restart(self, name: str, environment: Mapping[str, str]) -> None:
        """Stop one component and start it with other settings."""
        with suppress(ProcessFinishedWithError):
            self.executors.pop(name).stop()
        self.components[name] = replace(self.components[name], environment=environment)
        self.start(name)

    def stop(self) -> None:
        """Stop all components, dependents first, and release the folder."""
        for name in reversed([name for name in self.components if name in self.executors]):
            with suppress(ProcessFinishedWithError):  # Java and MLflow exit with a code for SIGTERM
                self.executors.pop(name).stop()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def exited(self) -> list[str]:
        """Return the names of components that have exited by themselves."""
        return [self.components[name].name for name, executor in self.executors.items() if not executor.running()]

    def require_running(self) -> None:
        """Check that no component has exited by itself. Raises :class:`StackStartError`."""
        if ended := self.exited():
            raise StackStartError(f"{', '.join(ended)} ended (logs: {self.folder / 'logs'})")

    def retrain(
        self, reason: str, data: DataSelection, tell: Callable[[ModelStateChanged], None], model: str | None = None
    ) -> ModelStateChanged:
        """Publish a retrain request, pass its states to a callback, and return the final one.

        Args:
            reason: Why a new version is needed.
            data: The rows to train on.
            tell: Receives each state.
            model: The use case's name; by default that of the first.
        """
        with (
            reader.tail(self.kafka, self.topics.models) as events,
            Publisher(self.kafka, self.topics, "stack") as publisher,
        ):
            event = RetrainRequested(
                model=model or self.registry.model, trigger="manual", reason=reason, requested_by="stack", data=data
            )
            publisher.publish(event)
            for state in states_until_final(event.id, events):
                if state is not None:
                    tell(state)
                    if state.is_final:
                        return state
                else:
                    self.require_running()
        raise AssertionError("the topic has no end")

    def use_case(self, name: str) -> ServedUseCase:
        """Return a use case of this stack by its name."""
        return next(served for served in self.use_cases if served.name == name)

    def _write_environment_files(self) -> None:
        """Write a file of each use case for ``source``, so that commands find this stack."""
        for served in self.use_cases:
            (self.folder / served.environment_file).write_text("\n".join(served.environment_lines()) + "\n")

    def log_file(self, name: str) -> Path:
        """Return the file to which a component writes."""
        return self.folder / "logs" / f"{name}.log"

    def _acquire_lock(self) -> IO[str]:
        lock = (self.folder / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StackStartError(
                f"a stack with its data in {self.folder} runs already, as process {lock.read()}: stop it, "
                "or set DRIFTLOOP_STACK__DATA_DIR and other ports"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        return lock

    def _kill_orphans(self) -> None:
        left = list(orphans(self.folder))
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=10)
        if left:
            self._log_line(f"ended {len(left)} processes that an earlier stack left behind")

    def _require_free_ports(self) -> None:
        ports = [(component.name, component.port, component.port_setting) for component in self.components.values()]
        ports.append(("Kafka", self.settings.stack.kafka_controller_port, "DRIFTLOOP_STACK__KAFKA_CONTROLLER_PORT"))
        for name, port, port_setting in ports:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    raise StackStartError(
                        f"port {port} is in use, and {name} needs it: free it, or set {port_setting}"
                    ) from error

    def publish_dataset(self, name: str) -> None:
        """Put a use case's base dataset into the store, in a process of its own: DVC retries for long without it.

        Raises:
            StackStartError: The dataset is not in the store.
        """
        self._log_line(f"{name}: looks for its base dataset in the object store, and puts it there if it is missing")
        done = subprocess.run(
            [sys.executable, "-m", "driftloop_cli.publish_command"],
            env={**os.environ, **self.use_case(name).environment, FOLDER_VARIABLE: str(self.folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,  # Ctrl-C is handled by this process
        )
        if done.returncode:
            message = f"{done.stdout}{done.stderr}".strip()[-1000:]
            raise StackStartError(f"the base dataset of {name} is not in the object store: {message}")
        self._log_line("\n".join(f"{name}: {line}" for line in done.stdout.splitlines()))


def orphans(folder: Path) -> Collection[psutil.Process]:
    """Return processes of a stack in ``folder`` that was killed before it could stop them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(FOLDER_VARIABLE) == str(folder):
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found
