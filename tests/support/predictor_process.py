"""A predictor process under load, and the check that each of its responses has its event exactly once."""

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
from stack.running import FOLDER_VARIABLE, Stack
from tests.support import load_client, wrk
from tests.support.comparison import EventComparison, compare_events
from tests.support.flights_model import Row, SavedModel
from tests.support.load_client import Responses
from tests.support.ports import reserve_ports
from tests.support.processes import process_tree
from tests.support.topic_audit import TopicAudit
from tests.support.waiting import wait_until

CONNECTIONS = 16
PAUSE_SECONDS = 0.02  # between a connection's requests: a process that is restarted meanwhile needs the processor, too
UNLIMITED_SECONDS = 3_600  # the client is stopped by a signal before
MIN_RESPONSES = 50  # responses after which a predictor counts as under load
STOP_SECONDS = 30


class PredictorProcess:
    """A predictor with a data folder, a port and a topic of its own."""

    def __init__(
        self, stack: Stack, name: str, versions: Mapping[str, SavedModel], rows: Sequence[Row], **settings: str
    ) -> None:
        self.folder = stack.folder / name
        self.topic = f"predictions-{name}"
        self._stack, self._name, self._versions, self._rows = stack, name, versions, rows
        port = reserve_ports(1)[0]
        self.url = f"http://127.0.0.1:{port}"
        self._environment = {
            **os.environ,
            **stack.environment,
            FOLDER_VARIABLE: str(stack.folder),
            "DRIFTLOOP_PREDICTOR__PORT": str(port),
            "DRIFTLOOP_PREDICTOR__DATA_DIR": str(self.folder),
            "DRIFTLOOP_PREDICTOR__ALIAS_POLL_INTERVAL_SECONDS": "0.2",
            "DRIFTLOOP_TOPICS__PREDICTIONS": self.topic,
            **{f"DRIFTLOOP_{setting}": value for setting, value in settings.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None
        replicas = stack.topics.replication_factor
        own_topics = TopicsSettings(predictions=self.topic, partitions=3, replication_factor=replicas)
        topics.create(stack.kafka, own_topics)

    def start(self) -> None:
        """Start the predictor, and wait until it is ready."""
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
        """The main process, which must have been started."""
        assert self._process is not None
        return self._process

    def running(self) -> bool:
        """Return whether the main process runs."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Kill the main process, and wait until its workers have exited by themselves.

        The relay may still run when the next predictor starts.
        """
        relays = self._relays()
        workers = [process for process in process_tree(self.process.pid)[1:] if process not in relays]
        self.process.kill()
        self.process.wait()
        _, remaining = psutil.wait_procs(workers, timeout=STOP_SECONDS)
        assert not remaining, f"{remaining} survived their parent"

    def kill_group(self) -> None:
        """Kill all processes at once, if any was started."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Send SIGTERM to the main process, wait for its end, and return its exit code."""
        self.process.terminate()
        return self.process.wait(STOP_SECONDS)

    def relay(self) -> psutil.Process:
        """Wait until a relay runs, and return its process."""
        return wait_until(lambda: next(iter(self._relays()), None), "a relay runs")

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes, if there are several."""
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
        """Return the JSON of a GET request."""
        return httpx.get(self.url + path, timeout=10).raise_for_status().json()

    def predict(self) -> httpx.Response:
        """Send one prediction request, in addition to the load."""
        return httpx.post(self.url + "/predict", json={"instances": [self._rows[0]]}, timeout=30)

    def version(self) -> str:
        """Return the version that serves a request."""
        return str(self.predict().raise_for_status().json()["version"])

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        text = httpx.get(self.url + "/metrics", timeout=10).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def response_count(self, status: str) -> float:
        """Return how many responses with this status the predictor has sent since its start."""
        return self.metric("driftloop_predictor_requests_total", status=status)

    def wait_until_loaded(self) -> None:
        """Wait until the predictor has sent :data:`MIN_RESPONSES` more responses."""
        before = self.response_count("200")
        wait_until(
            lambda: self.response_count("200") > before + MIN_RESPONSES or None, f"{self._name} responds under load"
        )

    @contextmanager
    def under_load(self) -> Iterator["Future[Responses]"]:
        """Send requests over all connections for the duration of the block; the future has a result after it."""
        bodies = wrk.write_bodies(
            self._stack.folder / f"{self._name}.requests", (json.dumps({"instances": [row]}) for row in self._rows)
        )
        file = self._stack.folder / f"{self._name}.npz"
        responses: Future[Responses] = Future()
        with load_client.run_client(
            f"{self.url}/predict", bodies, CONNECTIONS, UNLIMITED_SECONDS, file, PAUSE_SECONDS
        ) as process:
            yield responses
            process.terminate()
            responses.set_result(load_client.collect_responses(process, 0, file))

    def assert_exactly_once(self, responses: Responses, missing: int = 0, **faults: int) -> None:
        """Assert that each response has its correct event exactly once.

        Args:
            responses: What the load client received.
            missing: How many events are known to be lost.
            **faults: Numbers of injected faults, which are printed with the counts.
        """
        ids = responses.id[responses.status == 200]
        assert len(set(ids)) == len(ids), "two responses with one id"
        with TopicAudit(self._stack.kafka, self.topic) as audit:
            audit.wait_for_ids(set(ids.tolist()), missing)
            comparison = compare_events(audit.events(), self._versions, responses, self._rows)
        statuses = Counter(responses.status.tolist())
        counts = {
            **faults,
            **{f"status {status}" if status else "no response": statuses[status] for status in sorted(statuses)},
            **comparison._asdict(),
        }
        print(f"\n{self._name}: " + ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items()))
        assert comparison == EventComparison(comparison.events, 0, missing, 0, 0)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []
