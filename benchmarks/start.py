"""Start time: from the start of the process until it reports ready, and its memory after 100 requests.

Only warm starts count: files are in the page cache, bytecode is compiled, and a server's own cache is filled.
driftloop's predictor is compared with MLflow's scoring server and MLServer, with the same model.
"""

import sys
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

from benchmarks.peers import servers
from benchmarks.peers.servers import Peer
from stack.running import StackStartError
from tests.support import flights_model, report, stack_fixture
from tests.support.flights_model import Row
from tests.support.peer_environments import PINNED_PACKAGES, UvNotInstalled, ensure_environment
from tests.support.processes import ServerStartError, exit_on_sigterm
from tests.support.report import log

GOALS = {"seconds_to_ready": "≤ 6", "resident_mb": "≤ 400"}
STARTS, QUICK_STARTS = 3, 1
REQUESTS = 100
PEERS = ("mlflow", "mlserver")
MLSERVER_WORKERS = 0  # no worker processes: less memory and a faster start


class StartResult(NamedTuple):
    """The result of one start."""

    seconds_to_ready: float
    resident_mb: float
    """After some requests, of all processes; shared pages are counted once."""
    processes: int


def main() -> int:
    """Run the benchmark; return the exit code."""
    options = report.create_parser(
        f"{__doc__}\nRun `make setup` first; peers are installed into .benchmarks."
    ).parse_args()
    try:
        for peer in PEERS:
            log(f"environment of {peer}")
            assert peer in PINNED_PACKAGES
            ensure_environment(peer)
        with exit_on_sigterm():
            figures, details = measure(QUICK_STARTS if options.quick else STARTS)
    except (StackStartError, ServerStartError, UvNotInstalled) as error:
        report.warn(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    report.write_results("start", figures, GOALS, details, options.json)
    return 0


def measure(starts: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Start each server several times; return figures and details."""
    with stack_fixture.benchmark_stack(log) as stack:
        log("training on January to March")
        saved = flights_model.train_and_save(stack_fixture.STACK_DIR / "model", flights_model.WINTER)
        rows = flights_model.sample_rows(flights_model.WINTER, REQUESTS)
        stack.registry.promote(stack_fixture.register_model(stack, saved))
        logs = stack_fixture.STACK_DIR / "logs"
        url = f"{stack.components['predictor'].url}/predict"
        peers: dict[str, Callable[[], Peer]] = {
            "driftloop": lambda: Peer(
                stack_fixture.predictor_server(stack), url, servers.encode_instances, servers.parse_predictions
            ),
            "mlflow": lambda: servers.mlflow_peer(saved, logs),
            "mlserver": lambda: servers.mlserver_peer(saved, logs, MLSERVER_WORKERS),
        }
        results = {name: measure_starts(name, peer, rows, starts) for name, peer in peers.items()}

    medians = {
        name: StartResult(*(median(values) for values in zip(*warm, strict=True)))
        for name, (_, *warm) in results.items()
    }
    table = report.create_table(f"start: medians of {starts}", "server", "s to ready", "first start", "MB", "processes")
    for name, result in medians.items():
        first_start = results[name][0].seconds_to_ready
        table.add_row(
            name,
            f"{result.seconds_to_ready:.1f}",
            f"{first_start:.1f}",
            f"{result.resident_mb:,.0f}",
            f"{result.processes:g}",
        )
    report.console.print(table)
    ours = medians["driftloop"]
    figures = {"seconds_to_ready": ours.seconds_to_ready, "resident_mb": ours.resident_mb}
    return figures, {
        "medians": {name: result._asdict() for name, result in medians.items()},
        "starts": {name: [start._asdict() for start in starts] for name, starts in results.items()},
        "pins": {peer: list(PINNED_PACKAGES[peer]) for peer in PEERS},
    }


def measure_starts(name: str, peer: Callable[[], Peer], rows: Sequence[Row], starts: int) -> list[StartResult]:
    """Start a server once, and then ``starts`` times warm; return all results."""
    results = []
    for number in range(starts + 1):
        with (started := peer()).server as server:
            for row in rows:
                started.parse_scores(servers.post(started.url, started.encode_rows([row])))
            results.append(StartResult(server.seconds_to_ready, server.memory_mb, server.process_count))
        last = results[-1]
        log(f"{name:<10} start {number}: ready after {last.seconds_to_ready:.1f} s, {last.resident_mb:,.0f} MB")
    return results


if __name__ == "__main__":
    sys.exit(main())
