"""What a growing archive costs: the same work with few and with many slices behind it.

Archives of three sizes, as compaction leaves them, are made in a folder, where files can be as old as their rows: a
row each second, and its outcome an hour later. Each measurement runs in a process of its own, whose memory is measured,
too:

- slice: archiving a slice of outcomes and judging it, in a drift worker that has been running for a while;
- start: what a drift worker reads of the archive when it starts;
- explain: finding a prediction from the middle of the archive by its id, and its outcome;
- retrain: fetching and joining the last labelled rows;
- everything: fetching and joining all rows, in the archive of medium size.

Ratios are of the largest and the medium archive, whichever takes longer, to the smallest.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from drift_worker.verdicts.quality_tracker import QualityTracker
from drift_worker.windows.archive import write_slice
from driftloop.archive.layout import list_files, list_slices, merged_path, slice_path
from driftloop.archive.lookup import find_rows
from driftloop.evaluation.quality_settings import QualitySettings
from driftloop.events import Window
from driftloop.settings import StorageSettings, TopicsSettings
from driftloop.storage.labelled_archive import EVERYTHING, ArchiveQuery, open_archive
from driftloop.storage.object_store import ObjectStore
from tests.support import report
from tests.support.processes import exit_on_sigterm
from tests.support.report import log
from tests.support.synthetic_usecase import make_use_case

GOALS = {
    "slice_ratio": "≤ 1.2",
    "start_ratio": "≤ 1.2",
    "explain_ratio": "≤ 1.2",
    "explain_seconds": "≤ 2",
    "retrain_ratio": "≤ 1.2",
    "memory_ratio": "≤ 1.2",
}
SIZES, QUICK_SIZES = (100, 10_000, 100_000), (100, 2_000, 10_000)
ROWS_PER_SLICE = 100
UNMERGED_SLICES = 1_000
"""Of a partition: between those that are kept and those that are merged at the next pass."""
LOOKBACK = 50
"""Slices that quality looks at: fewer than the smallest archive has."""
LAST_ROWS = 5_000
REPEATS = 5
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
DELAY = timedelta(hours=1)
USE_CASE = make_use_case(("x1", "x2", "x3"), ("c",))


class Cost(NamedTuple):
    """What a measurement took."""

    seconds: float
    memory_mb: float
    """The most that the process had, of which the libraries are the larger part."""
    rows: int = 0


def main() -> int:
    """Run the benchmark, or one measurement for it; return the exit code."""
    parser = report.create_parser(f"{__doc__}\nRun `make setup` first.")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, url, slices = options.measure
        print(json.dumps(_measure_here(name, StorageSettings(url=url), int(slices))))
        return 0
    try:
        with exit_on_sigterm(), TemporaryDirectory(prefix="driftloop-archive-") as folder:
            figures, details = measure(Path(folder), QUICK_SIZES if options.quick else SIZES)
    except KeyboardInterrupt:
        return 130
    report.write_results("archive", figures, GOALS, details, options.json)
    return 0


def measure(folder: Path, sizes: tuple[int, ...]) -> tuple[dict[str, float], dict[str, object]]:
    """Make the archives in an empty folder, and measure; return figures and details."""
    storage = StorageSettings(url=folder.as_uri())
    store = ObjectStore(storage)
    costs: dict[str, dict[int, Cost]] = {name: {} for name in MEASUREMENTS}
    seconds_to_list: dict[int, float] = {}
    for slices in sizes:
        began = time.monotonic()
        make_archive(store, folder, topics_of(slices), slices)
        log(f"{slices:,} slices, {slices * ROWS_PER_SLICE:,} rows: made in {time.monotonic() - began:.0f} s")
        seconds_to_list[slices] = _seconds_to_list(store, slices)
        for name in MEASUREMENTS:
            if name != "everything" or slices == sizes[1]:
                costs[name][slices] = _measure_apart(name, storage, slices)
                log(f"{name}: {costs[name][slices].seconds:.3f} s, {costs[name][slices].memory_mb:,.0f} MB")
    table = report.create_table("archive: seconds (MB)", "", *(f"{slices:,} slices" for slices in sizes))
    for name, by_size in costs.items():
        cells = (by_size.get(slices) for slices in sizes)
        table.add_row(name, *(f"{cost.seconds:.3f} ({cost.memory_mb:,.0f})" if cost else "" for cost in cells))
    report.console.print(table)
    return figures_of(sizes, costs), {
        "sizes": sizes,
        "rows_per_slice": ROWS_PER_SLICE,
        "seconds_to_list": seconds_to_list,
        "costs": {name: {str(size): cost._asdict() for size, cost in each.items()} for name, each in costs.items()},
    }


def figures_of(sizes: tuple[int, ...], costs: Mapping[str, Mapping[int, Cost]]) -> dict[str, float]:
    """Return the figures of the benchmark by name."""
    smallest, *larger = sizes
    flat = [name for name in costs if name != "everything"]
    ratios = {
        f"{name}_ratio": max(costs[name][size].seconds for size in larger) / costs[name][smallest].seconds
        for name in flat
    }
    memory = {
        name: max(costs[name][size].memory_mb for size in larger) / costs[name][smallest].memory_mb for name in flat
    }
    everything = costs["everything"][sizes[1]]
    return ratios | {
        "memory_ratio": max(memory.values()),
        "slice_seconds": costs["slice"][sizes[-1]].seconds,
        "start_seconds": costs["start"][sizes[-1]].seconds,
        "explain_seconds": costs["explain"][sizes[-1]].seconds,
        "retrain_seconds": costs["retrain"][sizes[-1]].seconds,
        "rows_per_second_read": everything.rows / everything.seconds,
    }


def topics_of(slices: int) -> TopicsSettings:
    """Return the topics whose archive has so many slices."""
    return TopicsSettings(predictions=f"predictions-{slices}", outcomes=f"outcomes-{slices}")


def make_archive(store: ObjectStore, folder: Path, topics: TopicsSettings, slices: int) -> None:
    """Make an archive with so many slices of each topic: merged ones by day, and the latest ones as they are."""
    merged = max(slices - UNMERGED_SLICES, 0)
    for topic, make in ((topics.predictions, predictions), (topics.outcomes, outcomes)):
        for day, numbers in groupby(range(merged), lambda number: _time_of(number * ROWS_PER_SLICE).date()):
            first, *_, last = [*numbers] * 2
            store.write_parquet(merged_path(_window(topic, first, last), day), make(first, last + 1))
        for number in range(merged, slices):
            window = _window(topic, number)
            write_slice(store, window, make(number, number + 1), _day_of(number))
            written_at = (_time_of((number + 1) * ROWS_PER_SLICE) + DELAY).timestamp()
            os.utime(folder / slice_path(window), (written_at, written_at))


def predictions(begin: int, end: int) -> pa.Table:
    """Return the rows of slices of predictions, in the order of time."""
    numbers = np.arange(begin * ROWS_PER_SLICE, end * ROWS_PER_SLICE)
    random = np.random.default_rng(begin)
    size = len(numbers)
    return pa.table(
        {
            "_id": _ids(numbers),
            "_row": np.zeros(size, np.int64),
            "_time": _times(numbers, timedelta()),
            "_model": pa.array(["m"] * size),
            "_version": pa.array(["1"] * size),
            "_run_id": pa.nulls(size, pa.string()),
            "_prediction": random.random(size),
            "_classes": pa.array(["[0, 1]"] * size),
            "_label": pa.nulls(size, pa.string()),
            "_key": pa.nulls(size, pa.string()),
            "_context": pa.nulls(size, pa.string()),
            "_offset": numbers,
            "c": random.choice(["a", "b", "c"], size),
            **{name: random.normal(size=size) for name in ("x1", "x2", "x3")},
        }
    )


def outcomes(begin: int, end: int) -> pa.Table:
    """Return the rows of slices of outcomes, each an hour after its prediction."""
    numbers = np.arange(begin * ROWS_PER_SLICE, end * ROWS_PER_SLICE)
    size = len(numbers)
    return pa.table(
        {
            "_id": _ids(numbers),
            "_row": np.zeros(size, np.int64),
            "_time": _times(numbers, DELAY),
            "_model": pa.nulls(size, pa.string()),
            "_key": pa.nulls(size, pa.string()),
            "outcome": np.random.default_rng(begin).integers(0, 2, size).astype(float),
            "outcome_label": pa.nulls(size, pa.string()),
            "_offset": numbers,
        }
    )


def _window(topic: str, first: int, last: int | None = None) -> Window:
    end = (first if last is None else last) + 1
    return Window(topic=topic, partition=0, first_offset=first * ROWS_PER_SLICE, last_offset=end * ROWS_PER_SLICE - 1)


def _time_of(row: int) -> datetime:
    return BEGIN + timedelta(seconds=row)


def _day_of(number: int) -> date:
    return _time_of(number * ROWS_PER_SLICE).date()


def _id_of(row: int) -> str:
    """Return an id that sorts by time, as those of real events do."""
    return f"{row:036}"


def _ids(numbers: np.ndarray) -> pa.Array:
    return pa.array([_id_of(number) for number in numbers.tolist()])


def _times(numbers: np.ndarray, delay: timedelta) -> pa.Array:
    begin = np.datetime64((BEGIN + delay).replace(tzinfo=None), "ns")
    return pa.array(begin + numbers.astype("timedelta64[s]"), pa.timestamp("ns", "UTC"))


def _seconds_to_list(store: ObjectStore, slices: int) -> float:
    def list_predictions() -> None:
        list_files(store, topics_of(slices).predictions)

    return median(_timed(list_predictions) for _ in range(REPEATS))


def _measure_apart(name: str, storage: StorageSettings, slices: int) -> Cost:
    """Measure in another process."""
    command = [sys.executable, "-m", "benchmarks.archive", "--measure", name, storage.url, str(slices)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def _measure_here(name: str, storage: StorageSettings, slices: int) -> Cost:
    store, topics = ObjectStore(storage), topics_of(slices)
    seconds, rows = MEASUREMENTS[name](store, topics, slices)
    return Cost(seconds, _peak_memory_mb(), rows)


def _peak_memory_mb() -> float:
    """Return the most memory that this process has had; that of ``getrusage`` has its parent's, too."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**10


