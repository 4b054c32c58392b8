"""What drift costs: milliseconds a window, beside evidently's preset; and events a second of the whole worker.

The preset with its defaults, the preset with our methods and thresholds named, and driftloop's statistics and verdict
on a prepared reference, by rows of the reference, columns and rows of the window. All statistics are compared with
evidently's own tests. Then the drift worker as it runs (consume, archive, judge, commit) over a full topic, beside a
consumer that only reads it.
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

from benchmarks.streams import evenly, flights
from driftloop.drift.calibration import DriftProfile, calibrate
from driftloop.drift.distances import ColumnType
from driftloop.drift.scoring import score_window
from driftloop.drift.statistics import StatisticKey, prepare_reference, window_statistics
from driftloop.events import DriftVerdict, Prediction, frame_to_columns
from driftloop.kafka.codec import decode, encode
from driftloop.settings import WindowSettings
from driftloop.storage.bucket import Bucket
from driftloop.storage.reference_store import PREDICTION_COLUMN
from driftloop.storage.reference_store import save_reference as write_reference
from stack.running import CannotStart, Stack
from tests.support import flights_model, report, stack_fixture
from tests.support.processes import DidNotStart, Server, ended_in_order
from tests.support.report import tell
from trainer.retrain.training import build_reference, train
from usecases.flights import usecase

GOALS = {"speedup_5k": "≥ 100", "speedup_78k": "≥ 100", "max_difference": "≤ 1e-12", "worker_ratio": "≥ 0.5"}
COLUMNS = 13
ABSENT = ("wind_gust", "day_of_week")  # the flights' other two: mostly missing, and a calendar
CALIBRATED_ROWS = 40_000  # thresholds cost the same wherever they come from
RATE = 0.01
LONGEST_SECONDS, MOST_RUNS = 3.0, 7  # a preset's runs end after so long, or so many
OUR_RUNS = 30
PRESET_MOST_CELLS = 8_000_000  # of a reference; the preset takes minutes with more
EVENTS, QUICK_EVENTS = 100_000, 20_000
WINDOW_ROWS = 1_000
MOST_AT_ONCE = 2_000  # events of a transaction, as the predictor's relay has at most
LIMIT_SECONDS = 300
LOOK_SECONDS = 0.5  # between two looks at the worker's memory


class Shape(NamedTuple):
    """What a window's cost depends on."""

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
    """Medians of milliseconds a window."""

    preset: float | None
    """evidently's DataDriftPreset, told nothing; ``None`` where it was not tried."""
    named: float | None
    """With our methods and thresholds."""
    tests: float
    """evidently's tests of the same columns, called one by one."""
    ours: float
    difference: float
    """The largest between our statistics and evidently's tests."""


class Throughput(NamedTuple):
    """Events a second over a topic that was full before, and the worker's memory."""

    events: int
    bare: float
    """A consumer that only reads and counts."""
    worker: float
    seconds: float
    """From the start of the worker's process to its last verdict."""
    alarms: int
    unjudged: int
    rolling: int
    """Verdicts that the windows before were a part of."""
    first_mb: float
    """When a tenth of the windows had been judged."""
    last_mb: float
    most_mb: float


