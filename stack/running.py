"""Starting and stopping the parts of the stack."""

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

from driftloop.events import DataSelection, ModelChange, Retrain
from driftloop.kafka import topics
from driftloop.kafka.publisher import Publisher
from driftloop.registry.model_registry import Registry
from driftloop.settings import Kafka, Storage, Topics
from driftloop.settings import Registry as RegistrySettings
from stack import gcs, kafka, mlflow, prometheus, services
from stack.part import Part
from stack.settings import StackSettings

MARK = "STACK_FOLDER"  # stands in the environment of every process of a stack, so that what is left can be found
START_SECONDS = 120


class CannotStart(Exception):
    """Says what is in the way and what to do about it."""


class Stack:
    """The whole system. Use in a ``with`` statement: nothing is left running after it."""

    def __init__(
        self,
        settings: StackSettings,
        tell: Callable[[str], None],
        extra: Mapping[str, str] = {},
        *,
        only: Sequence[str] = services.NAMES,
        fresh: bool = False,
    ) -> None:
        """Nothing is started.

        ``tell`` gets one line a part; ``extra`` are further settings of the services; ``only`` are the services that
        it starts; ``fresh`` deletes what an earlier stack left in the folder.
        """
        self.settings = settings
        self.folder = settings.stack.folder.resolve()
        self.kafka = Kafka(bootstrap_servers=f"127.0.0.1:{settings.stack.kafka_port}")
        self.topics = Topics()
        self.storage = Storage(bucket=services.BUCKET, endpoint=f"http://127.0.0.1:{settings.stack.gcs_port}")
        self.registry = Registry(
            RegistrySettings(uri=f"http://127.0.0.1:{settings.stack.mlflow_port}", model=services.MODEL)
        )
        self.environment = services.environment(settings) | dict(extra)
        ours = settings.stack
        self.parts: dict[str, Part] = {
            "kafka": kafka.part(self.folder / "kafka", ours.kafka_port, ours.kafka_controller_port),
            "gcs": gcs.part(self.folder / "gcs", ours.gcs_port, services.BUCKET),
            "mlflow": mlflow.part(
                self.folder / "mlflow", ours.mlflow_port, services.BUCKET, f"http://127.0.0.1:{ours.gcs_port}"
            ),
            **services.parts(settings, self.environment),
        }
        binary = prometheus.installed()
        if binary is not None and set(only) == set(services.NAMES):  # else most of its targets would be down
            self.parts["prometheus"] = prometheus.part(
                binary, self.folder / "prometheus", ours.prometheus_port, self.parts
            )
        self.executors: dict[str, TCPExecutor | HTTPExecutor] = {}
        self._tell = tell
        self._only = only
        self._fresh = fresh
        self._stopping = False
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        """Starts everything; returns when each part can do its work. Raises :class:`CannotStart`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = self._only_one()
        pool = ThreadPoolExecutor()
        under_way: list[Future[None]] = []

        def begin(work: Callable[..., None], *words: str) -> Future[None]:
            under_way.append(pool.submit(work, *words))
            return under_way[-1]

        try:
            self._end_leftovers()
            self._check_ports()
            if self._fresh:
                for name in ("kafka", "gcs", "mlflow", "predictor", "prometheus"):
                    shutil.rmtree(self.folder / name, ignore_errors=True)
            begin(self.start, "mlflow")
            for future in [begin(self.start, name) for name in ("kafka", "gcs")]:
                future.result()
            topics.create(self.kafka, self.topics)
            if "trainer" in self._only:
                begin(self._seed)
            for name in (*self._only, *({"prometheus"} & self.parts.keys())):
                begin(self.start, name)
            for future in under_way:
                future.result()
        except BaseException:
            self._stopping = True
            pool.shutdown(wait=False, cancel_futures=True)
            # A start that waits for its part ends when that is killed; one that was about to begin follows.
            while wait(under_way, timeout=0.2).not_done:
                for process in leftovers(self.folder):
                    process.kill()
            self.stop()
            raise
        pool.shutdown()
        self._write_environment()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops everything."""
        self.stop()

    def start(self, name: str) -> None:
        """Starts one part and waits until it is ready."""
        part, began = self.parts[name], time.monotonic()
        part.prepare()
        if self._stopping:
            return
        log = self._log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as output:
            common: dict[str, Any] = {
                "timeout": START_SECONDS,
                "stdout": output,
                "stderr": output,
                "envvars": {**part.environment, MARK: str(self.folder)},
            }
            executor = self.executors[name] = (
                HTTPExecutor(part.command, part.url + part.ready_path, method="GET", **common)
                if part.ready_path
                else TCPExecutor(part.command, "127.0.0.1", part.port, **common)
            )
            try:
                executor.start()
            except ExecutorError as error:
                last = "\n  ".join(log.read_text().splitlines()[-5:])
                raise CannotStart(f"{part.name} did not start: {error}\n  {last}\n  (all of it: {log})") from error
        self._tell(f"{part.name:<13} ready after {time.monotonic() - began:.0f} s")

    def restart(self, name: str, environment: Mapping[str, str]) -> None:
        """Stops one part and starts it with other settings."""
        with suppress(ProcessFinishedWithError):
            self.executors.pop(name).stop()
        self.parts[name] = replace(self.parts[name], environment=environment)
        self.start(name)

    def stop(self) -> None:
        """Stops what runs, those that depend on others first, and lets go of the folder."""
        for name in reversed([name for name in self.parts if name in self.executors]):
            with suppress(ProcessFinishedWithError):  # Java and MLflow tell of SIGTERM in their exit code
                self.executors.pop(name).stop()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def ended(self) -> list[str]:
        """Parts that have ended by themselves."""
        return [self.parts[name].name for name, executor in self.executors.items() if not executor.running()]

    def retrain(self, reason: str, data: DataSelection, tell: Callable[[ModelChange], None]) -> ModelChange:
        """Publishes a retrain event and follows it to its end."""
        with (
            topics.following(self.kafka, self.topics.models) as changes,
            Publisher(self.kafka, self.topics, "stack") as publisher,
        ):
            event = Retrain(model=services.MODEL, trigger="manual", reason=reason, asked_by="stack", data=data)
            publisher.publish(event)
            for change in changes:
                if isinstance(change, ModelChange) and change.retrain_id == event.id:
                    tell(change)
                    if change.final:
                        return change
                if change is None and self.ended():
                    raise CannotStart(f"{', '.join(self.ended())} ended (logs: {self.folder / 'logs'})")
        raise AssertionError("the topic has no end")

    def _write_environment(self) -> None:
        """What ``source`` reads, so that commands find this stack."""
        lines = [f"export {name}={value}" for name, value in self.environment.items()]
        (self.folder / "env").write_text("\n".join(lines) + "\n")

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def _only_one(self) -> IO[str]:
        lock = (self.folder / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise CannotStart(
                f"a stack with its data in {self.folder} runs already, as process {lock.read()}: stop it, "
                "or set DRIFTLOOP_STACK__FOLDER and other ports"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        return lock

    def _end_leftovers(self) -> None:
        left = list(leftovers(self.folder))
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=10)
        if left:
            self._tell(f"ended {len(left)} processes that an earlier stack left behind")

    def _check_ports(self) -> None:
        ours = Part("Kafka", [], self.settings.stack.kafka_controller_port, "DRIFTLOOP_STACK__KAFKA_CONTROLLER_PORT")
        for part in (*self.parts.values(), ours):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", part.port))
                except OSError as error:
                    raise CannotStart(
                        f"port {part.port} is in use, and {part.name} needs it: free it, or set {part.port_setting}"
                    ) from error

    def _seed(self) -> None:
        """The use case's dataset, in a process of its own: DVC goes on trying for long when the bucket is gone."""
        done = subprocess.run(
            [sys.executable, "-m", "usecases.flights.publish"],
            env={**os.environ, **self.environment, MARK: str(self.folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,  # Ctrl-C is ours
        )
        if done.returncode:
            raise CannotStart(f"the dataset is not in the bucket: {done.stderr.strip()[-1000:]}")


def leftovers(folder: Path) -> Collection[psutil.Process]:
    """Processes of a stack in ``folder`` that was killed before it could stop them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == str(folder):
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found
