"""Serving: driftloop beside what else serves a scikit-learn model, and beside the floor that any of them stands on.

One saved model of the flights, real rows, one row a request at 1, 32 and 128 connections, and 64 rows a request at 32
connections. One server is up at a time, warmed up first; driftloop does all that it does: validation, events on Kafka,
metrics. What is compared with the floor is measured in turns with it, several times, since machines are noisy.
"""

import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import watching
from benchmarks.peers import servers
from benchmarks.peers.servers import Peer
from stack.running import CannotStart, Stack
from tests.support import flights_model, load_client, report, stack_fixture, wrk
from tests.support.flights_model import Row, Saved
from tests.support.load_client import Answers
from tests.support.peer_environments import PINS, NoInstaller, environment
from tests.support.processes import DidNotStart, cpu_seconds, ended_in_order
from tests.support.report import tell
from tests.support.topic_audit import Arrivals
from tests.support.wrk import Load

DESCRIPTION = f"""{__doc__}
The peers are installed into .benchmarks the first time. Needs wrk (apt-get install wrk) and what `make setup` installs.
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
LOGS = stack_fixture.FOLDER / "logs"
MANY = 64  # rows of a large request


class Level(NamedTuple):
    """How much is asked at once."""

    connections: int
    rows: int

    def __str__(self) -> str:
        """In words."""
        return f"{self.connections} × {self.rows} row{'s' * (self.rows > 1)}"


ALONE, SOME, FULL, LARGE = Level(1, 1), Level(32, 1), Level(128, 1), Level(32, MANY)


class Plan(NamedTuple):
    """How long everything takes."""

    seconds: float
    warm_up_seconds: float
    rounds: int
    ours: Sequence[Level]
    peers: Sequence[Level]


THOROUGH = Plan(5, 3, 3, (ALONE, SOME, FULL, LARGE), (ALONE, SOME, FULL, LARGE))
QUICK = Plan(2, 1, 2, (ALONE, FULL), (FULL,))


class Measured(NamedTuple):
    """A server at one level."""

    load: Load
    cpu_seconds_per_1000: float
    memory_mb: float
    """After the load."""
    broker_cpu_seconds_per_1000: float | None = None
    events_after_seconds: float | None = None
    """How long after the end of the load the last event was on the topic."""

    def figures(self) -> dict[str, float | None]:
        """For other programs."""
        ours = {name: value for name, value in self._asdict().items() if name != "load"}
        return {"requests_per_second": self.load.rate, **self.load._asdict(), **ours}


class Events:
    """Whether what was answered is on the topic."""

    def __init__(self, stack: Stack) -> None:
        """Nothing has been answered."""
        self.answers = 0
        self.missing = 0
        self._arrivals = Arrivals(stack.kafka, stack.topics.predictions)

    def answered(self, answers: int) -> float:
        """Waits for the events of so many more answers; returns after how many seconds the last one was there."""
        self.answers += answers
        return self._arrivals.settle(self.answers)

    @property
    def on_topic(self) -> int:
        """Different events."""
        return len(self._arrivals.ids)

    def known(self, answers: Answers) -> None:
        """The same for answers whose ids are known, so that each is looked for."""
        good = answers.id[answers.status == 200].tolist()
        self.answered(len(good))
        self.missing = sum(identity not in self._arrivals.ids for identity in good)

    @property
    def lost(self) -> int:
        """Answers without an event.

        wrk only counts: requests that were under way when it stopped have events and no counted answer, and could hide
        some of what is lost. So some answers are looked for by their ids as well.
        """
        return max(self.missing, self.answers - self.on_topic)

    @property
    def doubled(self) -> int:
        """Events that are there more than once."""
        return sum(self._arrivals.ids.values()) - len(self._arrivals.ids)

    def close(self) -> None:
        """Leaves the broker."""
        self._arrivals.__exit__(None, None, None)


class Bench:
    """What all measurements share: the model, the rows and the plan."""

    def __init__(self, saved: Saved, rows: Sequence[Row], plan: Plan, folder: Path) -> None:
        """Nothing runs."""
        self.saved = saved
        self.rows = rows
        self.plan = plan
        self.folder = folder
        self.results: dict[str, dict[str, Measured]] = {}
        self.failures: list[str] = []

    def check(self, peer: Peer, *, constant: bool = False) -> int:
        """Asks for some rows, one and many at a time: the answers must be the pipeline's own. Returns how many."""
        requests = [*([row] for row in self.rows[:20]), self.rows[:MANY]]
        for asked in requests:
            scores = peer.scores(servers.post(peer.url, peer.body(asked)))
            right = [0.5] * len(asked) if constant else self.saved.probabilities(asked).tolist()
            if any(abs(a - b) > 1e-12 for a, b in zip(scores, right, strict=True)):
                raise RuntimeError(f"{peer.server.name} answers {scores[0]}, and the pipeline says {right[0]}")
        return len(requests)

    def bodies(self, peer: Peer, level: Level) -> Path:
        """The file of a peer's requests."""
        file = self.folder / f"{peer.server.name}-{level.rows}.requests"
        if not file.exists():
            count = len(self.rows)
            chosen = [[self.rows[(i + j) % count] for j in range(level.rows)] for i in range(count)]
            wrk.write_bodies(file, map(peer.body, chosen))
        return file

    def run(self, peer: Peer, level: Level, seconds: float) -> Load:
        """A load, with a loud word where not everything was answered."""
        seen = wrk.run(peer.url, self.bodies(peer, level), level.connections, seconds)
        if not seen.requests:
            self.failures.append(f"{peer.server.name} at {level}: not one answer in {seconds:g} s")
            report.warn(self.failures[-1])
        if seen.failures:
            self.failures.append(
                f"{peer.server.name} at {level}: {seen.failures:,} requests of {seen.requests:,} failed"
            )
            report.warn(self.failures[-1])
        return seen

    def remember(self, peer: Peer) -> Answers:
        """Some seconds of load from a client that remembers each answer."""
        file, seconds = self.folder / "answers.npz", self.plan.seconds
        with load_client.asking(peer.url, self.bodies(peer, SOME), 2 * SOME.connections, seconds, file) as process:
            return load_client.collect(process, seconds, file)

    def measure(
        self, peer: Peer, level: Level, seconds: float, events: Events | None = None, broker_pid: int | None = None
    ) -> Measured:
        """A load and what it cost."""
        began, broker_began = peer.server.cpu_seconds, cpu_seconds(broker_pid) if broker_pid else 0.0
        seen = self.run(peer, level, seconds)
        memory = peer.server.memory_mb
        after = events.answered(seen.requests - seen.failures) if events else None
        peer.server.wait_until_idle()  # wrk leaves requests under way, and the next load should not wait for them
        spent, broker_spent = (
            peer.server.cpu_seconds - began,
            (cpu_seconds(broker_pid) if broker_pid else 0.0) - broker_began,
        )
        thousands = max(seen.requests, 1) / 1_000
        return Measured(seen, spent / thousands, memory, broker_spent / thousands if broker_pid else None, after)

    def levels(
        self, peer: Peer, levels: Sequence[Level], events: Events | None = None, broker_pid: int | None = None
    ) -> dict[str, Measured]:
        """A running server at each level, after a warm-up."""
        asked = self.check(peer, constant=peer.server.name == "floor")
        warm = self.run(peer, SOME, self.plan.warm_up_seconds)
        if events:
            events.answered(asked + warm.requests - warm.failures)
        peer.server.wait_until_idle()
        measured = {str(level): self.measure(peer, level, self.plan.seconds, events, broker_pid) for level in levels}
        self.results[peer.server.name] = measured
        for name, one in measured.items():
            tell(f"{peer.server.name:<10} {name:<14} {one.load.rate:8,.0f} requests/s, p99 {one.load.p99_ms:,.1f} ms")
        return measured


