"""The producer's command."""

import asyncio
import signal
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated

import httpx
import pandas as pd
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from driftloop.settings import load
from driftloop.telemetry import tracing
from driftloop.telemetry.health import configure_logging
from producer.replay import Refused, Replay, Tally
from producer.settings import ProducerSettings

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


def rate_of(text: str) -> float | None:
    """Rows a second; ``max`` for as fast as it goes."""
    if text == "max":
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if rate <= 0:
        raise typer.BadParameter(f"{text!r} is neither a positive number of rows a second nor max")
    return rate


@app.command()
def stream(
    start: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="first day")],
    end: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="the day after the last")],
    rate: Annotated[str, typer.Option(help="rows a second, or max for as fast as it goes")] = "1",
    speed: Annotated[
        float | None, typer.Option(min=0.001, help="instead of a rate: times faster than the rows' own time")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="rows a request")] = 1,
    outcomes_after_hours: Annotated[
        float, typer.Option(min=0, help="when outcomes are known, in the rows' own time")
    ] = 24,
    outcomes: Annotated[bool, typer.Option(help="whether outcomes are reported at all")] = True,
) -> None:
    """Streams rows of the use case to the predictor in order of time, and after a delay their outcomes.

    Watch July at 20 rows a second:

        driftloop-producer --from 2013-07-01 --to 2013-08-01 --rate 20

    The same month a day a minute, or as fast as it goes, 50 rows a request:

        driftloop-producer --from 2013-07-01 --to 2013-08-01 --speed 1440

        driftloop-producer --from 2013-07-01 --to 2013-08-01 --rate max --rows 50

    Reads DRIFTLOOP_USE_CASE and DRIFTLOOP_PRODUCER__PREDICTOR_URL.
    """
    pace = rate_of(rate)
    settings = load(ProducerSettings)
    configure_logging("producer", settings.log)
    use_case = settings.use_case
    chosen = use_case.between(use_case.rows(), start.date(), end.date())
    if chosen.empty:
        raise typer.BadParameter(
            f"the use case has no rows from {start:%Y-%m-%d} to {end:%Y-%m-%d}", param_hint="--from"
        )
    replay = Replay(
        use_case,
        settings.producer.predictor_url,
        rows_per_request=rows,
        rate=pace,
        speed=speed,
        outcomes_after=timedelta(hours=outcomes_after_hours) if outcomes else None,
    )
    console = Console(stderr=True)
    began, whole = time.monotonic(), True
    try:
        with (
            tracing.running("producer", settings.tracing),
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=console,
            ) as bar,
        ):
            task = bar.add_task(f"{start:%Y-%m-%d}", total=len(chosen))

            def progress(tally: Tally, at: datetime) -> None:
                versions = ", ".join(f"v{version}" for version in tally.by_version())
                bar.update(task, completed=tally.rows, description=f"{at:%Y-%m-%d %H:%M} {versions}")

            asyncio.run(_until_stopped(replay, chosen, progress))
    except (Refused, httpx.HTTPError) as error:
        whole = False
        console.print(f"given up: {error} (DRIFTLOOP_PRODUCER__PREDICTOR_URL is {settings.producer.predictor_url})")
    report(replay.tally, time.monotonic() - began)
    raise typer.Exit(0 if whole and set(replay.tally.by_status()) == {200} else 1)


async def _until_stopped(replay: Replay, rows: pd.DataFrame, progress: Callable[[Tally, datetime], None]) -> None:
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, replay.stop)
    await replay.run(rows, progress)


def report(tally: Tally, seconds: float) -> None:
    """The last lines: counts by status and version, and how long answers took."""
    print(f"rows      {tally.rows} in {seconds:.1f} s, outcomes {tally.outcomes}")
    print("status    " + ", ".join(f"{status}: {count}" for status, count in sorted(tally.by_status().items())))
    print("version   " + ", ".join(f"{version}: {count}" for version, count in sorted(tally.by_version().items())))
    if tally.retried:
        print("retried   " + ", ".join(f"{why}: {count}" for why, count in sorted(tally.retried.items())))
    print(f"answers   p50 {tally.quantile(0.5) * 1000:.1f} ms, p99 {tally.quantile(0.99) * 1000:.1f} ms")


if __name__ == "__main__":
    app()
