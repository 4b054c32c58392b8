"""Swaps under load: versions change while 64 connections ask, and every answer and every event is checked.

Two versions of the flights' model, of different months, take turns behind the alias. A second with a swap begins when
the alias is moved and ends one second after the first answer of the new version, so it holds the predictor's look at
the registry, fetching, loading, warming up and the swap itself.
"""

import sys
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.peers import servers
from stack.running import CannotStart, Stack
from tests.support import flights_model, load_client, report, stack_fixture, wrk
from tests.support.comparison import compare
from tests.support.load_client import Answers
from tests.support.processes import DidNotStart, ended_in_order
from tests.support.report import tell
from tests.support.topic_audit import Arrivals

GOALS = {"failures": "0", "p99_ratio": "≤ 1.5", "wrong_predictions": "0", "events_lost": "0"}
CONNECTIONS = 64
SWAPS, QUICK_SWAPS = 20, 5
# Apart far enough for quiet seconds in between, and no multiple of the two seconds between the predictor's looks at the
# alias, so that swaps come at all phases of it.
SECONDS_APART = 7.3
FIRST_SECONDS = 6  # of load before the first swap
WARM_UP_SECONDS = 2  # of these, which are not counted: those of a predictor that has just started
AFTER_SECONDS = 1.0  # a swap counts for this long after the first new answer


class Swap(NamedTuple):
    """One move of the alias."""

    version: str
    at: float
    """When the alias was moved, in seconds since 1970."""
    first_answer: float | None
    """When the first answer of the new version came."""

    @property
    def end(self) -> float:
        """When the swap does not count any more."""
        return max(self.at + 1, (self.first_answer or self.at + SECONDS_APART) + AFTER_SECONDS)


def main() -> int:
    """Runs everything; returns the exit code."""
    options = report.options(f"{__doc__}\nNeeds what `make setup` installs.").parse_args()
    try:
        with ended_in_order():
            figures, details = measure(QUICK_SWAPS if options.quick else SWAPS)
    except (CannotStart, DidNotStart) as error:
        report.warn(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    report.finish("swap", figures, GOALS, details, options.json)
    unseen = details["swaps"] - details["swaps_seen"]
    if unseen:
        report.warn(f"{unseen} swaps brought no answer of the new version before the next")
    return 1 if unseen or figures["failures"] else 0


def measure(swaps: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures and details."""
    with stack_fixture.running(tell) as stack:
        tell("training on two seasons")
        saved = [
            flights_model.save(stack_fixture.FOLDER / f"model-{n}", days)
            for n, days in enumerate((flights_model.WINTER, flights_model.SUMMER))
        ]
        versions = {stack_fixture.register(stack, one): one for one in saved}
        names = list(versions)
        stack.registry.promote(names[0])
        rows = flights_model.rows(flights_model.WINTER)
        bodies = wrk.write_bodies(
            stack_fixture.FOLDER / "requests" / "swap", (servers.instances([row]) for row in rows)
        )
        with stack_fixture.predictor(stack), Arrivals(stack.kafka, stack.topics.predictions) as arrivals:
            answers, moved = under_load(stack, bodies, list(islice(cycle([*names[1:], names[0]]), swaps)))
            tell(f"{len(answers.status):,} requests; waiting for their events")
            answered = int((answers.status == 200).sum())
            arrivals.settle(answered)
            tell("comparing all events with what their versions give offline")
            compared = compare(arrivals.events(), versions, answers, rows)

    inside = within(answers, moved) & (answers.status == 200)
    warm = answers.start > answers.start.min() + WARM_UP_SECONDS
    outside = ~within(answers, moved) & (answers.status == 200) & warm
    during, otherwise = (float(np.percentile(answers.milliseconds[chosen], 99)) for chosen in (inside, outside))
    delays = [swap.first_answer - swap.at for swap in moved if swap.first_answer is not None]
    figures = {
        "failures": float(len(answers.status) - answered),
        "p99_ratio": during / otherwise,
        "wrong_predictions": float(compared.wrong_predictions),
        "events_lost": float(compared.events_lost),
    }
    details = {
        **compared._asdict(),
        "requests": len(answers.status),
        "requests_per_second": len(answers.status) / float(answers.end.max() - answers.start.min()),
        "requests_during_swaps": int(inside.sum()),
        "requests_otherwise": int(outside.sum()),
        "p99_ms_during_swaps": during,
        "p99_ms_otherwise": otherwise,
        "p50_ms": float(np.median(answers.milliseconds)),
        "longest_ms": float(answers.milliseconds.max()),
        "swaps": len(moved),
        "swaps_seen": len(delays),
        "seconds_from_alias_to_answer": delays,
    }
    shown = report.table("swap: details", "", "value")
    for name, value in details.items():
        words = (
            f"median {np.median(value):.2f}, longest {max(value):.2f}" if isinstance(value, list) and value else value
        )
        shown.add_row(name.replace("_", " "), f"{words:,.2f}" if isinstance(words, float) else f"{words}")
    report.console.print(shown)
    return figures, details


def under_load(stack: Stack, bodies: Path, versions: Sequence[str]) -> tuple[Answers, list[Swap]]:
    """Moves the alias from version to version while all connections ask."""
    seconds = FIRST_SECONDS + SECONDS_APART * len(versions)
    file = stack_fixture.FOLDER / "answers.npz"
    moved: list[tuple[str, float]] = []
    with load_client.asking(stack.parts["predictor"].url + "/predict", bodies, CONNECTIONS, seconds, file) as process:
        time.sleep(FIRST_SECONDS)
        for number, version in enumerate(versions, 1):
            at = time.time()
            stack.registry.promote(version)
            moved.append((version, at))
            tell(f"swap {number} of {len(versions)}: version {version}")
            time.sleep(max(0, at + SECONDS_APART - time.time()))
        answers = load_client.collect(process, seconds, file)
    ends = [at for _, at in moved[1:]] + [float("inf")]
    return answers, [
        Swap(version, at, first_answer(answers, version, at, until))
        for (version, at), until in zip(moved, ends, strict=True)
    ]


def first_answer(answers: Answers, version: str, begin: float, end: float) -> float | None:
    """When a version answered first in some time."""
    found = answers.end[(answers.version == version) & (answers.end >= begin) & (answers.end < end)]
    return float(found.min()) if len(found) else None


def within(answers: Answers, swaps: Sequence[Swap]) -> npt.NDArray[np.bool_]:
    """Which requests were under way in a second with a swap."""
    inside = np.zeros(len(answers.start), dtype=bool)
    for swap in swaps:
        inside |= (answers.end >= swap.at) & (answers.start <= swap.end)
    return inside


if __name__ == "__main__":
    sys.exit(main())
