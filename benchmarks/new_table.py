"""Time ``driftloop new`` on a made-up CSV file: ``python -m benchmarks.new_table``."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

ROWS = 1_000_000
LEVELS = ("red", "green", "blue", "yellow")


def new_seconds(rows: int = ROWS) -> float:
    """Return the seconds that the command takes for a CSV file of 20 columns, from its start to its end."""
    with tempfile.TemporaryDirectory(prefix="driftloop-new-") as name:
        folder = Path(name)
        pyarrow.csv.write_csv(make_table(rows), folder / "table.csv")
        started = time.perf_counter()
        subprocess.run(
            [
                *(sys.executable, "-c", "from driftloop_cli.main import app; app()", "new", "made"),
                *("--from", "table.csv", "--target", "y", "--time", "at", "--id", "order", "--json"),
            ],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return time.perf_counter() - started


def make_table(rows: int) -> pa.Table:
    """Return a table of 20 columns: an id, times, 8 fractions, 4 integers, 4 categories, a boolean and two classes."""
    random = np.random.default_rng(0)
    times = np.datetime64("2025-01-01") + (np.arange(rows) * 31).astype("timedelta64[s]")
    columns: dict[str, object] = {"order": np.arange(rows), "at": times.astype(str)}
    columns |= {f"fraction{i}": random.normal(size=rows).round(4) for i in range(8)}
    columns |= {f"integer{i}": random.integers(0, 1_000, rows) for i in range(4)}
    columns |= {f"category{i}": random.choice(LEVELS, rows) for i in range(4)}
    return pa.table({**columns, "flag": random.random(rows) < 0.5, "y": random.choice(("no", "yes"), rows)})


if __name__ == "__main__":
    print(f"driftloop new, {ROWS:,} rows of 20 columns: {new_seconds():.1f} s")
