"""The loop on real flights, from a first version to a better one that is swapped in: ``make demo``."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import httpx
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from driftloop.command_line import load_settings_or_exit
from driftloop.events import DataSelection, DriftVerdict, ModelStateChanged
from driftloop.kafka import reader
from producer.replay import PredictorBusy, Replay, ReplayStats
from stack.running import Stack, StackStartError
from stack.settings import StackSettings
from usecases.flights import usecase

USE_CASE = "usecases.flights:usecase"
JANUARY, APRIL = date(2013, 1, 1), date(2013, 4, 1)
JULY, AUGUST = date(2013, 7, 1), date(2013, 8, 1)
QUIET_DAYS = [JANUARY + timedelta(days=day) for day in range(4, 90, 9)]  # every ninth day: rows of the same season
HOLDOUT_DAYS = 16  # the second half of July: what the challenger is judged on
QUIET_SECONDS = 3.0  # a stream's last, unfinished window need not wait for the usual minute
ROWS_PER_REQUEST = 50
TIMEOUT_SECONDS = 120

console = Console(highlight=False)


class DemoFailed(Exception):
    """The loop did not close; the message says where."""


def main() -> int:
    """Run the demo on an empty stack; return 0 only if the loop closed."""
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell in the background starts us with it ignored
        signal.signal(number, signal.default_int_handler)
    result = demo_settings().stack.data_dir / "demo.json"
    began = time.monotonic()
    try:
        phase("Starting Kafka, a GCS server, MLflow and the services")
        with demo_stack() as stack:
            figures, wrong = asyncio.run(Demo(stack).run())
    except (StackStartError, DemoFailed, PredictorBusy, httpx.HTTPError) as error:
        console.print(f"[red]{error}[/]")
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    figures["seconds"] = round(time.monotonic() - began, 1)
    result.write_text(json.dumps(figures, indent=2) + "\n")
    for problem in wrong:
        console.print(f"[red]the loop did not close: {problem}[/]")
    if not wrong:
        console.print(f"[green]the loop closed[/] in {figures['seconds']:.0f} s")
    print(result)
    return 1 if wrong else 0


def demo_settings() -> StackSettings:
    """Return the stack's settings, with the flights as the use case, whatever else this shell is for."""
    os.environ["DRIFTLOOP_USE_CASE"] = USE_CASE
    return load_settings_or_exit(StackSettings)


def demo_stack() -> Stack:
    """Return the demo's stack, not started, with an emptied folder of its own."""
    settings = demo_settings()
    ours = settings.stack.model_copy(update={"data_dir": settings.stack.data_dir / "demo"})
    extra = {
        "DRIFTLOOP_GATE__HOLDOUT_DAYS": str(HOLDOUT_DAYS),
        "DRIFTLOOP_POLICY__ENABLED": "false",  # the demo requests its retrain itself
        "DRIFTLOOP_WINDOW__IDLE_TIMEOUT_SECONDS": str(QUIET_SECONDS),
        "DRIFTLOOP_PREDICTOR__ALIAS_POLL_INTERVAL_SECONDS": "1",
    }
    return Stack(
        settings.model_copy(update={"stack": ours}), lambda line: console.print(f"  {line}"), extra, reset=True
    )


def phase(title: str) -> None:
    """Print the title of a phase."""
    console.print(f"\n[bold]{title}[/]")