def main() -> int:
    """Runs everything; returns the exit code."""
    options = report.options(f"{__doc__}\nNeeds what `make setup` installs.").parse_args()
    try:
        with ended_in_order():
            costs = {shape: cost(shape) for shape in (QUICK_SHAPES if options.quick else SHAPES)}
            through = throughput(QUICK_EVENTS if options.quick else EVENTS)
    except (CannotStart, DidNotStart) as error:
        report.warn(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    show(costs, through)
    speedup = {shape: one.preset / one.ours for shape, one in costs.items() if one.preset is not None}
    figures = {
        "speedup_5k": speedup[Shape(5_000, COLUMNS, 1_000)],
        "speedup_78k": speedup[Shape(78_000, COLUMNS, 1_000)],
        "max_difference": max(one.difference for one in costs.values()),
        "worker_ratio": through.worker / through.bare,
    }
    details = {
        "costs": [{**shape._asdict(), **one._asdict()} for shape, one in costs.items()],
        "throughput": through._asdict(),
    }
    report.finish("drift_cost", figures, GOALS, details, options.json)
    return 0


def show(costs: Mapping[Shape, Cost], through: Throughput) -> None:
    """The two tables."""
    shown = report.table(
        "drift_cost: milliseconds a window",
        *("reference", "columns", "rows", "preset", "preset, named", "its tests alone", "ours", "preset ÷ ours"),
        "difference",
    )
    for shape, one in costs.items():
        shown.add_row(
            *(f"{value:,}" for value in shape),
            *("–" if value is None else f"{value:,.0f}" for value in (one.preset, one.named)),
            f"{one.tests:,.1f}",
            f"{one.ours:.2f}",
            "–" if one.preset is None else f"{one.preset / one.ours:,.0f}",
            f"{one.difference:.1e}",
        )
    report.console.print(shown)
    shown = report.table(f"drift_cost: {through.events:,} events of one row, windows of {WINDOW_ROWS:,}", "", "value")
    shown.add_row("a consumer that only reads", f"{through.bare:,.0f} events/s")
    shown.add_row("the drift worker", f"{through.worker:,.0f} events/s")
    shown.add_row("from the worker's start to its last verdict", f"{through.seconds:.1f} s")
    shown.add_row(
        "verdicts: alarms, unjudged, with those before", f"{through.alarms}, {through.unjudged}, {through.rolling}"
    )
    shown.add_row("its memory after a tenth of the windows", f"{through.first_mb:,.0f} MB")
    shown.add_row("after all of them (most)", f"{through.last_mb:,.0f} MB ({through.most_mb:,.0f})")
    report.console.print(shown)


def cost(shape: Shape) -> Cost:
    """One shape, measured."""
    kinds, reference, window = frames(shape)
    profile = a_profile(kinds, reference, shape.rows)
    ready = prepare_reference(kinds, reference)
    ours = milliseconds(lambda: score_window(profile, {1: window_statistics(ready, window)}), OUR_RUNS)
    values = window_statistics(ready, window)
    began = time.perf_counter()
    theirs = evidently_tests(kinds, reference, window)
    tests = (time.perf_counter() - began) * 1e3
    difference = max(abs(values[check] - value) / max(1, abs(value)) for check, value in theirs.items())
    preset = named = None
    if shape.reference * shape.columns <= PRESET_MOST_CELLS:
        preset, named = (milliseconds(run, MOST_RUNS) for run in presets(kinds, reference, window, profile))
    told = "not tried" if preset is None else f"{preset:,.0f} ms"
    tell(f"{shape.reference:>7,} × {shape.columns:>3}, {shape.rows:>6,} rows: preset {told}, ours {ours:.2f} ms")
    return Cost(preset, named, tests, ours, difference)


def frames(shape: Shape) -> tuple[dict[str, ColumnType], pd.DataFrame, pd.DataFrame]:
    """The columns, a reference and a window of a shape: flights, or as many made columns as they do not have."""
    if shape.columns != COLUMNS:
        return made_frames(shape)
    stream = flights()
    kinds = {column: kind for column, kind in stream.kinds.items() if column not in ABSENT}
    rows = stream.rows[list(kinds)]
    learned = rows if shape.reference > 100_000 else rows.iloc[stream.positions("2013-01-01", "2013-04-01")]
    april = int(stream.positions("2013-04-01", "2013-05-01")[0])
    return kinds, evenly(learned, shape.reference), rows.iloc[april : april + shape.rows]


def made_frames(shape: Shape) -> tuple[dict[str, ColumnType], pd.DataFrame, pd.DataFrame]:
    """Every fifth column is a category of 20 levels; numbers are of many values, and of few."""
    random = np.random.default_rng(shape.columns)
    kinds: dict[str, ColumnType] = {f"c{n}": "category" if n % 5 == 0 else "number" for n in range(shape.columns)}

    def rows(count: int) -> pd.DataFrame:
        columns: dict[str, Any] = {}
        for n, (column, kind) in enumerate(kinds.items()):
            if kind == "category":
                columns[column] = np.array([f"level {level}" for level in range(20)], dtype=object)[
                    random.binomial(19, 0.3, count)
                ]
            else:
                columns[column] = random.normal(size=count).round(1 if n % 5 == 1 else 15)
        return pd.DataFrame(columns)

    return kinds, rows(shape.reference), rows(shape.rows)


def a_profile(kinds: Mapping[str, ColumnType], reference: pd.DataFrame, rows: int) -> DriftProfile:
    """A profile for windows of so many rows; its thresholds are those of shorter windows, which cost the same."""
    some = evenly(reference, min(len(reference), CALIBRATED_ROWS))
    shorter = len(some) // 40
    learned = calibrate(some, np.arange(len(some)) // shorter, kinds, window_rows=shorter, false_alarm_rate=RATE)
    single = [span for span in learned.spans if span.windows == 1]
    return learned.model_copy(update={"rows": rows, "spans": single})


def presets(
    kinds: Mapping[str, ColumnType], reference: pd.DataFrame, window: pd.DataFrame, profile: DriftProfile
) -> Iterator[Callable[[], object]]:
    """The preset as it is, and told to do what we do; it gets its reference as a dataset that was made before."""
    numbers, categories = ([c for c, k in kinds.items() if k == kind] for kind in ("number", "category"))
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
    before = Dataset.from_pandas(reference, definition)
    thresholds = {
        normal.column: normal.location + profile.spans[0].score_threshold * normal.scale
        for normal in profile.spans[0].null_distributions
        if normal.statistic in ("wasserstein", "jensenshannon")
    }
    named = DataDriftPreset(
        columns=list(kinds),
        num_method="wasserstein",
        cat_method="jensenshannon",
        per_column_threshold=thresholds,
        drift_share=1 / len(kinds),
    )
    for preset in (DataDriftPreset(), named):
        yield lambda preset=preset: Report([preset]).run(Dataset.from_pandas(window, definition), before)  # type: ignore[misc]


def evidently_tests(
    kinds: Mapping[str, ColumnType], reference: pd.DataFrame, window: pd.DataFrame
) -> dict[StatisticKey, float]:
    """Each column's distance by a test of evidently's own."""
    found = {}
    for column, kind in kinds.items():
        before, now = reference[column].dropna(), window[column].dropna()
        if kind == "number":
            result = wasserstein_stat_test(before, now, EvidentlyColumnType.Numerical, None)
            found[StatisticKey(column, "wasserstein")] = float(result.drift_score)
        else:
            result = jensenshannon_stat_test(before, now, EvidentlyColumnType.Categorical, None)
            found[StatisticKey(column, "jensenshannon")] = float(result.drift_score)
    return found


def milliseconds(run: Callable[[], object], most: int) -> float:
    """The median of some runs, after one that is not counted unless it takes too long to do it again."""
    taken: list[float] = []
    while len(taken) <= most and sum(taken) < LONGEST_SECONDS:
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return median(taken[1:] or taken) * 1e3


def throughput(events: int) -> Throughput:
    """The worker over a topic of so many events of one row, and a bare consumer over the same."""
    with stack_fixture.running(tell) as stack:
        tell("training on January to March")
        learn = usecase.rows_between(usecase.load_rows(), *flights_model.WINTER)
        estimator, _ = train(usecase, learn)
        reference = build_reference(usecase, estimator, learn, WindowSettings(rows=WINDOW_ROWS))
        write_reference(Bucket(stack.storage), flights_model.MODEL, "1", reference)
        times = learn[usecase.timestamp].reset_index(drop=True)
        fill(stack, evenly(reference.rows, events), evenly(times.to_frame("time"), events)["time"], events)
        tell(f"{events:,} events are on the topic")
        bare = median(bare_rate(stack, events) for _ in range(3))
        tell(f"a consumer that only reads: {bare:,.0f} events/s")
        found = worker_rate(stack, events, bare)
        tell(f"the drift worker: {found.worker:,.0f} events/s")
        return found


def fill(stack: Stack, rows: pd.DataFrame, times: pd.Series, events: int) -> None:
    """One event a row, written as the predictor's relay writes them, in its transactions."""
    columns = frame_to_columns(rows)
    scores = columns.pop(PREDICTION_COLUMN)
    producer = KafkaProducer(**stack.kafka.client_config, acks="all", transactional_id="benchmark")
    producer.init_transactions()
    for first in range(0, events, MOST_AT_ONCE):
        producer.begin_transaction()
        for n in range(first, min(first + MOST_AT_ONCE, events)):
            event = Prediction(
                time=times[n].to_pydatetime(),
                model=flights_model.MODEL,
                version="1",
                features={name: [cells[n]] for name, cells in columns.items()},
                predictions=[scores[n]],
            )
            key, value, headers = encode(event, "predictor")
            producer.send(stack.topics.predictions, key=key, value=value, headers=headers)
        producer.commit_transaction()
    producer.close()


def bare_rate(stack: Stack, events: int) -> float:
    """Events a second of a consumer with kafka-python's own settings, from its first records on."""
    consumer = KafkaConsumer(
        stack.topics.predictions,
        **stack.kafka.client_config,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
    )
    try:
        count = _polled(consumer)
        while not count:
            count = _polled(consumer)
        before, began = count, time.perf_counter()
        while count < events:
            count += _polled(consumer)
        return (count - before) / (time.perf_counter() - began)
    finally:
        consumer.close()


def _polled(consumer: KafkaConsumer) -> int:
    return sum(map(len, consumer.poll(timeout_ms=500).values()))


def worker_rate(stack: Stack, events: int, bare: float) -> Throughput:
    """The drift worker as a process: its rate is that between its first verdict and its last."""
    windows, part = events // WINDOW_ROWS, stack.parts["drift_worker"]
    environment = {**part.environment, "DRIFTLOOP_WINDOW__ROWS": str(WINDOW_ROWS)}
    log = stack.folder / "logs" / "drift-worker.log"
    began = time.time()
    verdicts: list[tuple[float, DriftVerdict]] = []
    memory: list[tuple[int, float]] = []
    with (
        Server("drift worker", part.command, environment, f"{part.url}/healthz", log, stack_fixture.ROOT) as worker,
        closing(KafkaConsumer(**stack.kafka.client_config, isolation_level="read_committed")) as consumer,
    ):
        consumer.assign([TopicPartition(stack.topics.drift, 0)])
        consumer.seek_to_beginning()
        while len(verdicts) < windows:
            for records in consumer.poll(timeout_ms=int(LOOK_SECONDS * 1000)).values():
                said = [(record.timestamp / 1000, decode(record.value, record.headers)) for record in records]
                verdicts += [(at, event) for at, event in said if isinstance(event, DriftVerdict)]
            memory.append((len(verdicts), worker.memory_mb))
            if time.time() - began > LIMIT_SECONDS:
                raise DidNotStart(f"the drift worker judged {len(verdicts)} of {windows} windows (log: {log})")
    first, last = verdicts[0][0], verdicts[-1][0]
    settled = [mb for judged, mb in memory if judged >= windows / 10]
    return Throughput(
        events=events,
        bare=bare,
        worker=(windows - 1) * WINDOW_ROWS / (last - first),
        seconds=last - began,
        alarms=sum(verdict.verdict == "drift" for _, verdict in verdicts),
        unjudged=sum(verdict.verdict == "inconclusive" for _, verdict in verdicts),
        rolling=sum(verdict.multiwindow_score is not None for _, verdict in verdicts),
        first_mb=settled[0],
        last_mb=settled[-1],
        most_mb=max(settled),
    )


if __name__ == "__main__":
    sys.exit(main())
