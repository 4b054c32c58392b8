"""The stack as faults hit it: two models, and a proxy in each connection between two parts."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
from kafka.errors import KafkaError
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample as MetricSample

from drift_worker.windows import merge_process
from driftloop.events import DataSelection, RetrainRequested
from driftloop.kafka.publisher import Publisher
from stack.running import Stack, StackStartError
from tests.support.chaos.audit import Audit
from tests.support.chaos.counts import Resources
from tests.support.chaos.jumping_clock import JumpingClock
from tests.support.faults import kill_component
from tests.support.processes import forked_jobs, process_tree, total_memory_mb
from tests.support.running_stack import FLIGHT
from tests.support.tcp_proxy import TcpProxy

FLIGHTS_PREDICTOR, RENTALS_PREDICTOR = "predictor", "predictor-rentals"
SERVICES = (FLIGHTS_PREDICTOR, RENTALS_PREDICTOR, "drift_worker", "trainer", "trainer-rentals")
OF_OTHERS = ("kafka", "mlflow", "gcs")
SECOND_WORKER = "drift_worker-2"
"""A worker that is there only while a fault lets it join the group."""
RENTAL = {"hour": 8, "temperature": 15.0}
SESSION_TIMEOUT_SECONDS = 10
START_SECONDS = 600
RESTART_SECONDS = 0.5  # between two attempts of a supervisor
FIRST_DAY = {"flights": date(2013, 1, 1), "rentals": date(2026, 1, 1)}
LAST_DAYS = {"flights": 360, "rentals": 118}
FIRST_DAYS, MORE_DAYS = 50, 12
"""Of the dataset: those of a first version, and those that each retrain has more, enough for its gate."""


Log = Callable[[str], None]


class Marks(NamedTuple):
    """Where the system was when a fault ended: it goes on once it is further."""

    consumed: float
    """Events that the drift worker had consumed since its start."""
    probes: tuple[str, ...] = ()
    """Requests after the fault that were answered, and that must get to the topic."""


class System:
    """A running stack, and how to find out whether it goes on; :func:`.setup.running_system` makes it."""

    def __init__(
        self,
        stack: Stack,
        proxies: Mapping[tuple[str, str], TcpProxy],
        log: Log,
        disks: Mapping[str, Path],
        clock: JumpingClock,
    ) -> None:
        """Take a stack that runs; ``disks`` are the components that have a small disk of their own."""
        self.stack, self.proxies, self.log, self.disks, self.clock = stack, proxies, log, disks, clock
        self.audit = Audit(stack)
        self.exits = 0
        """How often a process has ended without being killed, and was started again."""
        self.fault_ended_at = time.monotonic()
        """When the latest fault had ended; a part that is not the project's own has started again by then."""
        self.down: set[str] = set()
        """Components that a fault has stopped, and starts again itself."""

    def url(self, name: str) -> str:
        """Return the address of a component, without a proxy."""
        return self.stack.components[name].url

    @property
    def worker_group(self) -> str:
        """The consumer group of the drift worker."""
        return self.stack.components["drift_worker"].environment.get("DRIFTLOOP_DRIFT_WORKER__GROUP", "drift_worker")

    def processes(self, name: str) -> list[psutil.Process]:
        """Return the processes of a component, the first one first."""
        process = self.stack.executors[name].process
        return [] if process is None else process_tree(process.pid)

    def data_folder(self, name: str) -> Path:
        """Return the data folder of a predictor."""
        return Path(self.stack.components[name].environment["DRIFTLOOP_PREDICTOR__DATA_DIR"])

    def kill(self, name: str) -> None:
        """Kill all processes of a component at once; it counts as down until :meth:`start`."""
        self.down.add(name)
        kill_component(self.stack, name)

    def stop(self, name: str) -> None:
        """Stop a component with SIGTERM, and wait for its end and that of its children."""
        self.down.add(name)
        processes = self.processes(name)
        with suppress(psutil.NoSuchProcess):
            processes[0].terminate() if processes else None
        psutil.wait_procs(processes, timeout=60)
        self.kill(name)

    def start(self, name: str) -> None:
        """Start a component, as a supervisor does, until it has started."""
        self.down.discard(name)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.stack.start(name)
                break
            except StackStartError as error:
                self.exits += 1
                if time.monotonic() > deadline:
                    raise
                self.log(f"{name} is started again: {str(error).splitlines()[0]}")
                time.sleep(RESTART_SECONDS)
        if name in OF_OTHERS:
            self.fault_ended_at = time.monotonic()

    def start_all(self) -> None:
        """Kill all services and start them again, and start whatever a fault has left stopped."""
        for name in SERVICES:
            self.kill(name)
        for names in (OF_OTHERS, SERVICES):
            self._start_at_once([name for name in names if name in self.down or not self._is_running(name)])

    def restart_exited(self) -> None:
        """Start components again that have ended by themselves, as a supervisor does."""
        ended = [name for name in (*OF_OTHERS, *SERVICES) if name not in self.down and not self._is_running(name)]
        for name in ended:
            self.exits += 1
            self.log(f"{name} has ended, and is started again")
        self._start_at_once(ended)

    def _is_running(self, name: str) -> bool:
        return bool(self.stack.executors[name].running())

    def _start_at_once(self, names: Sequence[str]) -> None:
        """Start components at the same time: none of them waits for another one's start."""
        with ThreadPoolExecutor(max(len(names), 1)) as starts:
            list(starts.map(self.start, names))

    def keep_retraining(self, fault: str) -> None:
        """Request a retrain of each model of which none is under way. Raises :class:`BrokerUnavailable`."""
        final = self.audit.final_retrains()
        for served in self.stack.use_cases:
            own = [key for key, (model, _) in self.audit.retrains.items() if model == served.name]
            if any(key not in final for key in own):
                continue
            number = len(own) + 1
            request = RetrainRequested(
                model=served.name,
                trigger="manual",
                reason=f"retrain {number} under faults",
                requested_by="chaos",
                data=DataSelection(base_end=base_end(served.name, number), archive=False),
            )
            with Publisher(self.stack.kafka, self.stack.topics, "chaos") as publisher:
                publisher.publish(request)
                self.audit.retrains[request.id] = (served.name, fault)

    def predict(self, name: str) -> str | None:
        """Send one prediction request to a predictor; return the id of the answer, or ``None`` if there is none."""
        instance = FLIGHT if name == FLIGHTS_PREDICTOR else RENTAL
        try:
            answer = httpx.post(f"{self.url(name)}/predict", json={"instances": [instance]}, timeout=10)
        except httpx.HTTPError:
            return None
        return str(answer.json()["id"]) if answer.status_code == httpx.codes.OK else None

    def metric(self, component: str, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels; 0 if the component does not answer."""
        samples = self.metric_samples(component)
        return sum(
            sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    def metric_samples(self, component: str) -> list[MetricSample]:
        """Return all samples of a component's metrics; none if it does not answer."""
        try:
            text = httpx.get(f"{self.url(component)}/metrics", timeout=10).text
        except httpx.HTTPError:
            return []
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def consumed(self) -> float:
        """Return how many predictions the drift worker has consumed since its start."""
        return self.metric("drift_worker", "driftloop_consumed_events_total", topic=self.stack.topics.predictions)

    def not_ready(self) -> list[str]:
        """Return the services that are not ready, each with its reason."""
        problems = []
        for name in SERVICES:
            try:
                answer = httpx.get(f"{self.url(name)}/readyz", timeout=10)
            except httpx.HTTPError as error:
                problems.append(f"{name} does not answer ({type(error).__name__})")
            else:
                if answer.status_code != httpx.codes.OK:
                    problems.append(f"{name} is not ready: {answer.text[:300]}")
        return problems

    def wait_until_going_on(self, seconds: float) -> tuple[float, list[str]]:
        """Wait until answers, events and consumption go on; start again what has ended by itself.

        Returns:
            The seconds since the end of the fault, and what did not go on in the given time.
        """
        marks = Marks(self.consumed())
        while True:
            self.restart_exited()
            problems = self.not_ready()
            if not problems and not marks.probes:
                probes = [self.predict(name) for name in (FLIGHTS_PREDICTOR, RENTALS_PREDICTOR)]
                problems = [] if all(probes) else ["a predictor does not answer"]
                if not problems:
                    marks = Marks(marks.consumed, tuple(probe for probe in probes if probe))
            if not problems:
                problems = self._behind(marks)
            elapsed = time.monotonic() - self.fault_ended_at
            if not problems or elapsed > seconds:
                return elapsed, problems
            time.sleep(0.1)

    def _behind(self, marks: Marks) -> list[str]:
        try:
            self.audit.read()
        except KafkaError as error:
            return [f"Kafka does not answer ({type(error).__name__})"]
        problems = []
        if missing := [probe for probe in marks.probes if not self.audit.published[probe]]:
            problems.append(f"{len(missing)} events do not get to their topic")
        if self.consumed() == marks.consumed:
            problems.append("the drift worker consumes nothing")
        return problems

    def resources(self) -> dict[str, Resources]:
        """Return what each component holds, without processes that render, merge, train or check, and then end."""
        held = {}
        for name in (*OF_OTHERS, *SERVICES):
            files = sockets = 0
            processes = [process for process in self.processes(name) if not _ends_soon(process)]
            jobs = {job.pid for first in processes[:1] for job in forked_jobs(first.pid)}
            processes = [process for process in processes if process.pid not in jobs]
            for process in processes:
                with suppress(psutil.Error):
                    files += process.num_fds()
                    sockets += len(process.net_connections())
            held[name] = Resources(total_memory_mb(processes), files, sockets)
        return held


def _ends_soon(process: psutil.Process) -> bool:
    """Return whether a process renders one report or merges some slices."""
    with suppress(psutil.Error):
        return not {"drift_worker.web.report_queue", merge_process.COMMAND[-1]}.isdisjoint(process.cmdline())
    return False


def base_end(model: str, number: int) -> date:
    """Return the day before which a model's retrain of a number uses the base dataset's rows."""
    return FIRST_DAY[model] + timedelta(days=min(FIRST_DAYS + MORE_DAYS * number, LAST_DAYS[model]))
