"""Cost of drift detection: milliseconds per window compared with evidently, and events per second of the worker.

Measured are the preset with its defaults, the preset with driftloop's distances and thresholds, and driftloop's
statistics and scores with a prepared reference, by rows of the reference, columns, and rows of the window. All
distances are compared with evidently's own tests. Then the drift worker runs as a whole (consume, archive, score,
commit) on a full topic, compared with a consumer that only reads it.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.legacy.calculations.stattests import jensenshannon_stat_test, wasserstein_stat_test
from evidently.legacy.core import ColumnType as EvidentlyColumnType
from evidently.presets import DataDriftPreset
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from benchmarks.drift_streams import flights, sample_evenly
from driftloop.drift.calibration import calibrate
from driftloop.drift.distances import ColumnType
from driftloop.drift.prepared_profile import PreparedProfile
from driftloop.drift.profile import DriftProfile
from driftloop.drift.scoring import score_window
from driftloop.drift.settings import WindowSettings
from driftloop.drift.statistics import StatisticKey, window_statistics
from driftloop.events import PREDICTION_COLUMN, DriftVerdict, Prediction, frame_to_columns
from driftloop.kafka.codec import decode, encode
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import save_reference
from stack.running import Stack, StackStartError
from tests.support import flights_model, report, stack_fixture
from tests.support.processes import Server, ServerStartError, exit_on_sigterm
from tests.support.report import log
from trainer.retrain.training import build_reference, train
from usecases.flights import usecase

GOALS = {"speedup_5k": "≥ 100", "speedup_78k": "≥ 100", "max_difference": "≤ 1e-12", "worker_ratio": "≥ 0.5"}
COLUMNS = 13
EXCLUDED_COLUMNS = ("wind_gust", "day_of_week")  # mostly missing values, and a calendar feature
CALIBRATION_ROWS = 40_000  # thresholds of another reference cost the same
FALSE_ALARM_RATE = 0.01
MAX_RUN_SECONDS, MAX_RUNS = 3.0, 7  # limits of the repeats of a preset
DRIFTLOOP_RUNS = 30
PRESET_MAX_CELLS = 8_000_000  # of a reference; with more the preset takes minutes
EVENTS, QUICK_EVENTS = 100_000, 20_000
WINDOW_ROWS = 1_000
TRANSACTION_EVENTS = 2_000  # the maximum of the predictor's relay
TIMEOUT_SECONDS = 300
POLL_INTERVAL_SECONDS = 0.5  # of the worker's memory


class Shape(NamedTuple):
    """Sizes on which the cost of a window depends."""

    reference: int
    columns: int
    rows: int


SHAPES = [
    *(Shape(reference, COLUMNS, rows) for reference in (5_000, 78_000, 500_000) for rows in (1_000, 10_000)),
    *(Shape(reference, 50, rows) for reference in (5_000, 78_000) for rows in (1_000, 10_000)),
    *(Shape(reference, 200, 1_000) for reference in (5_000, 78_000)),
    Shape(500_000, 50, 1_000),
]
QUICK_SHAPES = [Shape(reference, COLUMNS, 1_000) for reference in (5_000, 78_000)]


class Cost(NamedTuple):
    """Median milliseconds per window."""

    preset: float | None
    """evidently's DataDriftPreset with defaults; None if it was not run."""
    configured: float | None
    """The preset with driftloop's distances and thresholds."""
    tests: float
    """evidently's tests of the same columns, called directly."""
    driftloop: float
    difference: float
    """The largest relative difference between driftloop's distances and evidently's."""


class Throughput(NamedTuple):
    """Events per second on a full topic, and the worker's memory."""

    events: int
    bare: float
    """Events per second of a consumer that only reads and counts."""
    worker: float
    seconds: float
    """Seconds from the start of the worker's process to its last verdict."""
    alarms: int
    inconclusive: int
    multiwindow: int
    """Verdicts with a multi-window score."""
    first_mb: float
    """Memory when a tenth of the windows had verdicts."""
    last_mb: float
    max_mb: float


