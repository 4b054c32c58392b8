"""Starts: from the start of the process to the first time that it says it is ready, and its memory after 100 requests.

Warm starts: files are in the page cache, bytecode is written, and what a server keeps on disk is there. Beside
driftloop's predictor, MLflow's scoring server and MLServer, with the same model.
"""

import sys
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

from benchmarks.peers import servers
from benchmarks.peers.servers import Peer
from stack.running import CannotStart
from tests.support import flights_model, report, stack_fixture
from tests.support.flights_model import Row
from tests.support.peer_environments import PINS, NoInstaller, environment
from tests.support.processes import DidNotStart, ended_in_order
from tests.support.report import tell

GOALS = {"seconds_to_ready": "≤ 6", "resident_mb": "≤ 400"}
STARTS, QUICK_STARTS = 3, 1
REQUESTS = 100
PEERS = ("mlflow", "mlserver")
MLSERVER_WORKERS = 0  # the lighter of its two ways, in memory and to start


class Start(NamedTuple):
    """One start."""

    seconds_to_ready: float
    resident_mb: float
    """After some requests, of all processes; what they share is counted once."""
    processes: int


def main() -> int:
    """Runs everything; returns the exit code."""
    options = report.options(f"{__doc__}\nNeeds what `make setup` installs; peers go to .benchmarks.").parse_args()
    try:
        for peer in PEERS:
            tell(f"environment of {peer}")
            assert peer in PINS
            environment(peer)
        with ended_in_order():
            figures, details = measure(QUICK_STARTS if options.quick else STARTS)
    except (CannotStart, DidNotStart, NoInstaller) as error:
        report.warn(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    report.finish("start", figures, GOALS, details, options.json)
    return 0


def measure(starts: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures and details."""
    with stack_fixture.running(tell) as stack:
        tell("training on January to March")
        saved = flights_model.save(stack_fixture.FOLDER / "model", flights_model.WINTER)
        rows = flights_model.rows(flights_model.WINTER, REQUESTS)
        stack.registry.promote(stack_fixture.register(stack, saved))
        logs = stack_fixture.FOLDER / "logs"
        url = f"{stack.parts['predictor'].url}/predict"
        peers: dict[str, Callable[[], Peer]] = {
            "driftloop": lambda: Peer(stack_fixture.predictor(stack), url, servers.instances, servers.predictions),
            "mlflow": lambda: servers.mlflow(saved, logs),
            "mlserver": lambda: servers.mlserver(saved, logs, MLSERVER_WORKERS),
        }
        results = {name: started(name, peer, rows, starts) for name, peer in peers.items()}

    medians = {
        name: Start(*(median(values) for values in zip(*warm, strict=True))) for name, (_, *warm) in results.items()
    }
    shown = report.table(f"start: medians of {starts}", "server", "s to ready", "first start", "MB", "processes")
    for name, middle in medians.items():
        cold = results[name][0].seconds_to_ready
        shown.add_row(
            name,
            f"{middle.seconds_to_ready:.1f}",
            f"{cold:.1f}",
            f"{middle.resident_mb:,.0f}",
            f"{middle.processes:g}",
        )
    report.console.print(shown)
    ours = medians["driftloop"]
    figures = {"seconds_to_ready": ours.seconds_to_ready, "resident_mb": ours.resident_mb}
    return figures, {
        "medians": {name: middle._asdict() for name, middle in medians.items()},
        "starts": {name: [start._asdict() for start in all_of_it] for name, all_of_it in results.items()},
        "pins": {peer: list(PINS[peer]) for peer in PEERS},
    }


def started(name: str, peer: Callable[[], Peer], rows: Sequence[Row], starts: int) -> list[Start]:
    """A first start, and then as many warm ones."""
    seen = []
    for number in range(starts + 1):
        with (one := peer()).server as server:
            for row in rows:
                one.scores(servers.post(one.url, one.body([row])))
            seen.append(Start(server.seconds_to_ready, server.memory_mb, server.processes))
        tell(
            f"{name:<10} start {number}: ready after {seen[-1].seconds_to_ready:.1f} s, {seen[-1].resident_mb:,.0f} MB"
        )
    return seen


if __name__ == "__main__":
    sys.exit(main())
