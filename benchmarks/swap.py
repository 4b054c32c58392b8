"""Swaps under load: versions change while 64 connections send requests; every response and every event is checked.

Two versions of the flights model, of different months, take turns behind the alias. A swap counts from the move of the
alias until one second after the first response of the new version, so it includes polling the registry, downloading,
loading, warm-up and the swap itself.

Afterwards a rollback, which also records who replaced what and why, is compared with a bare move of the alias.
"""

import sys
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.peers import servers
from driftloop.registry.rollback import roll_back
from stack.running import Stack, StackStartError
from tests.support import flights_model, load_client, report, stack_fixture, wrk
from tests.support.comparison import compare_events
from tests.support.load_client import Responses
from tests.support.processes import ServerStartError, exit_on_sigterm
from tests.support.report import log
from tests.support.topic_audit import TopicAudit

GOALS = {"failures": "0", "p99_ratio": "≤ 1.5", "wrong_predictions": "0", "events_lost": "0", "rollback_ratio": "≤ 20"}
CONNECTIONS = 64
SWAPS, QUICK_SWAPS = 20, 5
ROLLBACKS = 10
# Long enough for seconds without a swap in between, and no multiple of the two seconds in which the predictor polls the
# alias, so that swaps come at all phases of the polling.
SWAP_INTERVAL_SECONDS = 7.3
LEAD_SECONDS = 6  # of load before the first swap
WARM_UP_SECONDS = 2  # of the lead that are not counted, because the predictor has just started
SETTLE_SECONDS = 1.0  # after the first response of the new version; this time still counts as the swap


class Swap(NamedTuple):
    """One move of the alias."""

    version: str
    moved_at: float
    """When the alias was moved, in seconds since 1970."""
    first_response: float | None
    """When the first response of the new version came, in seconds since 1970."""

    @property
    def end(self) -> float:
        """The end of the time that counts as the swap."""
        return max(self.moved_at + 1, (self.first_response or self.moved_at + SWAP_INTERVAL_SECONDS) + SETTLE_SECONDS)