def main() -> int:
    """Run the benchmark; return the exit code."""
    options = report.create_parser(f"{__doc__}\nRun `make setup` first.").parse_args()
    try:
        with exit_on_sigterm():
            costs = {shape: measure_cost(shape) for shape in (QUICK_SHAPES if options.quick else SHAPES)}
            throughput = measure_throughput(QUICK_EVENTS if options.quick else EVENTS)
    except (StackStartError, ServerStartError) as error:
        report.warn(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    print_tables(costs, throughput)
    speedup = {shape: cost.preset / cost.driftloop for shape, cost in costs.items() if cost.preset is not None}
    figures = {
        "speedup_5k": speedup[Shape(5_000, COLUMNS, 1_000)],
        "speedup_78k": speedup[Shape(78_000, COLUMNS, 1_000)],
        "max_difference": max(cost.difference for cost in costs.values()),
        "worker_ratio": throughput.worker / throughput.bare,
    }
    details = {
        "costs": [{**shape._asdict(), **cost._asdict()} for shape, cost in costs.items()],
        "throughput": throughput._asdict(),
    }
    report.write_results("drift_cost", figures, GOALS, details, options.json)
    return 0


def print_tables(costs: Mapping[Shape, Cost], throughput: Throughput) -> None:
    """Print a table of costs and one of the worker's throughput."""
    table = report.create_table(
        "drift_cost: milliseconds per window",
        *("reference", "columns", "rows", "preset", "preset, configured", "its tests alone", "driftloop", "ratio"),
        "difference",
    )
    for shape, cost in costs.items():
        table.add_row(
            *(f"{value:,}" for value in shape),
            *("–" if value is None else f"{value:,.0f}" for value in (cost.preset, cost.configured)),
            f"{cost.tests:,.1f}",
            f"{cost.driftloop:.2f}",
            "–" if cost.preset is None else f"{cost.preset / cost.driftloop:,.0f}",
            f"{cost.difference:.1e}",
        )
    report.console.print(table)
    table = report.create_table(
        f"drift_cost: {throughput.events:,} events of one row, windows of {WINDOW_ROWS:,}", "", "value"
    )
    table.add_row("consumer that only reads", f"{throughput.bare:,.0f} events/s")
    table.add_row("drift worker", f"{throughput.worker:,.0f} events/s")
    table.add_row("from the worker's start to its last verdict", f"{throughput.seconds:.1f} s")
    table.add_row(
        "verdicts: drift, inconclusive, with multi-window score",
        f"{throughput.alarms}, {throughput.inconclusive}, {throughput.multiwindow}",
    )
    table.add_row("memory after a tenth of the windows", f"{throughput.first_mb:,.0f} MB")
    table.add_row("memory after all windows (maximum)", f"{throughput.last_mb:,.0f} MB ({throughput.max_mb:,.0f})")
    report.console.print(table)


def measure_cost(shape: Shape) -> Cost:
    """Measure the cost of one shape."""
    column_types, reference, window = make_frames(shape)
    profile = make_profile(column_types, reference, shape.rows)
    prepared = PreparedProfile.prepare(profile, reference)
    driftloop_ms = median_milliseconds(lambda: score_window(profile, {1: prepared.statistics(window)}), DRIFTLOOP_RUNS)
    values = window_statistics(prepared.whole, window)
    started = time.perf_counter()
    expected = evidently_distances(column_types, reference, window)
    tests = (time.perf_counter() - started) * 1e3
    difference = max(abs(values[key] - value) / max(1, abs(value)) for key, value in expected.items())
    preset = configured = None
    if shape.reference * shape.columns <= PRESET_MAX_CELLS:
        preset, configured = (
            median_milliseconds(run, MAX_RUNS) for run in preset_runs(column_types, reference, window, profile)
        )
    preset_text = "not run" if preset is None else f"{preset:,.0f} ms"
    sizes = f"{shape.reference:>7,} × {shape.columns:>3}, {shape.rows:>6,} rows"
    log(f"{sizes}: preset {preset_text}, driftloop {driftloop_ms:.2f} ms")
    return Cost(preset, configured, tests, driftloop_ms, difference)


def make_frames(shape: Shape) -> tuple[dict[str, ColumnType], pd.DataFrame, pd.DataFrame]:
    """Return column types, a reference and a window: flights, or synthetic columns for other numbers of columns."""
    if shape.columns != COLUMNS:
        return make_synthetic_frames(shape)
    stream = flights()
    column_types = {
        column: column_type for column, column_type in stream.column_types.items() if column not in EXCLUDED_COLUMNS
    }
    rows = stream.rows[list(column_types)]
    reference = rows if shape.reference > 100_000 else rows.iloc[stream.positions("2013-01-01", "2013-04-01")]
    april = int(stream.positions("2013-04-01", "2013-05-01")[0])
    return column_types, sample_evenly(reference, shape.reference), rows.iloc[april : april + shape.rows]


def make_synthetic_frames(shape: Shape) -> tuple[dict[str, ColumnType], pd.DataFrame, pd.DataFrame]:
    """Return synthetic columns: every fifth one has 20 levels, the others are numbers with many or few values."""
    random = np.random.default_rng(shape.columns)
    column_types: dict[str, ColumnType] = {
        f"c{number}": "category" if number % 5 == 0 else "number" for number in range(shape.columns)
    }

    def rows(count: int) -> pd.DataFrame:
        columns: dict[str, Any] = {}
        for number, (column, column_type) in enumerate(column_types.items()):
            if column_type == "category":
                columns[column] = np.array([f"level {level}" for level in range(20)], dtype=object)[
                    random.binomial(19, 0.3, count)
                ]
            else:
                columns[column] = random.normal(size=count).round(1 if number % 5 == 1 else 15)
        return pd.DataFrame(columns)

    return column_types, rows(shape.reference), rows(shape.rows)


def make_profile(column_types: Mapping[str, ColumnType], reference: pd.DataFrame, rows: int) -> DriftProfile:
    """Return a profile for windows of ``rows`` rows, with thresholds of shorter windows, which cost the same."""
    sample = sample_evenly(reference, min(len(reference), CALIBRATION_ROWS))
    window_rows = len(sample) // 40
    profile = calibrate(
        sample,
        np.arange(len(sample)) // window_rows,
        column_types,
        window_rows=window_rows,
        false_alarm_rate=FALSE_ALARM_RATE,
    )
    single = [span for span in profile.spans if span.windows == 1]
    return profile.model_copy(update={"window_rows": rows, "spans": single})


def preset_runs(
    column_types: Mapping[str, ColumnType], reference: pd.DataFrame, window: pd.DataFrame, profile: DriftProfile
) -> Iterator[Callable[[], object]]:
    """Yield runs of the preset with defaults and with driftloop's configuration; the reference is prepared before."""
    numbers, categories = (
        [c for c, t in column_types.items() if t == column_type] for column_type in ("number", "category")
    )
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
    before = Dataset.from_pandas(reference, definition)
    thresholds = {
        null.column: profile.spans[0].threshold(null)
        for null in profile.spans[0].null_distributions
        if null.statistic in ("wasserstein", "jensenshannon")
    }
    configured = DataDriftPreset(
        columns=list(column_types),
        num_method="wasserstein",
        cat_method="jensenshannon",
        per_column_threshold=thresholds,
        drift_share=1 / len(column_types),
    )
    for preset in (DataDriftPreset(), configured):
        yield lambda preset=preset: Report([preset]).run(Dataset.from_pandas(window, definition), before)  # type: ignore[misc]


def evidently_distances(
    column_types: Mapping[str, ColumnType], reference: pd.DataFrame, window: pd.DataFrame
) -> dict[StatisticKey, float]:
    """Return each column's distance by evidently's own tests."""
    distances = {}
    for column, column_type in column_types.items():
        before, now = reference[column].dropna(), window[column].dropna()
        if column_type == "number":
            result = wasserstein_stat_test(before, now, EvidentlyColumnType.Numerical, None)
            distances[StatisticKey(column, "wasserstein")] = float(result.drift_score)
        else:
            result = jensenshannon_stat_test(before, now, EvidentlyColumnType.Categorical, None)
            distances[StatisticKey(column, "jensenshannon")] = float(result.drift_score)
    return distances


def median_milliseconds(run: Callable[[], object], max_runs: int) -> float:
    """Return the median of some runs; the first run only counts if it is too slow to be repeated."""
    seconds: list[float] = []
    while len(seconds) <= max_runs and sum(seconds) < MAX_RUN_SECONDS:
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:] or seconds) * 1e3


