"""Serving: driftloop compared with other servers of scikit-learn models, and with the floor of any FastAPI service.

All servers have the same saved flights model and get real rows: one row per request with 1, 32 and 128 connections, and
64 rows per request with 32 connections. One server runs at a time, after a warm-up; driftloop runs completely, with
validation, events on Kafka and metrics. driftloop and the floor (FastAPI that validates and returns a constant) are
also measured in turns, several times, because machines are noisy.
"""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.peers import servers
from benchmarks.peers.servers import Peer
from stack.running import Stack, StackStartError
from tests.support import flights_model, load_client, report, stack_fixture, wrk
from tests.support.flights_model import Row, SavedModel
from tests.support.load_client import Responses
from tests.support.peer_environments import PINNED_PACKAGES, UvNotInstalled, ensure_environment
from tests.support.processes import ServerStartError, cpu_seconds, exit_on_sigterm
from tests.support.report import log
from tests.support.topic_audit import TopicAudit
from tests.support.wrk import LoadResult

DESCRIPTION = f"""{__doc__}
Run `make setup` first, and install wrk (apt-get install wrk). The first run installs the peers into .benchmarks.
"""

GOALS = {
    "floor_ratio_128": "≥ 0.6",
    "floor_ratio_32": "≥ 0.4",
    "mlserver_ratio_128": "≥ 8",
    "bentoml_ratio_128": "≥ 8",
    "mlflow_ratio_128": "≥ 40",
    "single_row_overhead": "≤ 1.25",
    "events_lost": "0",
}
PEERS = ("mlflow", "mlserver", "bentoml")
LOG_DIR = stack_fixture.STACK_DIR / "logs"
LARGE_REQUEST_ROWS = 64


class LoadLevel(NamedTuple):
    """The number of concurrent requests and their size."""

    connections: int
    rows: int

    def __str__(self) -> str:
        """Return the level in words."""
        return f"{self.connections} × {self.rows} row{'s' * (self.rows > 1)}"


SINGLE, MODERATE, FULL, LARGE = LoadLevel(1, 1), LoadLevel(32, 1), LoadLevel(128, 1), LoadLevel(32, LARGE_REQUEST_ROWS)


class Plan(NamedTuple):
    """Durations and levels of a benchmark."""

    seconds: float
    warm_up_seconds: float
    rounds: int
    driftloop_levels: Sequence[LoadLevel]
    peer_levels: Sequence[LoadLevel]


THOROUGH = Plan(5, 3, 3, (SINGLE, MODERATE, FULL, LARGE), (SINGLE, MODERATE, FULL, LARGE))
QUICK = Plan(2, 1, 2, (SINGLE, FULL), (FULL,))


class ServerResult(NamedTuple):
    """The result of a server at one level."""

    load: LoadResult
    cpu_seconds_per_1000: float
    """Processor seconds of the server per 1,000 requests."""
    memory_mb: float
    """Memory after the load."""
    broker_cpu_seconds_per_1000: float | None = None
    events_after_seconds: float | None = None
    """Seconds from the end of the load until the last event was on the topic."""

    def details(self) -> dict[str, float | None]:
        """Return all values by name, without nesting."""
        others = {name: value for name, value in self._asdict().items() if name != "load"}
        return {"requests_per_second": self.load.rate, **self.load._asdict(), **others}


class EventCounter:
    """Compares the number of successful responses with the events on the topic."""

    def __init__(self, stack: Stack) -> None:
        """Start an audit of the predictions topic."""
        self.responses = 0
        self.missing = 0
        self._audit = TopicAudit(stack.kafka, stack.topics.predictions)

    def wait_for_more(self, responses: int) -> float:
        """Wait for the events of ``responses`` more responses; return the seconds until the last one has arrived."""
        self.responses += responses
        return self._audit.wait_for(self.responses)

    @property
    def distinct_events(self) -> int:
        """The number of different event ids on the topic."""
        return len(self._audit.id_counts)

    def check_ids(self, responses: Responses) -> None:
        """Wait for the events of recorded responses, and count the ids that are not on the topic."""
        ids = responses.id[responses.status == 200].tolist()
        self.wait_for_more(len(ids))
        self.missing = sum(event_id not in self._audit.id_counts for event_id in ids)

    @property
    def lost(self) -> int:
        """The number of responses without an event.

        wrk only counts: requests in flight when it stops have events but no counted response, and could hide lost
        events. So the ids of some responses are checked as well.
        """
        return max(self.missing, self.responses - self.distinct_events)

    @property
    def duplicates(self) -> int:
        """The number of surplus events with an id that is on the topic already."""
        return sum(self._audit.id_counts.values()) - len(self._audit.id_counts)

    def close(self) -> None:
        """Close the audit's consumer."""
        self._audit.__exit__(None, None, None)