def _measure_slice(store: ObjectStore, topics: TopicsSettings, slices: int) -> tuple[float, int]:
    tracker = QualityTracker(store, topics, QualitySettings(prediction_lookback_slices=LOOKBACK))
    tracker.evaluate_slice(_window(topics.outcomes, slices - 1))

    def archive_and_judge(number: int) -> None:
        for topic, make in ((topics.predictions, predictions), (topics.outcomes, outcomes)):
            write_slice(store, _window(topic, number), make(number, number + 1), _day_of(number))
        tracker.on_predictions_archived(_window(topics.predictions, number))
        (verdict,) = tracker.evaluate_slice(_window(topics.outcomes, number))
        assert verdict.unmatched == 0

    return median(_timed(partial(archive_and_judge, slices + each)) for each in range(2 * REPEATS)), 0


def _measure_start(store: ObjectStore, topics: TopicsSettings, slices: int) -> tuple[float, int]:
    def start() -> None:
        for topic in (topics.predictions, topics.outcomes):
            assert list_slices(store, topic, 0)
        tracker = QualityTracker(store, topics, QualitySettings(prediction_lookback_slices=LOOKBACK))
        assert tracker.evaluate_slice(_window(topics.outcomes, slices - 1))

    return median(_timed(start) for _ in range(REPEATS)), 0