def measure_throughput(events: int) -> Throughput:
    """Measure the drift worker and a bare consumer on a topic with ``events`` events of one row each."""
    with stack_fixture.benchmark_stack(log) as stack:
        log("training on January to March")
        training_rows = usecase.rows_between(usecase.load_rows(), *flights_model.WINTER)
        estimator, _ = train(usecase, training_rows)
        reference = build_reference(usecase, estimator, training_rows, WindowSettings(rows=WINDOW_ROWS))
        save_reference(ObjectStore(stack.storage), flights_model.MODEL, "1", reference)
        times = sample_evenly(training_rows[[usecase.timestamp]], events)[usecase.timestamp]
        publish_events(stack, sample_evenly(reference.rows, events), times, events)
        log(f"{events:,} events published")
        bare = median(measure_bare_consumer(stack, events) for _ in range(3))
        log(f"consumer that only reads: {bare:,.0f} events/s")
        result = measure_worker(stack, events, bare)
        log(f"drift worker: {result.worker:,.0f} events/s")
        return result


def publish_events(stack: Stack, rows: pd.DataFrame, times: pd.Series, events: int) -> None:
    """Publish one event per row in transactions, as the predictor's relay does."""
    columns = frame_to_columns(rows)
    scores = columns.pop(PREDICTION_COLUMN)
    producer = KafkaProducer(**stack.kafka.client_config, acks="all", transactional_id="benchmark")
    producer.init_transactions()
    for first in range(0, events, TRANSACTION_EVENTS):
        producer.begin_transaction()
        for number in range(first, min(first + TRANSACTION_EVENTS, events)):
            event = Prediction(
                time=times[number].to_pydatetime(),
                model=flights_model.MODEL,
                version="1",
                features={name: [values[number]] for name, values in columns.items()},
                predictions=[scores[number]],
            )
            key, value, headers = encode(event, "predictor")
            producer.send(stack.topics.predictions, key=key, value=value, headers=headers)
        producer.commit_transaction()
    producer.close()