class Bench:
    """Measures servers with one model, one set of rows and one plan; collects results and failures."""

    def __init__(self, model: SavedModel, rows: Sequence[Row], plan: Plan, folder: Path) -> None:
        """Set the model, the rows to send, the plan, and the folder for files with requests."""
        self.model = model
        self.rows = rows
        self.plan = plan
        self.folder = folder
        self.results: dict[str, dict[str, ServerResult]] = {}
        self.failures: list[str] = []

    def check_predictions(self, peer: Peer, *, constant: bool = False) -> int:
        """Compare predictions of some rows, alone and together, with the pipeline's; return the number of requests.

        Raises:
            RuntimeError: A prediction is different.
        """
        requests = [*([row] for row in self.rows[:20]), self.rows[:LARGE_REQUEST_ROWS]]
        for rows in requests:
            scores = peer.parse_scores(servers.post(peer.url, peer.encode_rows(rows)))
            expected = [0.5] * len(rows) if constant else self.model.predict_rows(rows).tolist()
            if any(abs(a - b) > 1e-12 for a, b in zip(scores, expected, strict=True)):
                raise RuntimeError(f"{peer.server.name} returns {scores[0]}, and the pipeline {expected[0]}")
        return len(requests)

    def request_file(self, peer: Peer, level: LoadLevel) -> Path:
        """Return the file with a peer's requests; write it if it does not exist."""
        file = self.folder / f"{peer.server.name}-{level.rows}.requests"
        if not file.exists():
            count = len(self.rows)
            requests = [[self.rows[(i + j) % count] for j in range(level.rows)] for i in range(count)]
            wrk.write_bodies(file, map(peer.encode_rows, requests))
        return file

    def run_load(self, peer: Peer, level: LoadLevel, seconds: float) -> LoadResult:
        """Run a load; record and warn of failed requests."""
        result = wrk.run_wrk(peer.url, self.request_file(peer, level), level.connections, seconds)
        if not result.requests:
            self.failures.append(f"{peer.server.name} at {level}: no response in {seconds:g} s")
            report.warn(self.failures[-1])
        if result.failures:
            counts = f"{result.failures:,} of {result.requests:,}"
            self.failures.append(f"{peer.server.name} at {level}: {counts} requests failed")
            report.warn(self.failures[-1])
        return result

    def record_responses(self, peer: Peer) -> Responses:
        """Run some seconds of load with the client that records each response."""
        file, seconds = self.folder / "responses.npz", self.plan.seconds
        requests = self.request_file(peer, MODERATE)
        with load_client.run_client(peer.url, requests, 2 * MODERATE.connections, seconds, file) as process:
            return load_client.collect_responses(process, seconds, file)

    def measure(
        self,
        peer: Peer,
        level: LoadLevel,
        seconds: float,
        events: EventCounter | None = None,
        broker_pid: int | None = None,
    ) -> ServerResult:
        """Run a load; measure processor time, memory and, of driftloop, the delay of events."""
        cpu_before, broker_before = peer.server.cpu_seconds, cpu_seconds(broker_pid) if broker_pid else 0.0
        load = self.run_load(peer, level, seconds)
        memory = peer.server.memory_mb
        events_after = events.wait_for_more(load.requests - load.failures) if events else None
        peer.server.wait_until_idle()  # wrk leaves requests in flight, which must not delay the next load
        cpu = peer.server.cpu_seconds - cpu_before
        broker_cpu = cpu_seconds(broker_pid) - broker_before if broker_pid else None
        thousands = max(load.requests, 1) / 1_000
        broker_per_1000 = None if broker_cpu is None else broker_cpu / thousands
        return ServerResult(load, cpu / thousands, memory, broker_per_1000, events_after)

    def measure_levels(
        self, peer: Peer, levels: Sequence[LoadLevel], events: EventCounter | None = None, broker_pid: int | None = None
    ) -> None:
        """Measure a running server at each level, after a check of its predictions and a warm-up."""
        requests = self.check_predictions(peer, constant=peer.server.name == "floor")
        warm_up = self.run_load(peer, MODERATE, self.plan.warm_up_seconds)
        if events:
            events.wait_for_more(requests + warm_up.requests - warm_up.failures)
        peer.server.wait_until_idle()
        results = {str(level): self.measure(peer, level, self.plan.seconds, events, broker_pid) for level in levels}
        self.results[peer.server.name] = results
        for level, result in results.items():
            load = result.load
            log(f"{peer.server.name:<10} {level:<14} {load.rate:8,.0f} requests/s, p99 {load.p99_ms:,.1f} ms")


def main() -> int:
    """Run the benchmark; return the exit code."""
    options = report.create_parser(DESCRIPTION).parse_args()
    try:
        wrk.require_wrk()
        for peer in PEERS:
            log(f"environment of {peer}")
            ensure_environment(peer)
        with exit_on_sigterm():
            figures, details, failures = measure_all(QUICK if options.quick else THOROUGH)
    except (wrk.WrkNotInstalled, UvNotInstalled, StackStartError, ServerStartError) as error:
        report.warn(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    report.write_results("serving", figures, GOALS, details, options.json)
    for failure in failures:
        report.warn(failure)
    return 1 if failures else 0


def measure_all(plan: Plan) -> tuple[dict[str, float], dict[str, Any], list[str]]:
    """Measure all servers; return figures, details and failures."""
    with ExitStack() as resources:
        stack = resources.enter_context(stack_fixture.benchmark_stack(log))
        log("training on January to March")
        model = flights_model.train_and_save(stack_fixture.STACK_DIR / "model", flights_model.WINTER)
        rows = flights_model.sample_rows(flights_model.WINTER)
        bench = Bench(model, rows, plan, stack_fixture.STACK_DIR / "requests")
        stack.registry.promote(stack_fixture.register_model(stack, model))

        predictor = driftloop_peer(stack)
        floor = servers.fastapi_peer("floor", "constant_app", model, LOG_DIR)
        broker_pid = component_pid(stack, "kafka")
        events = EventCounter(stack)
        resources.callback(events.close)

        with predictor.server:
            single_row = flights_model.single_row_seconds(model, rows)
            bench.measure_levels(predictor, plan.driftloop_levels, events, broker_pid)
            events.check_ids(bench.record_responses(predictor))
        with floor.server:
            bench.measure_levels(floor, plan.peer_levels)
        turns = measure_in_turns(bench, predictor, floor, events)
        lost, duplicates = events.lost, events.duplicates
        distinct_events, responses = events.distinct_events, events.responses

    workers = best_mlserver_workers(bench) if plan is THOROUGH else 1  # 1 was faster on 2 processors
    for peer in (
        servers.fastapi_peer("plain", "plain_app", model, LOG_DIR),
        servers.mlflow_peer(model, LOG_DIR),
        servers.mlserver_peer(model, LOG_DIR, workers),
        servers.bentoml_peer(model, LOG_DIR),
    ):
        with peer.server:
            bench.measure_levels(peer, plan.peer_levels)

    results = bench.results
    full = str(FULL)
    figures = {
        "floor_ratio_128": turns[full]["driftloop"] / turns[full]["floor"],
        "floor_ratio_32": turns[str(MODERATE)]["driftloop"] / turns[str(MODERATE)]["floor"],
        **{
            f"{peer}_ratio_128": results["driftloop"][full].load.rate / results[peer][full].load.rate
            for peer in ("mlserver", "bentoml", "mlflow", "plain")
            if results[peer][full].load.requests
        },
        "single_row_overhead": results["driftloop"][str(SINGLE)].load.p50_ms / (single_row * 1e3),
        "events_lost": float(lost),
    }
    print_results(results, turns)
    report.console.print(f"the pipeline alone, one row in-process with one thread: {single_row * 1e3:.2f} ms")
    counts = f"{distinct_events:,} events on the topic, {lost:,} lost, {duplicates:,} duplicates"
    report.console.print(f"{responses:,} responses, {counts}")
    details = {
        "single_row_ms": single_row * 1e3,
        "events": {"responses": responses, "on_topic": distinct_events, "lost": lost, "duplicates": duplicates},
        "in_turns_requests_per_second": turns,
        "servers": {name: {level: r.details() for level, r in levels.items()} for name, levels in results.items()},
        "failures": bench.failures,
        "mlserver_parallel_workers": workers,
        "pins": {peer: list(PINNED_PACKAGES[peer]) for peer in PEERS},
    }
    return figures, details, bench.failures


def driftloop_peer(stack: Stack) -> Peer:
    """Return the real predictor on this stack, not started."""
    url = f"{stack.components['predictor'].url}/predict"
    server = stack_fixture.predictor_server(stack)
    return Peer(server, url, servers.encode_instances, servers.parse_predictions)


def component_pid(stack: Stack, component: str) -> int:
    """Return the process id of a component of the stack."""
    process = stack.executors[component].process
    assert process is not None
    return int(process.pid)


def measure_in_turns(bench: Bench, predictor: Peer, floor: Peer, events: EventCounter) -> dict[str, dict[str, float]]:
    """Return the median requests per second of both servers, measured in turns while the other one is idle."""
    rates: dict[str, dict[str, list[float]]] = {
        str(level): {"floor": [], "driftloop": []} for level in (FULL, MODERATE)
    }
    with predictor.server, floor.server:
        bench.run_load(floor, MODERATE, bench.plan.warm_up_seconds)
        warm_up = bench.run_load(predictor, MODERATE, bench.plan.warm_up_seconds)
        events.wait_for_more(warm_up.requests - warm_up.failures)
        for _ in range(bench.plan.rounds):
            for level in (FULL, MODERATE):
                rates[str(level)]["floor"].append(bench.run_load(floor, level, bench.plan.seconds).rate)
                load = bench.run_load(predictor, level, bench.plan.seconds)
                rates[str(level)]["driftloop"].append(load.rate)
                events.wait_for_more(load.requests - load.failures)
    medians = {level: {name: median(values) for name, values in both.items()} for level, both in rates.items()}
    for level_name, both in medians.items():
        log(f"in turns, {level_name}: driftloop {both['driftloop']:,.0f} requests/s, floor {both['floor']:,.0f}")
    return medians


def best_mlserver_workers(bench: Bench) -> int:
    """Return the setting of MLServer's ``parallel_workers``, 0 or 1, that is faster on this machine."""
    rates = {}
    for workers in (0, 1):
        peer = servers.mlserver_peer(bench.model, LOG_DIR, workers)
        with peer.server:
            bench.run_load(peer, FULL, bench.plan.warm_up_seconds)
            rates[workers] = bench.run_load(peer, FULL, bench.plan.seconds).rate
        log(f"mlserver with {workers} parallel workers: {rates[workers]:,.0f} requests/s")
    return max(rates, key=rates.__getitem__)


def print_results(results: dict[str, dict[str, ServerResult]], turns: dict[str, dict[str, float]]) -> None:
    """Print a table with a line per server and level, and the rates measured in turns."""
    columns = ("requests/s", "p50 ms", "p99 ms", "failed", "CPU s/1,000", "broker", "MB", "events after s")
    table = report.create_table("serving: connections × rows per request", "server", "load", *columns)
    table.columns[1].justify = "left"
    for name, levels in results.items():
        for level, result in levels.items():
            load, broker, delay = result.load, result.broker_cpu_seconds_per_1000, result.events_after_seconds
            table.add_row(
                *(name, level, f"{load.rate:,.0f}", f"{load.p50_ms:,.1f}", f"{load.p99_ms:,.1f}"),
                *(f"{load.failures:,}", f"{result.cpu_seconds_per_1000:.2f}"),
                "" if broker is None else f"{broker:.2f}",
                f"{result.memory_mb:,.0f}",
                "" if delay is None else f"{delay:.1f}",
            )
        table.add_section()
    report.console.print(table)
    for level, both in turns.items():
        report.console.print(
            f"in turns, medians, {level}: driftloop {both['driftloop']:,.0f} requests/s, floor {both['floor']:,.0f}"
        )


if __name__ == "__main__":
    sys.exit(main())