def main() -> int:
    """Runs everything; returns the exit code."""
    parser = report.options(DESCRIPTION)
    parser.add_argument("--watching", action="store_true", help="only this: what metrics and traces cost")
    options = parser.parse_args()
    plan = QUICK if options.quick else THOROUGH
    try:
        wrk.check()
        for peer in () if options.watching else PEERS:
            tell(f"environment of {peer}")
            environment(peer)
        with ended_in_order():
            figures, details, failures = measure_watching(plan) if options.watching else measure_all(plan)
    except (wrk.NoLoadGenerator, NoInstaller, CannotStart, DidNotStart) as error:
        report.warn(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    report.finish("serving", figures, GOALS, details, options.json)
    for failure in failures:
        report.warn(failure)
    return 1 if failures else 0


def measure_all(plan: Plan) -> tuple[dict[str, float], dict[str, Any], list[str]]:
    """Figures, details and failures."""
    with ExitStack() as whole:
        stack = whole.enter_context(stack_fixture.running(tell))
        tell("training on January to March")
        saved = flights_model.save(stack_fixture.FOLDER / "model", flights_model.WINTER)
        rows = flights_model.rows(flights_model.WINTER)
        bench = Bench(saved, rows, plan, stack_fixture.FOLDER / "requests")
        stack.registry.promote(stack_fixture.register(stack, saved))

        ours = driftloop(stack)
        floor = servers.fastapi("floor", saved, LOGS)
        broker_pid = process_of(stack, "kafka")
        events = Events(stack)
        whole.callback(events.close)

        with ours.server:
            single = flights_model.single_row_seconds(saved, rows)
            bench.levels(ours, plan.ours, events, broker_pid)
            events.known(bench.remember(ours))
        with floor.server:
            bench.levels(floor, plan.peers)
        turns = in_turns(bench, ours, floor, events)
        lost, doubled, on_topic, answers = events.lost, events.doubled, events.on_topic, events.answers

    workers = best_workers(bench) if plan is THOROUGH else 1  # what was the faster one on 2 processors
    for peer in (
        servers.fastapi("plain", saved, LOGS),
        servers.mlflow(saved, LOGS),
        servers.mlserver(saved, LOGS, workers),
        servers.bentoml(saved, LOGS),
    ):
        with peer.server:
            bench.levels(peer, plan.peers)

    results = bench.results
    full = str(FULL)
    figures = {
        "floor_ratio_128": turns[full]["driftloop"] / turns[full]["floor"],
        "floor_ratio_32": turns[str(SOME)]["driftloop"] / turns[str(SOME)]["floor"],
        **{
            f"{peer}_ratio_128": results["driftloop"][full].load.rate / results[peer][full].load.rate
            for peer in ("mlserver", "bentoml", "mlflow", "plain")
            if results[peer][full].load.requests
        },
        "single_row_overhead": results["driftloop"][str(ALONE)].load.p50_ms / (single * 1e3),
        "events_lost": float(lost),
    }
    show(results, turns)
    report.console.print(f"the pipeline itself, one row in-process with one thread: {single * 1e3:.2f} ms")
    report.console.print(f"{answers:,} answers, {on_topic:,} events on the topic, {lost:,} lost, {doubled:,} doubled")
    details = {
        "single_row_ms": single * 1e3,
        "events": {"answers": answers, "on_topic": on_topic, "lost": lost, "doubled": doubled},
        "in_turns_requests_per_second": turns,
        "servers": {name: {level: m.figures() for level, m in levels.items()} for name, levels in results.items()},
        "failures": bench.failures,
        "mlserver_parallel_workers": workers,
        "pins": {peer: list(PINS[peer]) for peer in PEERS},
    }
    return figures, details, bench.failures


def measure_watching(plan: Plan) -> tuple[dict[str, float], dict[str, Any], list[str]]:
    """What metrics and traces cost, as shares of requests a second at 128 connections."""
    with ExitStack() as whole:
        stack = whole.enter_context(stack_fixture.running(tell))
        saved = flights_model.save(stack_fixture.FOLDER / "model", flights_model.WINTER)
        bench = Bench(saved, flights_model.rows(flights_model.WINTER), plan, stack_fixture.FOLDER / "requests")
        stack.registry.promote(stack_fixture.register(stack, saved))
        collects = whole.enter_context(watching.collector())
        servers_by_name = watching.predictors(stack, collects)
        whole.enter_context(watching.started(servers_by_name))
        peers = {
            name: Peer(server, f"{server.url}/predict", servers.instances, servers.predictions)
            for name, server in servers_by_name.items()
        }
        for peer in peers.values():
            bench.run(peer, SOME, plan.warm_up_seconds)
        rates: dict[str, list[float]] = {name: [] for name in peers}
        for number in range(2 * plan.rounds):
            for name in list(peers)[:: 1 if number % 2 else -1]:  # whoever comes first may have it easier
                rates[name].append(bench.run(peers[name], FULL, plan.seconds).rate)
                peers[name].server.wait_until_idle()
    for name, seen in rates.items():
        tell(f"{name:<12} {statistics.median(seen):8,.0f} requests/s")
    return watching.ratios(rates), {"requests_per_second": rates, "failures": bench.failures}, bench.failures


def driftloop(stack: Stack) -> Peer:
    """The real predictor, on these parts."""
    url = f"{stack.parts['predictor'].url}/predict"
    return Peer(stack_fixture.predictor(stack), url, servers.instances, servers.predictions)


def process_of(stack: Stack, part: str) -> int:
    """The number of a part's first process."""
    process = stack.executors[part].process
    assert process is not None
    return int(process.pid)


def in_turns(bench: Bench, ours: Peer, floor: Peer, events: Events) -> dict[str, dict[str, float]]:
    """Requests a second of both at 128 and 32 connections, in turns: the medians. Who is not asked is idle."""
    seen: dict[str, dict[str, list[float]]] = {str(level): {"floor": [], "driftloop": []} for level in (FULL, SOME)}
    with ours.server, floor.server:
        bench.run(floor, SOME, bench.plan.warm_up_seconds)
        warm = bench.run(ours, SOME, bench.plan.warm_up_seconds)
        events.answered(warm.requests - warm.failures)
        for _ in range(bench.plan.rounds):
            for level in (FULL, SOME):
                seen[str(level)]["floor"].append(bench.run(floor, level, bench.plan.seconds).rate)
                one = bench.run(ours, level, bench.plan.seconds)
                seen[str(level)]["driftloop"].append(one.rate)
                events.answered(one.requests - one.failures)
    medians = {level: {name: statistics.median(rates) for name, rates in both.items()} for level, both in seen.items()}
    for words, both in medians.items():
        tell(f"in turns, {words}: driftloop {both['driftloop']:,.0f} requests/s, floor {both['floor']:,.0f}")
    return medians


def best_workers(bench: Bench) -> int:
    """MLServer's ``parallel_workers`` with which it answers more on this machine: 0 or 1."""
    rates = {}
    for workers in (0, 1):
        peer = servers.mlserver(bench.saved, LOGS, workers)
        with peer.server:
            bench.run(peer, FULL, bench.plan.warm_up_seconds)
            rates[workers] = bench.run(peer, FULL, bench.plan.seconds).rate
        tell(f"mlserver with {workers} parallel workers: {rates[workers]:,.0f} requests/s")
    return max(rates, key=rates.__getitem__)


def show(results: dict[str, dict[str, Measured]], turns: dict[str, dict[str, float]]) -> None:
    """One line a server and level."""
    columns = ("requests/s", "p50 ms", "p99 ms", "failed", "CPU s/1,000", "broker", "MB", "events after s")
    shown = report.table("serving: connections × rows a request", "server", "load", *columns)
    shown.columns[1].justify = "left"
    for name, levels in results.items():
        for level, m in levels.items():
            shown.add_row(
                *(name, level, f"{m.load.rate:,.0f}", f"{m.load.p50_ms:,.1f}", f"{m.load.p99_ms:,.1f}"),
                *(f"{m.load.failures:,}", f"{m.cpu_seconds_per_1000:.2f}"),
                "" if m.broker_cpu_seconds_per_1000 is None else f"{m.broker_cpu_seconds_per_1000:.2f}",
                f"{m.memory_mb:,.0f}",
                "" if m.events_after_seconds is None else f"{m.events_after_seconds:.1f}",
            )
        shown.add_section()
    report.console.print(shown)
    for level, both in turns.items():
        report.console.print(
            f"in turns, medians, {level}: driftloop {both['driftloop']:,.0f} requests/s, floor {both['floor']:,.0f}"
        )


if __name__ == "__main__":
    sys.exit(main())
