"""What a person sees of a replay while it streams: a bar in a terminal, otherwise a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from producer.replay import ReplayStats

SECONDS_PER_LINE = 10
COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())

ShowProgress = Callable[[ReplayStats, datetime], None]
"""Receives what a replay has done so far, and the time of the last row."""


@contextmanager
def show_progress(
    console: Console, total: int, pace: str, rows_per_request: int, clock: Callable[[], float] = time.monotonic
) -> Iterator[ShowProgress]:
    """Show the progress of a replay, and say once if it falls behind.

    Args:
        console: Where it is shown.
        total: The number of rows.
        pace: The option that sets the pace, such as ``--rate 20``.
        rows_per_request: The largest number of rows in a request.
        clock: Returns seconds.
    """
    said = False

    def tell_if_behind(stats: ReplayStats) -> None:
        nonlocal said
        if stats.is_behind and not said:
            said = True
            console.print(describe_delay(stats, pace, rows_per_request), highlight=False, soft_wrap=True)

    if console.is_terminal:
        with Progress(*COLUMNS, console=console) as bar:
            task = bar.add_task("", total=total)

            def update(stats: ReplayStats, at: datetime) -> None:
                bar.update(task, completed=stats.rows, description=f"{at:%Y-%m-%d %H:%M} {_versions(stats)}")
                tell_if_behind(stats)

            yield update
        return
    next_line = clock() + SECONDS_PER_LINE

    def print_now_and_then(stats: ReplayStats, at: datetime) -> None:
        nonlocal next_line
        tell_if_behind(stats)
        if (now := clock()) >= next_line:
            next_line = now + SECONDS_PER_LINE
            line = (
                f"{at:%Y-%m-%d %H:%M} {stats.rows:,} of {total:,} rows, {stats.outcomes:,} outcomes {_versions(stats)}"
            )
            console.print(line.rstrip(), highlight=False, soft_wrap=True)

    yield print_now_and_then


def describe_delay(stats: ReplayStats, pace: str, rows_per_request: int) -> str:
    """Return in words how far a replay is behind, and what to change."""
    return (
        f"{stats.seconds_behind:.0f} s behind {pace}: {stats.rows / stats.seconds:.3g} rows per second with "
        f"{rows_per_request} per request; more rows per request are faster, such as --rows "
        f"{max(20, 2 * rows_per_request)}"
    )


def _versions(stats: ReplayStats) -> str:
    return ", ".join(f"v{version}" for version in stats.by_version())