class Demo:
    """The phases of the demo, in order, with statistics of each."""

    def __init__(self, stack: Stack) -> None:
        """Load the rows; nothing is streamed yet."""
        self.stack = stack
        self.rows = usecase.load_rows()
        self.stats: dict[str, ReplayStats] = {}
        self.windows: dict[str, list[DriftVerdict]] = {}

    async def run(self) -> tuple[dict[str, Any], list[str]]:
        """Run all phases; return the figures, and the reasons why the loop did not close."""
        phase("1  Training version 1 on January to March, some whole days held back")
        first = DataSelection(start=JANUARY, base_end=APRIL, exclude_days=QUIET_DAYS, archive=False)
        await self.retrain("the first version", first)
        await self.wait_until_serving("1")

        phase("2  Streaming the days that were held back: nothing has changed, so no alarm")
        quarter = usecase.rows_between(self.rows, JANUARY, APRIL)
        held_back = quarter[usecase.local_dates(quarter[usecase.timestamp]).isin(QUIET_DAYS)]
        await self.stream("held back", held_back)

        phase("3  Streaming July, with outcomes: the season has changed")
        july = usecase.rows_between(self.rows, JULY, AUGUST)
        await self.stream("July", july)

        phase("4  Requesting a retrain; requests of one row go on while version 2 is trained, proven and swapped in")
        asked_at = time.time()
        two = await self.retrain_under_load(DataSelection(start=JANUARY, base_end=APRIL))

        phase("5  Streaming the second half of July once more, to version 2")
        days = sorted(usecase.local_dates(july[usecase.timestamp]).unique())
        await self.stream("July again", usecase.rows_between(july, days[-HOLDOUT_DAYS]))

        figures = self.figures(two, asked_at)
        console.print(summary(figures, self.windows))
        return figures, problems(figures)

    async def retrain(self, reason: str, data: DataSelection) -> ModelStateChanged:
        """Request a retrain and wait for its result, which must be a promotion."""
        change = await asyncio.to_thread(self.stack.retrain, reason, data, tell_change)
        if change.state != "promoted":
            raise DemoFailed(f"the retrain {change.retrain_id} was {change.state}: {change.explanation}")
        return change

    async def retrain_under_load(self, data: DataSelection) -> ModelStateChanged:
        """Request a retrain while requests flow, until the new version answers."""
        rows = usecase.rows_between(self.rows, AUGUST)
        replay = Replay(
            usecase, self.stack.components["predictor"].url, rate=None, outcomes_after=None, retry_timeout_seconds=0
        )
        flow = asyncio.create_task(replay.run(rows))
        change = await self.retrain("July looks different", data)
        await self.wait_until_serving(str(change.version))
        before = len(replay.stats.responses)
        while len(replay.stats.responses) < before + 200:  # and a little on, for answers of the new version
            await asyncio.sleep(0.1)
            if flow.done():
                flow.result()
                raise DemoFailed("the rows ended before the swap did")
        replay.stop()
        self.stats["the swap"] = await flow
        await self.wait_until_judged("the swap")
        return change

    async def wait_until_serving(self, version: str) -> None:
        """Wait until the predictor serves the version."""
        series = f'driftloop_predictor_serving_version_info{{model="flights",version="{version}"}} 1.0'
        await self.wait_until(lambda: series in self.metrics(), f"version {version} in service")

    def metrics(self) -> str:
        """Return the predictor's metrics as Prometheus reads them."""
        return httpx.get(self.stack.components["predictor"].url + "/metrics").text

    async def stream(self, name: str, rows: pd.DataFrame) -> None:
        """Stream rows with their outcomes and wait until all of them are judged."""
        replay = Replay(usecase, self.stack.components["predictor"].url, rows_per_request=ROWS_PER_REQUEST, rate=None)
        with Progress(TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), console=console) as bar:
            task = bar.add_task(name, total=len(rows))

            def progress(tally: ReplayStats, at: datetime) -> None:
                bar.update(task, completed=tally.rows, description=f"{at:%Y-%m-%d %H:%M}")

            self.stats[name] = await replay.run(rows, progress)
        await self.wait_until_judged(name)

    async def wait_until_judged(self, name: str) -> None:
        """Wait until all events are judged and archived, and print the new verdicts."""
        stack = self.stack

        def nothing_left() -> bool:
            return reader.is_caught_up(stack.kafka, "drift_worker", [stack.topics.predictions, stack.topics.outcomes])

        await self.wait_until(nothing_left, "everything is judged and archived")
        known = {verdict.id for verdicts in self.windows.values() for verdict in verdicts}
        events = reader.read_last(stack.kafka, stack.topics.drift, 10_000)
        new = [event for event in events if isinstance(event, DriftVerdict) and event.id not in known]
        self.windows[name] = new
        for verdict in new:
            color = {"drift": "red", "no_drift": "green"}.get(verdict.verdict, "yellow")
            console.print(
                f"  {verdict.first_prediction_at:%m-%d}–{verdict.last_prediction_at:%m-%d} "
                f"{verdict.rows:>5} rows v{verdict.version} "
                f"[{color}]{verdict.verdict}[/] {escape(', '.join(verdict.drifted_columns) or verdict.explanation)}"
            )

    async def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition, which is evaluated outside the event loop."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not await asyncio.to_thread(condition):
            if ended := self.stack.exited():
                raise DemoFailed(f"{', '.join(ended)} ended; the logs are in {self.stack.folder / 'logs'}")
            if time.monotonic() > deadline:
                raise DemoFailed(f"waited {TIMEOUT_SECONDS} s in vain: {what}")
            await asyncio.sleep(0.5)

    def figures(self, two: ModelStateChanged, asked_at: float) -> dict[str, Any]:
        """Counts what happened; ``two`` is version 2's promotion, asked for at ``asked_at``."""
        stack, tallies, windows = self.stack, self.stats.values(), self.windows
        answers = [answer for tally in tallies for answer in tally.responses]
        swap = self.stats["the swap"].responses
        first_new = next(answer.at for answer in swap if answer.version == two.version)
        events = reader.read_last(stack.kafka, stack.topics.predictions, 10**9)
        again = min(verdict.first_prediction_at for verdict in windows["July again"])
        return {
            "requests": len(answers),
            "failures": sum(answer.status != 200 for answer in answers) + sum(t.retried.total() for t in tallies),
            "events": len(events),
            "distinct_events": len({event.id for event in events}),
            "quiet_windows": judged_windows(windows["held back"]),
            "quiet_alarms": alarms(windows["held back"]),
            "july_windows": judged_windows(windows["July"]),
            "july_alarms": alarms(windows["July"]),
            "july_columns": sorted({column for verdict in windows["July"] for column in verdict.drifted_columns}),
            "july_again_windows": judged_windows(windows["July again"]),
            "july_again_alarms": alarms(windows["July again"]),
            "july_again_alarms_of_version_1": alarms([v for v in windows["July"] if v.last_prediction_at > again]),
            "auc_version_1": two.champion["roc_auc"],
            "auc_version_2": two.challenger["roc_auc"],
            "auc_rows": int(two.challenger["rows"]),
            "seconds_to_swap": round(first_new - asked_at, 1),
            "longest_answer_in_swap_ms": round(1000 * max(a.seconds for a in swap if abs(a.at - first_new) <= 2), 1),
        }


