"""A predictor that is asked without pause while things are killed, and what came of its answers."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from driftloop.kafka import topics
from driftloop.settings import TopicsSettings
from stack.running import MARK, Stack
from tests.support import load_client, wrk
from tests.support.comparison import EventComparison, compare_events
from tests.support.flights_model import Row, Saved
from tests.support.load_client import Responses
from tests.support.ports import reserve_ports
from tests.support.processes import process_tree
from tests.support.topic_audit import TopicAudit
from tests.support.waiting import wait_until

CONNECTIONS = 16
PAUSE_SECONDS = 0.02  # between a connection's requests: what is started again meanwhile needs the processor too
WITHOUT_END = 3_600  # seconds; the client is told when to stop
WARM = 50  # answers by which a predictor counts as under load
STOP_SECONDS = 30


class Predictor:
    """A predictor with a folder, a port and a topic of its own."""

    def __init__(
        self, stack: Stack, name: str, versions: Mapping[str, Saved], rows: Sequence[Row], **settings: str
    ) -> None:
        self.folder = stack.folder / name
        self.topic = f"predictions-{name}"
        self._stack, self._name, self._versions, self._rows = stack, name, versions, rows
        port = reserve_ports(1)[0]
        self.url = f"http://127.0.0.1:{port}"
        self._environment = {
            **os.environ,
            **stack.environment,
            MARK: str(stack.folder),
            "DRIFTLOOP_PREDICTOR__PORT": str(port),
            "DRIFTLOOP_PREDICTOR__DATA_DIR": str(self.folder),
            "DRIFTLOOP_PREDICTOR__ALIAS_POLL_INTERVAL_SECONDS": "0.2",
            "DRIFTLOOP_TOPICS__PREDICTIONS": self.topic,
            **{f"DRIFTLOOP_{setting}": value for setting, value in settings.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._expected = 0  # events on the topic that comparisons have found so far
        topics.create(stack.kafka, TopicsSettings(predictions=self.topic, partitions=3))

    def start(self) -> None:
        """Returns when it is ready."""
        with (self._stack.folder / "logs" / f"{self._name}.log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "predictor.main"],
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._ready, f"{self._name} is ready")

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The first process, which has been started."""
        assert self._process is not None
        return self._process

    def running(self) -> bool:
        """Return whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Ends the first process at once; returns when all others but the relay have ended, as they do by themselves.

        The relay may still be there when the next predictor starts.
        """
        relays = self._relays()
        others = [process for process in process_tree(self.process.pid)[1:] if process not in relays]
        self.process.kill()
        self.process.wait()
        _, left = psutil.wait_procs(others, timeout=STOP_SECONDS)
        assert not left, f"{left} went on without the process that started them"

    def kill_group(self) -> None:
        """End all processes at once, if any was started."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Asks the first process to end, and returns its exit code."""
        self.process.terminate()
        return self.process.wait(STOP_SECONDS)

    def relay(self) -> psutil.Process:
        """The relay's process, once it runs."""
        return wait_until(lambda: next(iter(self._relays()), None), "a relay runs")

    def workers(self) -> list[psutil.Process]:
        """Processes that answer, where they are several."""
        return [process for process in process_tree(self.process.pid) if "spawn_main" in " ".join(_command(process))]

    def _relays(self) -> list[psutil.Process]:
        return [process for process in process_tree(self.process.pid) if "predictor.outbox.relay" in _command(process)]

    def _ready(self) -> bool | None:
        assert self.process.poll() is None, f"{self._name} has ended"
        try:
            return httpx.get(self.url + "/readyz", timeout=10).is_success or None
        except httpx.TransportError:
            return None

    def get(self, path: str) -> Any:
        """What it says of itself."""
        return httpx.get(self.url + path, timeout=10).raise_for_status().json()

    def ask(self) -> httpx.Response:
        """One request, beside those of the load."""
        return httpx.post(self.url + "/predict", json={"instances": [self._rows[0]]}, timeout=30)

    def version(self) -> str:
        """The version that answers."""
        return str(self.ask().raise_for_status().json()["version"])

    def metric(self, name: str, **labels: str) -> float:
        """The sum of its samples that have these labels."""
        text = httpx.get(self.url + "/metrics", timeout=10).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def answered(self, status: str) -> float:
        """Requests that it has answered so since its start."""
        return self.metric("driftloop_predictor_requests_total", status=status)

    def loaded(self) -> None:
        """Returns when it is under load: when it has answered so many more."""
        before = self.answered("200")
        wait_until(lambda: self.answered("200") > before + WARM or None, f"{self._name} answers")

    @contextmanager
    def asked(self) -> Iterator["Future[Responses]"]:
        """All connections ask as long as the block runs; what they were answered is known after it."""
        bodies = wrk.write_bodies(
            self._stack.folder / f"{self._name}.requests", (json.dumps({"instances": [row]}) for row in self._rows)
        )
        file = self._stack.folder / f"{self._name}.npz"
        known: Future[Responses] = Future()
        with load_client.run_client(
            f"{self.url}/predict", bodies, CONNECTIONS, WITHOUT_END, file, PAUSE_SECONDS
        ) as process:
            yield known
            process.terminate()
            known.set_result(load_client.collect_responses(process, 0, file))

    def compare(self, answers: Responses, missing: int = 0, **faults: int) -> None:
        """Fails unless each answer has its right event once, but for those that are known to be missing.

        ``faults`` are told with what came of them.
        """
        good = answers.id[answers.status == 200]
        assert len(set(good)) == len(good), "two answers with one id"
        with TopicAudit(self._stack.kafka, self.topic) as arrivals:
            self._expected += len(good) - missing
            arrivals.wait_for(self._expected)
            compared = compare_events(arrivals.events(), self._versions, answers, self._rows)
        statuses = Counter(answers.status.tolist())
        numbers = {
            **faults,
            **{f"answered {status}" if status else "broken off": statuses[status] for status in sorted(statuses)},
            **compared._asdict(),
        }
        print(f"\n{self._name}: " + ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in numbers.items()))
        assert compared == EventComparison(compared.events, 0, missing, 0, 0)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []
