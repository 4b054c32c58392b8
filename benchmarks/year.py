"""A year as the judge: version 1 knows January to March, and what follows goes through the real system, day by day.

Predictor, topics, archive, drift worker, policy, trainer, gate and swap, with outcomes a day late; side by side on the
same rows never retrained, and retrained on the first of every month on all rows so far. At the end retrains that are
broken on purpose, which must leave the champion where it is.
"""

import sys
import time
from collections import Counter
from collections.abc import Mapping
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import broken_retrains
from benchmarks.replay_days import Days, Stuck, machine_seconds
from driftloop.evaluation.metrics import FloatArray, roc_auc
from driftloop.events import DataSelection, DriftVerdict, ModelStateChanged, RetrainRequested
from stack.running import CannotStart, Stack
from tests.support import report, stack_fixture
from tests.support.processes import exit_on_sigterm
from tests.support.report import log
from tests.support.running_stack import isolated_settings
from tests.support.topic_audit import TopicAudit
from trainer.retrain.training import train
from usecases.flights import usecase

LEARNED = (date(2013, 1, 1), date(2013, 4, 1))
MONTHS = [date(2013, month, 1) for month in range(4, 13)] + [date(2014, 1, 1)]
JUDGED = range(5, 13)  # months whose mean is a figure: in April none has learned from more than version 1
SETTINGS = {
    "DRIFTLOOP_WINDOW__IDLE_TIMEOUT_SECONDS": "3600",  # the replay waits between two days, which is no quiet
    "DRIFTLOOP_POLICY__DATA": '{"base_end": "2013-04-01"}',  # the base dataset is the whole year: none of what is to come
}
GOALS = {
    "auc_loop": "≥ auc_monthly",
    "retrains_loop": "< 9, the monthly schedule's",
    "failures": "0",
    "events_lost": "0",
    "broken_promoted": "0",
}
STRATEGIES = {"never": "never retrained", "monthly": "first of every month", "loop": "driftloop"}
COLORS = ("#8d99ae", "#1f6f8b", "#d1495b")