def measure_bare_consumer(stack: Stack, events: int) -> float:
    """Return the events per second of a consumer with kafka-python's defaults, from its first records on."""
    consumer = KafkaConsumer(
        stack.topics.predictions,
        **stack.kafka.client_config,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
    )
    try:
        count = _poll_count(consumer)
        while not count:
            count = _poll_count(consumer)
        before, started = count, time.perf_counter()
        while count < events:
            count += _poll_count(consumer)
        return (count - before) / (time.perf_counter() - started)
    finally:
        consumer.close()


def _poll_count(consumer: KafkaConsumer) -> int:
    return sum(map(len, consumer.poll(timeout_ms=500).values()))


def measure_worker(stack: Stack, events: int, bare: float) -> Throughput:
    """Run the drift worker as a process; its rate is measured between its first and its last verdict."""
    windows, part = events // WINDOW_ROWS, stack.components["drift_worker"]
    environment = {**part.environment, "DRIFTLOOP_WINDOW__ROWS": str(WINDOW_ROWS)}
    log = stack.folder / "logs" / "drift-worker.log"
    started = time.time()
    verdicts: list[tuple[float, DriftVerdict]] = []
    memory: list[tuple[int, float]] = []
    with (
        Server("drift worker", part.command, environment, f"{part.url}/healthz", log, stack_fixture.ROOT) as worker,
        closing(KafkaConsumer(**stack.kafka.client_config, isolation_level="read_committed")) as consumer,
    ):
        consumer.assign([TopicPartition(stack.topics.drift, 0)])
        consumer.seek_to_beginning()
        while len(verdicts) < windows:
            for records in consumer.poll(timeout_ms=int(POLL_INTERVAL_SECONDS * 1000)).values():
                events_read = [(record.timestamp / 1000, decode(record.value, record.headers)) for record in records]
                verdicts += [(at, event) for at, event in events_read if isinstance(event, DriftVerdict)]
            memory.append((len(verdicts), worker.memory_mb))
            if time.time() - started > TIMEOUT_SECONDS:
                raise ServerStartError(
                    f"the drift worker published verdicts on {len(verdicts)} of {windows} windows (log: {log})"
                )
    first, last = verdicts[0][0], verdicts[-1][0]
    settled = [mb for judged, mb in memory if judged >= windows / 10]
    return Throughput(
        events=events,
        bare=bare,
        worker=(windows - 1) * WINDOW_ROWS / (last - first),
        seconds=last - started,
        alarms=sum(verdict.verdict == "drift" for _, verdict in verdicts),
        inconclusive=sum(verdict.verdict == "inconclusive" for _, verdict in verdicts),
        multiwindow=sum(verdict.multiwindow_score is not None for _, verdict in verdicts),
        first_mb=settled[0],
        last_mb=settled[-1],
        max_mb=max(settled),
    )


if __name__ == "__main__":
    sys.exit(main())
