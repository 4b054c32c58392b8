"""One year of retrains: version 1 is trained on January to March, and the rest of the year runs through the system.

Predictor, topics, archive, drift worker, policy, trainer, gate and swap are real. Days follow one another, and outcomes
come a day late. Two other strategies are computed on the same rows: never retrained, and retrained on the first of
every month on all rows so far. At the end come deliberately broken retrains, which must leave the champion in place.
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
from benchmarks.replay_days import DayReplay, DayTimedOut, measure_cpu
from driftloop.evaluation.metrics import FloatArray, brier_losses, roc_auc
from driftloop.events import DataSelection, DriftVerdict, ModelStateChanged, RetrainRequested
from stack.running import Stack, StackStartError
from tests.support import report, stack_fixture
from tests.support.processes import exit_on_sigterm
from tests.support.report import log
from tests.support.running_stack import isolated_settings
from tests.support.topic_audit import TopicAudit
from trainer.retrain.training import train
from usecases.flights import usecase

FIRST_TRAINING_PERIOD = (date(2013, 1, 1), date(2013, 4, 1))
MONTHS = [date(2013, month, 1) for month in range(4, 13)] + [date(2014, 1, 1)]
COMPARED_MONTHS = range(5, 13)  # months of the mean figures; in April no strategy has more training data than version 1
SETTINGS = {
    "DRIFTLOOP_WINDOW__IDLE_TIMEOUT_SECONDS": "3600",  # the replay pauses between days, which must not close windows
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
    """Run the benchmark; return the exit code."""
    parser = report.create_parser(
        f"{__doc__}\nNeeds what `make setup` installs. Takes about 20 minutes; --quick ends in June."
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write a chart (PNG) to this file")
    options = parser.parse_args()
    try:
        with exit_on_sigterm():
            figures, details = measure(date(2013, 6, 16) if options.quick else MONTHS[-1], options.picture)
    except (StackStartError, DayTimedOut) as error:
        report.warn(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    report.write_results("year", figures, GOALS, details, options.json)
    return 0


def measure(end: date, picture: Path | None) -> tuple[dict[str, float], dict[str, Any]]:
    """Replay the year up to ``end``; return figures and details."""
    rows = usecase.load_rows()
    days = usecase.local_dates(rows[usecase.timestamp])
    replayed = np.asarray((days >= FIRST_TRAINING_PERIOD[1]) & (days < end))
    predictions = {"monthly": predict_monthly_schedule(rows, end)}
    with (
        Stack(isolated_settings(stack_fixture.STACK_DIR), log, SETTINGS, reset=True) as stack,
        DayReplay(stack, usecase) as replay,
    ):
        first = stack.retrain(
            "the first version",
            DataSelection(start=FIRST_TRAINING_PERIOD[0], base_end=FIRST_TRAINING_PERIOD[1], archive=False),
            _log_state,
        )
        if first.version is None or first.state != "promoted":
            raise StackStartError(f"there is no first version: {first.explanation}")
        predictions["never"] = _predict(stack.registry.load(first.version).estimator, rows)
        replay.wait_until_settled()  # until the predictor serves it
        with measure_cpu(stack) as used_seconds:
            started = time.monotonic()
            replay_year(replay, rows[replayed], days[replayed])
            seconds = time.monotonic() - started
            cpu = used_seconds()
        predictions["loop"] = replay.predictions(len(rows))
        with TopicAudit(stack.kafka, stack.topics.predictions) as audit:
            audit.wait_for(len(replay.request_ids))
            lost = sum(audit.id_counts[request] != 1 for request in replay.request_ids)
        changes, requests = replay.reader.of_type(ModelStateChanged), replay.reader.of_type(RetrainRequested)
        verdicts = replay.verdicts
        log("deliberately broken retrains")
        broken = broken_retrains.run_broken_retrains(stack, first.version)
    labelled = replayed & np.asarray(rows[usecase.target].notna())
    months = metrics_by_month(rows, days, labelled, predictions, verdicts, changes)
    compared = [month for month in months if int(month) in COMPARED_MONTHS]
    results = [change for change in changes if change.is_final and change.retrain_id != first.retrain_id]
    figures = {
        **{f"auc_{name}": float(np.mean([months[month][f"auc_{name}"] for month in compared])) for name in STRATEGIES},
        "retrains_loop": float(sum(change.state == "promoted" for change in results)),
        "failures": float(len(replay.failures)),
        "events_lost": float(lost),
        "broken_promoted": float(sum(state == "promoted" for state, _ in broken.values())),
    }
    print_tables(months, results, requests, broken)
    by_component = ", ".join(f"{name} {value:,.0f}" for name, value in cpu.items())
    log(f"{seconds:,.0f} s for {replayed.sum():,} rows; processor seconds: {by_component}")
    if picture is not None:
        draw_picture(months, results, verdicts, picture)
        log(f"chart written to {picture}")
    details = {
        "months": months,
        "retrains": [
            {"id": c.retrain_id, "state": c.state, "version": c.version, "explanation": c.explanation} for c in results
        ],
        "requests": [{"id": r.id, "trigger": r.trigger, "reason": r.reason} for r in requests],
        "broken": {name: {"state": state, "explanation": explanation} for name, (state, explanation) in broken.items()},
        "seconds": seconds,
        "processor_seconds": cpu,
        "failed": replay.failures[:20],
    }
    return figures, details


def predict_monthly_schedule(rows: pd.DataFrame, end: date) -> FloatArray:
    """Return the predictions of versions that are trained on the first of each month on all rows so far."""
    predictions = np.full(len(rows), np.nan)
    days = np.asarray(usecase.local_dates(rows[usecase.timestamp]))
    for month_start, next_start in pairwise(MONTHS):
        if month_start >= end:
            break
        training_rows = usecase.rows_between(rows, FIRST_TRAINING_PERIOD[0], month_start)
        estimator, row_count = train(usecase, training_rows)
        in_month = (days >= month_start) & (days < next_start)
        predictions[in_month] = _predict(estimator, rows[in_month])
        log(f"monthly schedule: {month_start:%B} by {row_count:,} rows before it")
    return predictions


def replay_year(replay: DayReplay, rows: pd.DataFrame, days: pd.Series) -> None:
    """Replay all rows day by day, with progress."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=report.console,
        disable=not report.console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=days.nunique())
        for number, (day, rows_of_day) in enumerate(rows.groupby(days, sort=True)):
            replay.replay_day(rows_of_day)
            version = replay.row_predictions[-1].version if replay.row_predictions else "–"
            bar.update(task, advance=1, description=f"{day} v{version}")
            if number % 10 == 0:
                alarms = sum(verdict.verdict == "drift" for verdict in replay.verdicts)
                log(f"{day}: version {version}, {len(replay.verdicts)} windows, {alarms} alarms")
        replay.report_outcomes(rows[usecase.timestamp].iloc[-1] + pd.Timedelta(days=1))
        replay.wait_until_settled()


