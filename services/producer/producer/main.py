"""The command of the producer."""

import asyncio
import signal
import time
from datetime import datetime, timedelta
from typing import Annotated

import httpx
import pandas as pd
import typer
from rich.console import Console

from driftloop.command_line import exit_on_invalid_settings, load_settings_or_exit
from driftloop.telemetry import tracing
from driftloop.telemetry.logging import configure_logging
from driftloop.usecase import UseCase
from producer.progress import ShowProgress, describe_delay, show_progress
from producer.replay import PredictorBusy, Replay, ReplayStats
from producer.settings import ProducerSettings

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


def parse_rate(text: str) -> float | None:
    """Return the rows per second; None for ``max``, as fast as possible."""
    if text == "max":
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if rate <= 0:
        raise typer.BadParameter(f"{text!r} is neither a positive number of rows per second nor max")
    return rate


@app.command()
def stream(
    start: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="first day; by default that of all rows")
    ] = None,
    end: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="the day after the last; by default all rows")
    ] = None,
    rate: Annotated[str, typer.Option(help="rows per second, or max for as fast as possible")] = "1",
    speed: Annotated[
        float | None, typer.Option(min=0.001, help="times faster than the rows' own time, in place of a rate")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="rows per request")] = 1,
    outcomes_after_hours: Annotated[
        float, typer.Option(min=0, help="when outcomes are known, in the rows' own time")
    ] = 24,
    outcomes: Annotated[bool, typer.Option(help="whether to report outcomes")] = True,
) -> None:
    """Stream rows of the use case to the predictor in order of time, and after a delay their outcomes.

    July at 20 rows per second:

        driftloop-producer --from 2013-07-01 --to 2013-08-01 --rate 20

    The same month at a day per minute, or as fast as possible with 50 rows per request:

        driftloop-producer --from 2013-07-01 --to 2013-08-01 --speed 1440

        driftloop-producer --from 2013-07-01 --to 2013-08-01 --rate max --rows 50

    Reads DRIFTLOOP_USE_CASE and DRIFTLOOP_PRODUCER__PREDICTOR_URL.
    """
    rows_per_second = parse_rate(rate)
    settings = load_settings_or_exit(ProducerSettings)
    configure_logging("producer", settings.log)
    selected = _select_rows(settings.use_case, start, end)
    replay = Replay(
        settings.use_case,
        settings.producer.predictor_url,
        rows_per_request=rows,
        rate=rows_per_second,
        speed=speed,
        outcomes_after=timedelta(hours=outcomes_after_hours) if outcomes else None,
    )
    pace = f"--speed {speed:g}" if speed is not None else f"--rate {rate}"
    console = Console(stderr=True)
    started = time.monotonic()
    with show_progress(console, len(selected), pace, rows) as show:
        completed = _run(replay, selected, settings, console, show)
    print_report(replay.stats, time.monotonic() - started)
    if replay.stats.is_behind:
        print("pace      " + describe_delay(replay.stats, pace, rows))
    raise typer.Exit(0 if completed and set(replay.stats.by_status()) == {200} else 1)


def _select_rows(use_case: UseCase, start: datetime | None, end: datetime | None) -> pd.DataFrame:
    rows = use_case.load_rows()
    selected = use_case.rows_between(rows, start and start.date(), end and end.date())
    if selected.empty:
        days = use_case.local_dates(rows[use_case.timestamp])
        raise typer.BadParameter(
            f"{use_case.name} has no rows there: its {len(rows):,} rows are from {days.min()} to {days.max()}",
            param_hint="--from and --to",
        )
    return selected


def _run(replay: Replay, rows: pd.DataFrame, settings: ProducerSettings, console: Console, show: ShowProgress) -> bool:
    """Run the replay; return whether it could be completed."""
    try:
        with exit_on_invalid_settings(), tracing.tracing_session("producer", settings.tracing):
            asyncio.run(_run_until_stopped(replay, rows, show))
    except (PredictorBusy, httpx.HTTPError) as error:
        text = f"gave up: {error} (DRIFTLOOP_PRODUCER__PREDICTOR_URL is {settings.producer.predictor_url})"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
        return False
    return True


async def _run_until_stopped(replay: Replay, rows: pd.DataFrame, progress: ShowProgress) -> None:
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, replay.stop)
    await replay.run(rows, progress)


def print_report(stats: ReplayStats, seconds: float) -> None:
    """Print counts by status and version, and response times."""
    print(f"rows      {stats.rows} in {seconds:.1f} s, outcomes {stats.outcomes}")
    print("status    " + ", ".join(f"{status}: {count}" for status, count in sorted(stats.by_status().items())))
    print("version   " + ", ".join(f"{version}: {count}" for version, count in sorted(stats.by_version().items())))
    if stats.retried:
        print("retried   " + ", ".join(f"{cause}: {count}" for cause, count in sorted(stats.retried.items())))
    print(f"answers   p50 {stats.quantile(0.5) * 1000:.1f} ms, p99 {stats.quantile(0.99) * 1000:.1f} ms")


if __name__ == "__main__":
    app()
