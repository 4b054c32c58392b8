"""The lines of docs/archive.md, taken from there and run on an archive in a folder."""

import re
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from driftloop import archive
from tests.support.made_archive import MadeArchive, at, outcome, prediction

PAGE = Path(__file__).parents[2] / "docs" / "archive.md"
NAMES = {"duckdb": duckdb, "pd": pd, "pl": pl, "Path": Path, "archive": archive}
DAYS: list[dict[str, Any]] = [
    {"grows": 1, "mixed": 1, "gone": "a", "null": None, "distance": 600},
    {"grows": 2.5, "mixed": "two", "gone": None, "null": 1.5, "distance": 700},
    {"grows": None, "mixed": None, "new": True, "null": 2.5, "distance": 400},
]
"""The features of each day's prediction: columns appear, disappear, change their type, or have no value."""


def block(after: str) -> str:
    """Return the first block of Python after a text of the page."""
    page = PAGE.read_text()
    found = re.search(r"```python\n(.*?)```", page[page.index(f"\n{after}") :], re.DOTALL)
    assert found
    return found[1].strip()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeArchive:
    """An archive with a merged file a day and a slice, in the current folder."""
    made = MadeArchive(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRIFTLOOP_STORAGE__URL", made.url)
    for day, features in enumerate(DAYS):
        path = made.predictions(prediction(day, _model="flights", _version="7", **features), day=at(day).date())
        _write_as_a_merge(tmp_path / path)
    made.predictions(prediction(9, _model="flights", _version="8", **DAYS[1]))
    made.outcomes(outcome(0, 1, known=2), outcome(9, 0, known=10))
    return made


def _write_as_a_merge(file: Path) -> None:
    """Write a file again with DuckDB, which has types of its own for columns without a value."""
    merged = file.with_suffix(".merged")
    duckdb.sql(f"COPY (FROM read_parquet(['{file}'], union_by_name = true)) TO '{merged}' (FORMAT parquet)")
    merged.replace(file)


def values(rows: pd.DataFrame) -> dict[str, list[Any]]:
    """Return the values of the features that change, by day, with ``None`` where there is none."""
    ordered = rows.sort_values("_offset")
    return {
        name: [None if pd.isna(value) else value for value in ordered[name]]
        for name in ("grows", "mixed", "gone", "null", "new")
    }


EXPECTED: dict[str, list[Any]] = {
    "grows": [1.0, 2.5, None],
    "mixed": ["1", "two", None],
    "gone": ["a", None, None],
    "null": [None, 1.5, 2.5],
    "new": [None, None, True],
}


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(
    ("tool", "mixed"), [("DuckDB:", "1"), ("pandas:", 1), ("Polars:", "1")], ids=["DuckDB", "pandas", "Polars"]
)
def test_line_reads_files_whose_columns_differ(tool: str, mixed: str | int) -> None:
    found = eval(block(tool), dict(NAMES))  # noqa: S307  # our own page
    match found:
        case pd.DataFrame():
            rows = found
        case pl.DataFrame():
            rows = found.to_arrow().to_pandas()
        case _:
            rows = found.df()
    assert values(rows) == {**EXPECTED, "mixed": [mixed, "two", None]}
    assert [str(day)[:10] for day in rows.sort_values("_offset")["day"]] == ["2026-01-01", "2026-01-02", "2026-01-03"]


def test_line_with_slices_has_each_row_once(made: MadeArchive) -> None:
    line = block("**Slices that are not merged yet**")
    rows = eval(line, dict(NAMES)).to_arrow_table()  # noqa: S307
    assert sorted(rows["_id"].to_pylist()) == ["0", "1", "2", "9"]
    made.predictions(prediction(0))  # a slice whose rows are merged, and that is not deleted yet
    rows = eval(line, dict(NAMES)).to_arrow_table()  # noqa: S307
    assert sorted(rows["_id"].to_pylist()) == ["0", "1", "2", "9"]


@pytest.mark.usefixtures("made")
def test_example_of_read_runs() -> None:
    names: dict[str, Any] = {}
    exec(block("## Reading it"), names)  # noqa: S102
    rows: pa.Table = names["rows"]
    assert rows.to_pylist() == [
        {"_time": at(0), "_version": "7", "_prediction": 0.5, "distance": 600, "outcome": 1.0},
        {"_time": at(9), "_version": "8", "_prediction": 0.5, "distance": 700, "outcome": 0.0},
    ]