def main() -> int:
    """Runs the year; returns the exit code."""
    parser = report.create_parser(
        f"{__doc__}\nNeeds what `make setup` installs. Takes about 20 minutes; --quick ends in June."
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the year (PNG) into this file")
    options = parser.parse_args()
    try:
        with exit_on_sigterm():
            figures, details = measure(date(2013, 6, 16) if options.quick else MONTHS[-1], options.picture)
    except (CannotStart, Stuck) as error:
        report.warn(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    report.write_results("year", figures, GOALS, details, options.json)
    return 0


def measure(end: date, picture: Path | None) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures and details."""
    rows = usecase.load_rows()
    days = usecase.local_dates(rows[usecase.timestamp])
    judged = np.asarray((days >= LEARNED[1]) & (days < end))
    said = {"monthly": monthly(rows, end)}
    with (
        Stack(isolated_settings(stack_fixture.FOLDER), log, SETTINGS, fresh=True) as stack,
        Days(stack, usecase) as year,
    ):
        first = stack.retrain(
            "the first version", DataSelection(start=LEARNED[0], base_end=LEARNED[1], archive=False), _tell
        )
        if first.version is None or first.state != "promoted":
            raise CannotStart(f"there is no first version: {first.explanation}")
        said["never"] = _of(stack.registry.load(first.version).estimator, rows)
        year.settle()  # the predictor has it
        with machine_seconds(stack) as used:
            began = time.monotonic()
            through(year, rows[judged], days[judged])
            seconds = time.monotonic() - began
            cpu = used()
        said["loop"] = year.predictions(len(rows))
        with TopicAudit(stack.kafka, stack.topics.predictions) as arrivals:
            arrivals.wait_for(len(year.requests))
            lost = sum(arrivals.id_counts[request] != 1 for request in year.requests)
        changes, asked = year.told.of(ModelStateChanged), year.told.of(RetrainRequested)
        windows = year.windows
        failed = year.failed
        log("retrains that are broken on purpose")
        outcomes = broken_retrains.retrain(stack, first.version)
    labelled = judged & np.asarray(rows[usecase.target].notna())
    table = by_month(rows, days, labelled, said, windows, changes)
    shown = [month for month in table if int(month) in JUDGED]
    ours = [change for change in changes if change.final and change.retrain_id != first.retrain_id]
    figures = {
        **{f"auc_{name}": float(np.mean([table[month][f"auc_{name}"] for month in shown])) for name in STRATEGIES},
        "retrains_loop": float(sum(change.state == "promoted" for change in ours)),
        "failures": float(len(failed)),
        "events_lost": float(lost),
        "broken_promoted": float(sum(state == "promoted" for state, _ in outcomes.values())),
    }
    show(table, ours, asked, outcomes)
    log(f"{seconds:,.0f} s for {judged.sum():,} rows; processor seconds: "
         + ", ".join(f"{name} {value:,.0f}" for name, value in cpu.items()))  # fmt: skip
    if picture is not None:
        draw(table, ours, windows, picture)
        log(f"drawn: {picture}")
    details = {
        "months": table,
        "retrains": [{"id": c.retrain_id, "state": c.state, "version": c.version, "why": c.explanation} for c in ours],
        "asked": [{"id": r.id, "trigger": r.trigger, "reason": r.reason} for r in asked],
        "broken": {name: {"state": state, "why": why} for name, (state, why) in outcomes.items()},
        "seconds": seconds,
        "processor_seconds": cpu,
        "failed": failed[:20],
    }
    return figures, details


def monthly(rows: pd.DataFrame, end: date) -> FloatArray:
    """What versions would say that are trained on the first of each month on all rows so far."""
    said = np.full(len(rows), np.nan)
    days = np.asarray(usecase.local_dates(rows[usecase.timestamp]))
    for first, following in pairwise(MONTHS):
        if first >= end:
            break
        estimator, learned = train(usecase, usecase.rows_between(rows, LEARNED[0], first))
        here = (days >= first) & (days < following)
        said[here] = _of(estimator, rows[here])
        log(f"monthly schedule: {first:%B} by {learned:,} rows before it")
    return said


def through(year: Days, rows: pd.DataFrame, days: pd.Series) -> None:
    """All rows, a day after the other, with progress."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=report.console,
        disable=not report.console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=days.nunique())
        for number, (day, of_day) in enumerate(rows.groupby(days, sort=True)):
            year.day(of_day)
            version = year.answered[-1].version if year.answered else "–"
            bar.update(task, advance=1, description=f"{day} v{version}")
            if number % 10 == 0:
                alarms = sum(window.verdict == "drift" for window in year.windows)
                log(f"{day}: version {version}, {len(year.windows)} windows, {alarms} alarms")
        year.report_outcomes(rows[usecase.timestamp].iloc[-1] + pd.Timedelta(days=1))
        year.settle()


def by_month(
    rows: pd.DataFrame,
    days: pd.Series,
    labelled: np.ndarray[Any, np.dtype[np.bool_]],
    said: Mapping[str, FloatArray],
    windows: list[DriftVerdict],
    changes: list[ModelStateChanged],
) -> dict[str, dict[str, float]]:
    """AUC and Brier score by strategy, and what the loop did."""
    month = np.asarray([day.month for day in days])
    outcomes = rows[usecase.target].to_numpy(dtype=np.float64, na_value=np.nan)
    found: dict[str, dict[str, float]] = {}
    for number in sorted(set(month[labelled])):
        here = labelled & (month == number)
        figures: dict[str, float] = {"rows": float(here.sum())}
        for name in STRATEGIES:
            answered = here & ~np.isnan(said[name])
            figures[f"auc_{name}"] = roc_auc(outcomes[answered], said[name][answered])
            figures[f"brier_{name}"] = float(np.mean((said[name][answered] - outcomes[answered]) ** 2))
        inside = [window for window in windows if window.last_prediction_at.month == number]
        figures["windows"] = float(len(inside))
        figures["alarms"] = float(sum(window.verdict == "drift" for window in inside))
        states = Counter(
            change.state
            for change in changes
            if change.is_final and change.trained_through is not None and change.trained_through.month == number
        )
        figures |= {state: float(states[state]) for state in ("promoted", "rejected", "failed", "rolled_back")}
        found[str(number)] = figures
    return found


def show(
    months: Mapping[str, Mapping[str, float]],
    changes: list[ModelStateChanged],
    asked: list[RetrainRequested],
    outcomes: Mapping[str, tuple[str, str]],
) -> None:
    """The year as tables."""
    scores = [f"{what} {name}" for what in ("AUC", "Brier") for name in STRATEGIES]
    counts = ("windows", "alarms", "promoted", "rejected")
    shown = report.create_table("year: ROC AUC and Brier score by month", "month", *scores, *counts)
    for month, values in months.items():
        shown.add_row(
            f"{date(2013, int(month), 1):%B}",
            *(f"{values[f'{what}_{name}']:.3f}" for what in ("auc", "brier") for name in STRATEGIES),
            *(f"{values[what]:.0f}" for what in counts),
        )
    report.console.print(shown)
    reasons = {retrain.id: retrain.reason for retrain in asked}
    for change in changes:
        log(
            f"{change.state} {change.version or ''}: asked for since {reasons.get(change.retrain_id, '')}: {change.explanation}"
        )
    for name, (state, why) in outcomes.items():
        log(f"broken on purpose, {name}: {state}: {why}")


def draw(
    months: Mapping[str, Mapping[str, float]], changes: list[ModelStateChanged], windows: list[DriftVerdict], file: Path
) -> None:
    """The AUC by month, when the loop retrained, and the windows' scores."""
    import matplotlib as mpl  # noqa: PLC0415  # seconds, which who wants no picture does not wait for

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(11, 6.5), layout="constrained", sharex=True, height_ratios=(1.5, 1)
    )
    middle = [date(2013, int(month), 15) for month in months]
    for (name, label), color in zip(STRATEGIES.items(), COLORS, strict=True):
        upper.plot(middle, [values[f"auc_{name}"] for values in months.values()], "o-", color=color, label=label)
    for change in changes:
        if change.trained_through is not None:
            color = "#d1495b" if change.state == "promoted" else "#8d99ae"
            upper.axvline(
                change.trained_through, color=color, linewidth=1, linestyle="-" if change.state == "promoted" else ":"
            )
    upper.set(ylabel="ROC AUC")
    upper.set_title(
        "ROC AUC by month; lines: retrains of the loop, promoted (solid) and rejected (dotted)", fontsize=10
    )
    upper.legend(frameon=False, fontsize=9)
    known = [window for window in windows if window.score is not None and window.score_threshold is not None]
    share = [(window.score or 0) / (window.score_threshold or 1) for window in known]
    lower.plot([window.last_prediction_at for window in known], share, ".", markersize=3, color="#1f6f8b")
    lower.axhline(1, color="black", linewidth=1, linestyle="--")
    lower.set(ylabel="window score / limit")
    figure.savefig(file, dpi=110)


def _tell(change: ModelStateChanged) -> None:
    log(f"{change.state}: {change.explanation}")


def _of(estimator: Any, rows: pd.DataFrame) -> FloatArray:
    return np.asarray(estimator.predict_proba(rows[usecase.features]), dtype=np.float64)[:, 1]


if __name__ == "__main__":
    sys.exit(main())