def main() -> int:
    """Run the benchmark; return the exit code."""
    options = report.create_parser(f"{__doc__}\nRun `make setup` first.").parse_args()
    try:
        with exit_on_sigterm():
            figures, details = measure(QUICK_SWAPS if options.quick else SWAPS)
    except (StackStartError, ServerStartError) as error:
        report.warn(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    report.write_results("swap", figures, GOALS, details, options.json)
    unseen = details["swaps"] - details["swaps_seen"]
    if unseen:
        report.warn(f"{unseen} new versions did not respond before the next swap")
    return 1 if unseen or figures["failures"] else 0


def measure(swaps: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Run ``swaps`` swaps under load; return figures and details."""
    with stack_fixture.benchmark_stack(log) as stack:
        log("training on two seasons")
        models = [
            flights_model.train_and_save(stack_fixture.STACK_DIR / f"model-{n}", days)
            for n, days in enumerate((flights_model.WINTER, flights_model.SUMMER))
        ]
        versions = {stack_fixture.register_model(stack, model): model for model in models}
        names = list(versions)
        stack.registry.promote(names[0])
        rows = flights_model.sample_rows(flights_model.WINTER)
        bodies = wrk.write_bodies(
            stack_fixture.STACK_DIR / "requests" / "swap", (servers.encode_instances([row]) for row in rows)
        )
        with stack_fixture.predictor_server(stack), TopicAudit(stack.kafka, stack.topics.predictions) as audit:
            responses, moves = swap_under_load(stack, bodies, list(islice(cycle([*names[1:], names[0]]), swaps)))
            log(f"{len(responses.status):,} requests; waiting for their events")
            successful = responses.status == 200
            audit.wait_for(int(successful.sum()))
            log("comparing all events with their versions' own predictions")
            comparison = compare_events(audit.events(), versions, responses, rows)
        log(f"{ROLLBACKS} rollbacks")
        rollback_seconds, move_seconds = time_rollbacks(stack, names)

    in_swap = during_swaps(responses, moves)
    is_warm = responses.start > responses.start.min() + WARM_UP_SECONDS
    inside, outside = in_swap & successful, ~in_swap & successful & is_warm
    p99_inside, p99_outside = (float(np.percentile(responses.milliseconds[chosen], 99)) for chosen in (inside, outside))
    delays = [swap.first_response - swap.moved_at for swap in moves if swap.first_response is not None]
    figures = {
        "failures": float(len(responses.status) - successful.sum()),
        "p99_ratio": p99_inside / p99_outside,
        "wrong_predictions": float(comparison.wrong_predictions),
        "events_lost": float(comparison.lost_events),
        "rollback_ratio": median(rollback_seconds) / median(move_seconds),
    }
    details = {
        **comparison._asdict(),
        "requests": len(responses.status),
        "requests_per_second": len(responses.status) / float(responses.end.max() - responses.start.min()),
        "requests_during_swaps": int(inside.sum()),
        "requests_otherwise": int(outside.sum()),
        "p99_ms_during_swaps": p99_inside,
        "p99_ms_otherwise": p99_outside,
        "p50_ms": float(np.median(responses.milliseconds)),
        "longest_ms": float(responses.milliseconds.max()),
        "swaps": len(moves),
        "swaps_seen": len(delays),
        "seconds_from_alias_to_response": delays,
        "rollback_seconds": rollback_seconds,
        "seconds_to_move_alias": move_seconds,
    }
    table = report.create_table("swap: details", "", "value")
    for name, value in details.items():
        text = (
            f"median {np.median(value):.2f}, longest {max(value):.2f}" if isinstance(value, list) and value else value
        )
        table.add_row(name.replace("_", " "), f"{text:,.2f}" if isinstance(text, float) else f"{text}")
    report.console.print(table)
    return figures, details


def swap_under_load(stack: Stack, bodies: Path, versions: Sequence[str]) -> tuple[Responses, list[Swap]]:
    """Move the alias from version to version while all connections send requests."""
    seconds = LEAD_SECONDS + SWAP_INTERVAL_SECONDS * len(versions)
    file = stack_fixture.STACK_DIR / "responses.npz"
    url = f"{stack.components['predictor'].url}/predict"
    moves: list[tuple[str, float]] = []
    with load_client.run_client(url, bodies, CONNECTIONS, seconds, file) as process:
        time.sleep(LEAD_SECONDS)
        for number, version in enumerate(versions, 1):
            moved_at = time.time()
            stack.registry.promote(version)
            moves.append((version, moved_at))
            log(f"swap {number} of {len(versions)}: version {version}")
            time.sleep(max(0, moved_at + SWAP_INTERVAL_SECONDS - time.time()))
        responses = load_client.collect_responses(process, seconds, file)
    ends = [moved_at for _, moved_at in moves[1:]] + [float("inf")]
    return responses, [
        Swap(version, moved_at, first_response_time(responses, version, moved_at, end))
        for (version, moved_at), end in zip(moves, ends, strict=True)
    ]


def time_rollbacks(stack: Stack, versions: Sequence[str]) -> tuple[list[float], list[float]]:
    """Return the seconds of each rollback and of each bare move of the alias before it."""
    older, newer = versions
    client = stack.registry.client
    rollbacks, moves = [], []
    for _ in range(ROLLBACKS):
        stack.registry.promote(older)
        stack.registry.promote(newer)
        begin = time.monotonic()
        client.set_registered_model_alias(stack.registry.model, stack.registry.alias, newer)
        moves.append(time.monotonic() - begin)
        begin = time.monotonic()
        roll_back(stack.registry, "rollback of the benchmark")
        rollbacks.append(time.monotonic() - begin)
    return rollbacks, moves


def first_response_time(responses: Responses, version: str, begin: float, end: float) -> float | None:
    """Return when a version responded first between two times; None if it did not."""
    times = responses.end[(responses.version == version) & (responses.end >= begin) & (responses.end < end)]
    return float(times.min()) if len(times) else None


def during_swaps(responses: Responses, swaps: Sequence[Swap]) -> npt.NDArray[np.bool_]:
    """Return which requests overlap a swap."""
    overlap = np.zeros(len(responses.start), dtype=bool)
    for swap in swaps:
        overlap |= (responses.end >= swap.moved_at) & (responses.start <= swap.end)
    return overlap


if __name__ == "__main__":
    sys.exit(main())