def judged_windows(verdicts: list[DriftVerdict]) -> int:
    """Return how many windows could be judged."""
    return sum(verdict.verdict != "inconclusive" for verdict in verdicts)


def alarms(verdicts: list[DriftVerdict]) -> int:
    """Return how many windows raised an alarm."""
    return sum(verdict.verdict == "drift" for verdict in verdicts)


def problems(figures: dict[str, Any]) -> list[str]:
    """Return the reasons why these figures are not those of a closed loop."""
    wrong = {
        "requests failed": figures["failures"] > 0,
        "events on the topic and requests differ": not (
            figures["requests"] == figures["events"] == figures["distinct_events"]
        ),
        "no window was judged in the quiet phase": figures["quiet_windows"] == 0,
        "an alarm in the quiet phase": figures["quiet_alarms"] > 0,
        "July went unnoticed": figures["july_alarms"] < figures["july_windows"] / 2 or not figures["july_columns"],
        "version 2 is no better": figures["auc_version_2"] <= figures["auc_version_1"],
        "version 2 is not far quieter than version 1": figures["july_again_windows"] == 0
        or figures["july_again_alarms"] > figures["july_again_alarms_of_version_1"] / 4,
    }
    return [problem for problem, is_so in wrong.items() if is_so]


def tell_change(change: ModelStateChanged) -> None:
    """Print a state of a retrain."""
    console.print(
        escape(f"  {change.state}{f' (version {change.version})' if change.version else ''}: {change.explanation}")
    )


def summary(figures: dict[str, Any], windows: dict[str, list[DriftVerdict]]) -> Table:
    """Return the table that is printed at the end."""
    table = Table(title="What happened", show_header=False, title_justify="left")
    table.add_row("requests", f"{figures['requests']:,}")
    table.add_row("failures", str(figures["failures"]))
    table.add_row("events on the topic", f"{figures['events']:,}")
    for name, verdicts in windows.items():
        for version in sorted({verdict.version for verdict in verdicts}):
            of_version = [v for v in verdicts if v.version == version and v.verdict != "inconclusive"]
            if of_version:
                table.add_row(
                    f"alarms, {name}, version {version}", f"{alarms(of_version)} of {len(of_version)} windows"
                )
    table.add_row("drifted columns in July", ", ".join(figures["july_columns"]))
    table.add_row(
        f"ROC AUC on {figures['auc_rows']:,} rows that neither saw",
        f"version 1 {figures['auc_version_1']:.3f}, version 2 {figures['auc_version_2']:.3f}",
    )
    table.add_row("retrain event to first new answer", f"{figures['seconds_to_swap']} s")
    table.add_row("longest answer around the swap", f"{figures['longest_answer_in_swap_ms']} ms")
    return table


if __name__ == "__main__":
    sys.exit(main())