def metrics_by_month(
    rows: pd.DataFrame,
    days: pd.Series,
    labelled: np.ndarray[Any, np.dtype[np.bool_]],
    predictions: Mapping[str, FloatArray],
    verdicts: list[DriftVerdict],
    changes: list[ModelStateChanged],
) -> dict[str, dict[str, float]]:
    """Return ROC AUC and Brier score by strategy, and counts of windows and retrains, by month."""
    month = np.asarray([day.month for day in days])
    outcomes = rows[usecase.target].to_numpy(dtype=np.float64, na_value=np.nan)
    months: dict[str, dict[str, float]] = {}
    for number in sorted(set(month[labelled])):
        in_month = labelled & (month == number)
        values: dict[str, float] = {"rows": float(in_month.sum())}
        for name in STRATEGIES:
            predicted = in_month & ~np.isnan(predictions[name])
            values[f"auc_{name}"] = roc_auc(outcomes[predicted], predictions[name][predicted])
            values[f"brier_{name}"] = float(brier_losses(outcomes[predicted], predictions[name][predicted]).mean())
        of_month = [verdict for verdict in verdicts if verdict.last_prediction_at.month == number]
        values["windows"] = float(len(of_month))
        values["alarms"] = float(sum(verdict.verdict == "drift" for verdict in of_month))
        states = Counter(
            change.state
            for change in changes
            if change.is_final and change.trained_through is not None and change.trained_through.month == number
        )
        values |= {state: float(states[state]) for state in ("promoted", "rejected", "failed", "rolled_back")}
        months[str(number)] = values
    return months


def print_tables(
    months: Mapping[str, Mapping[str, float]],
    changes: list[ModelStateChanged],
    requests: list[RetrainRequested],
    broken: Mapping[str, tuple[str, str]],
) -> None:
    """Print the metrics by month and the results of all retrains."""
    scores = [f"{metric} {name}" for metric in ("AUC", "Brier") for name in STRATEGIES]
    counts = ("windows", "alarms", "promoted", "rejected")
    table = report.create_table("year: ROC AUC and Brier score by month", "month", *scores, *counts)
    for month, values in months.items():
        table.add_row(
            f"{date(2013, int(month), 1):%B}",
            *(f"{values[f'{metric}_{name}']:.3f}" for metric in ("auc", "brier") for name in STRATEGIES),
            *(f"{values[count]:.0f}" for count in counts),
        )
    report.console.print(table)
    reasons = {request.id: request.reason for request in requests}
    for change in changes:
        reason = reasons.get(change.retrain_id, "")
        log(f"{change.state} {change.version or ''}: requested because {reason}: {change.explanation}")
    for name, (state, explanation) in broken.items():
        log(f"deliberately broken, {name}: {state}: {explanation}")


def draw_picture(
    months: Mapping[str, Mapping[str, float]],
    changes: list[ModelStateChanged],
    verdicts: list[DriftVerdict],
    file: Path,
) -> None:
    """Draw ROC AUC by month, the times of retrains, and the scores of windows."""
    import matplotlib as mpl  # noqa: PLC0415  # takes seconds, and is not needed without a picture

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
    scored = [verdict for verdict in verdicts if verdict.score is not None and verdict.score_threshold is not None]
    ratios = [(verdict.score or 0) / (verdict.score_threshold or 1) for verdict in scored]
    lower.plot([verdict.last_prediction_at for verdict in scored], ratios, ".", markersize=3, color="#1f6f8b")
    lower.axhline(1, color="black", linewidth=1, linestyle="--")
    lower.set(ylabel="window score / threshold")
    figure.savefig(file, dpi=110)


def _log_state(change: ModelStateChanged) -> None:
    log(f"{change.state}: {change.explanation}")


def _predict(estimator: Any, rows: pd.DataFrame) -> FloatArray:
    return usecase.target_type.predict(estimator, "predict_proba", rows[usecase.features])


if __name__ == "__main__":
    sys.exit(main())