def _measure_explain(store: ObjectStore, topics: TopicsSettings, slices: int) -> tuple[float, int]:
    def explain(row: int) -> None:
        for topic in (topics.predictions, topics.outcomes):
            found = find_rows(store, topic, _id_of(row), _time_of(row))
            assert found is not None
            assert len(found.rows) == 1

    middle = slices * ROWS_PER_SLICE // 2
    return median(_timed(partial(explain, middle + each)) for each in range(REPEATS)), 0


def _measure_retrain(store: ObjectStore, topics: TopicsSettings, _: int) -> tuple[float, int]:
    return median(_timed(lambda: _export(store, topics, ArchiveQuery(last_rows=LAST_ROWS))) for _ in range(REPEATS)), 0


def _measure_everything(store: ObjectStore, topics: TopicsSettings, slices: int) -> tuple[float, int]:
    return _timed(lambda: _export(store, topics, EVERYTHING)), slices * ROWS_PER_SLICE


def _export(store: ObjectStore, topics: TopicsSettings, query: ArchiveQuery) -> None:
    with (
        TemporaryDirectory(prefix="driftloop-benchmark-") as folder,
        open_archive(store, topics, USE_CASE, query=query) as archive,
    ):
        file = Path(folder) / "rows.parquet"
        archive.write(file, query)
        assert len(pd.read_parquet(file, columns=["y"])) >= LAST_ROWS


def _timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


MEASUREMENTS: Mapping[str, Callable[[ObjectStore, TopicsSettings, int], tuple[float, int]]] = {
    "slice": _measure_slice,
    "start": _measure_start,
    "explain": _measure_explain,
    "retrain": _measure_retrain,
    "everything": _measure_everything,
}


if __name__ == "__main__":
    sys.exit(main())
