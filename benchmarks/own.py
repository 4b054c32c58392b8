"""A table of one's own: how fast files are loaded and scored, with Kafka, MLflow and a bucket on this machine.

``driftloop score`` scores the flights of a year and a file with ten times as many rows. Its rows per second are those
of the additional rows, so that they do not depend on the command's start; they are compared with those of the pipeline
alone, which reads the same file and predicts for all rows in one call. ``driftloop outcomes load`` publishes outcomes
from a CSV file; its time is that of the whole command, and so is that of ``driftloop new``. ``driftloop adopt`` makes
a version of one that MLflow has, with a reference of 100,000 rows; its time is without that of the pipeline's own
predictions for these rows.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import new_table
from driftloop.events import new_event_id
from stack.running import Stack, StackStartError
from tests.support import flights_model, report, stack_fixture
from tests.support.flights_model import SavedModel
from tests.support.processes import exit_on_sigterm
from tests.support.report import log
from usecases.flights import usecase

GOALS = {
    "score_ratio": "≥ 0.5",
    "score_memory_ratio": "≤ 1.2",
    "outcomes_rows_per_second": "≥ 20,000",
    "new_seconds": "≤ 20",
    "adopt_seconds": "≤ 30",
}
MORE_ROWS = 10
QUICK_ROWS = 60_000
ADOPTED_ROWS, QUICK_ADOPTED_ROWS = 100_000, 25_000
OUTCOMES, QUICK_OUTCOMES = 500_000, 20_000
REPETITIONS, QUICK_REPETITIONS = 3, 1


class Run(NamedTuple):
    """A command that has ended."""

    seconds: float
    peak_bytes: int
    """The most memory that the process had."""


def main() -> int:
    """Run the benchmark; return the exit code."""
    options = report.create_parser(f"{__doc__}\nRun `make setup` first.").parse_args()
    try:
        with exit_on_sigterm(), stack_fixture.benchmark_stack(log) as stack:
            # Each part returns its figures and details.
            parts = [
                measure_score(stack, quick=options.quick),
                measure_outcomes(stack, quick=options.quick),
                measure_new(quick=options.quick),
                measure_adopt(stack, quick=options.quick),
            ]
    except StackStartError as error:
        report.warn(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    figures = {name: value for part, _ in parts for name, value in part.items()}
    details = {name: value for _, part in parts for name, value in part.items()}
    report.write_results("own", figures, GOALS, details, options.json)
    return 0


def measure_score(stack: Stack, *, quick: bool) -> tuple[dict[str, float], dict[str, Any]]:
    """Return figures and details of ``driftloop score``."""
    log("training")
    model = flights_model.train_and_save(stack_fixture.STACK_DIR / "model", flights_model.WINTER)
    stack.registry.promote(stack_fixture.register_model(stack, model))
    rows = usecase.load_rows()[: QUICK_ROWS if quick else None]
    folder = stack_fixture.STACK_DIR / "files"
    folder.mkdir(parents=True, exist_ok=True)
    small, large = folder / "rows.parquet", folder / "more_rows.parquet"
    write_rows(rows, small, 1)
    write_rows(rows, large, MORE_ROWS)
    runs = []
    pipeline_seconds = []
    for number in range(QUICK_REPETITIONS if quick else REPETITIONS):
        log("the pipeline alone")
        pipeline_seconds.append(time_pipeline(model, small))
        log("driftloop score")
        outputs = [folder / f"scored-{number}-{file.name}" for file in (small, large)]
        runs.append([run_command(stack, "score", str(f), str(o)) for f, o in zip((small, large), outputs, strict=True)])
    additional = len(rows) * (MORE_ROWS - 1)
    score_rates = [additional / (more.seconds - one.seconds) for one, more in runs]
    pipeline_rates = [len(rows) / seconds for seconds in pipeline_seconds]
    figures = {
        "score_ratio": median(score_rates) / median(pipeline_rates),
        "score_memory_ratio": median(more.peak_bytes / one.peak_bytes for one, more in runs),
    }
    details = {
        "rows": len(rows),
        "score_rows_per_second": score_rates,
        "pipeline_rows_per_second": pipeline_rates,
        "score_runs": [[run._asdict() for run in pair] for pair in runs],
    }
    return figures, details


def measure_new(*, quick: bool) -> tuple[dict[str, float], dict[str, Any]]:
    """Write a use case for a CSV file; return figures and details."""
    rows = QUICK_ROWS if quick else new_table.ROWS
    log(f"driftloop new for {rows:,} rows")
    return {"new_seconds": new_table.new_seconds(rows)}, {"new_rows": rows}


def measure_adopt(stack: Stack, *, quick: bool) -> tuple[dict[str, float], dict[str, Any]]:
    """Adopt a version of the flights model; return figures and details."""
    model = flights_model.train_and_save(stack_fixture.STACK_DIR / "model", flights_model.WINTER)
    version = stack_fixture.register_model(stack, model)
    file = stack_fixture.STACK_DIR / "adopted.parquet"
    usecase.load_rows()[: QUICK_ADOPTED_ROWS if quick else ADOPTED_ROWS].to_parquet(file, index=False)
    options = ("--data", str(file), "--target", usecase.target, "--time", usecase.timestamp, "--yes")
    seconds = []
    for _ in range(QUICK_REPETITIONS if quick else REPETITIONS):
        log("driftloop adopt")
        run = run_command(stack, "adopt", flights_model.MODEL, version, *options)
        seconds.append(run.seconds - time_pipeline(model, file))
    return {"adopt_seconds": median(seconds)}, {"adopt_runs": seconds}


def measure_outcomes(stack: Stack, *, quick: bool) -> tuple[dict[str, float], dict[str, Any]]:
    """Return figures and details of ``driftloop outcomes load``."""
    count = QUICK_OUTCOMES if quick else OUTCOMES
    runs = []
    for number in range(QUICK_REPETITIONS if quick else REPETITIONS):
        file = stack_fixture.STACK_DIR / f"outcomes-{number}.csv"
        random = np.random.default_rng(number)
        outcomes = {
            "prediction_id": [new_event_id() for _ in range(count)],
            "late": random.integers(0, 2, count),
            "known_at": pd.Timestamp("2013-07-01") + pd.to_timedelta(np.arange(count), unit="s"),
        }
        pd.DataFrame(outcomes).to_csv(file, index=False)
        log(f"driftloop outcomes load, {count:,} rows")
        options = ("--id", "prediction_id", "--outcome", "late", "--time", "known_at")
        runs.append(run_command(stack, "outcomes", "load", str(file), *options))
    figures = {"outcomes_rows_per_second": count / median(run.seconds for run in runs)}
    return figures, {"outcomes": count, "outcomes_runs": [run._asdict() for run in runs]}


def write_rows(rows: pd.DataFrame, file: Path, times: int) -> None:
    """Write rows to a Parquet file, several times one after the other."""
    table = pa.Table.from_pandas(rows, preserve_index=False)
    with pq.ParquetWriter(file, table.schema) as writer:
        for _ in range(times):
            writer.write_table(table)


def time_pipeline(model: SavedModel, file: Path) -> float:
    """Return the seconds in which the pipeline reads a file and predicts for all of its rows."""
    started = time.perf_counter()
    model.predict_frame(pd.read_parquet(file)[usecase.features])
    return time.perf_counter() - started


def run_command(stack: Stack, *arguments: str) -> Run:
    """Run ``driftloop`` with the stack's settings.

    Raises:
        StackStartError: It fails; the message has its output.
    """
    command: Sequence[str] = [str(Path(sys.executable).with_name("driftloop")), *arguments]
    log_file = stack_fixture.STACK_DIR / "logs" / "command.log"
    started = time.perf_counter()
    with log_file.open("w") as output:
        process = subprocess.Popen(command, env={**os.environ, **stack.environment}, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise StackStartError(f"{' '.join(command)} failed:\n{log_file.read_text()}")
    return Run(time.perf_counter() - started, usage.ru_maxrss * 1024)


if __name__ == "__main__":
    sys.exit(main())
