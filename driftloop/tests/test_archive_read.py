"""`driftloop.archive.read` and `scan`, on archives in a folder."""

import gc
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from driftloop import archive
from driftloop.archive.layout import list_slices, merged_path
from driftloop.archive.merging import MergeLimits, merge_slices
from driftloop.errors import ArchiveUnreadable, InvalidInput
from driftloop.events import Window
from driftloop.settings import InvalidSettings
from driftloop.storage import archive_parts
from driftloop.storage.duckdb_sql import Connection
from driftloop.storage.object_store import ObjectStore
from tests.support.archived_rows import damage
from tests.support.folder_store import folder_store
from tests.support.made_archive import BEGIN, MadeArchive, at, outcome, prediction

OWN_COLUMNS = ["_id", "_row", "_time", "_model", "_version", "_run_id", "_prediction", "_classes", "_label", "_key"]
OWN_COLUMNS += ["_context", "_offset"]
OUTCOME_COLUMNS = ["outcome", "outcome_label", "outcome_time"]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeArchive:
    """An empty archive, which the environment names."""
    made = MadeArchive(tmp_path / "store")
    monkeypatch.setenv("DRIFTLOOP_STORAGE__URL", made.url)
    return made


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Paths and numbers of bytes that are read from the store."""
    reads: list[tuple[str, int]] = []
    read, read_ranges = ObjectStore.read, ObjectStore.read_ranges

    def record(self: ObjectStore, path: str) -> bytes:
        content = read(self, path)
        reads.append((path, len(content)))
        return content

    def record_ranges(self: ObjectStore, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        contents = read_ranges(self, path, ranges)
        reads.append((path, sum(map(len, contents))))
        return contents

    monkeypatch.setattr(ObjectStore, "read", record)
    monkeypatch.setattr(ObjectStore, "read_ranges", record_ranges)
    return reads


def test_read_joins_predictions_with_their_outcomes(made: MadeArchive) -> None:
    made.predictions(prediction(2, x=2.5, c="u", _label="late"), prediction(1, x=1.5, c=None), prediction(3, x=3.5))
    made.outcomes(outcome(1, 1, known=4), outcome(2, "late", known=5))
    table = archive.read("m")
    assert table.column_names == [*OWN_COLUMNS, "c", "x", *OUTCOME_COLUMNS]
    rows = table.to_pylist()
    assert [row["_id"] for row in rows] == ["1", "2", "3"]
    assert [row["outcome"] for row in rows] == [1.0, None, None]
    assert [row["outcome_label"] for row in rows] == [None, "late", None]
    assert [row["outcome_time"] for row in rows] == [at(4), at(5), None]
    assert [row["_label"] for row in rows] == [None, "late", None]
    assert [row["x"] for row in rows] == [1.5, 2.5, 3.5]


def test_read_selects_models_times_versions_columns_and_labelled_rows(made: MadeArchive) -> None:
    made.predictions(*(prediction(day, x=day, _version=f"{day % 2}") for day in range(6)), prediction(9, _model="n"))
    made.outcomes(*(outcome(day, 1, known=9) for day in range(4)))

    def ids(**options: Any) -> list[str]:
        found: list[str] = archive.read(columns=["_id"], **options)["_id"].to_pylist()
        return found

    assert ids() == ["0", "1", "2", "3", "4", "5", "9"]
    assert ids(model="m", since=at(2)) == ["2", "3", "4", "5"]
    assert ids(since=at(2), until=at(4)) == ["2", "3"]
    assert ids(versions=["1"]) == ["1", "3", "5", "9"]
    assert ids(labelled_only=True) == ["0", "1", "2", "3"]
    assert ids(where="x > 3 -- a comment") == ["4", "5"]
    assert ids(where="outcome = 1 AND x BETWEEN 2 AND 4") == ["2", "3"]
    assert archive.read(columns=["x", "outcome", "_id"]).column_names == ["x", "outcome", "_id"]


def test_read_has_the_outcome_that_counts(made: MadeArchive) -> None:
    """The same rules as a training set's: the latest counts, keys name the row before them, the future does not."""
    future = (datetime.now(UTC) + timedelta(days=36_500) - BEGIN) / timedelta(days=1)
    made.predictions(prediction(1), prediction(2), prediction(3, _key="k"), prediction(4, _key="k"))
    made.predictions(prediction(1), prediction(5, _model="n", _key="k"))
    by_key = {"_id": None, "_row": None, "_key": "k"}
    made.outcomes(outcome(1, 0, known=7), outcome(1, 1, known=6), outcome(2, 1, known=future), outcome(2, 0, known=3))
    made.outcomes(outcome(0, 1, known=3.5, _model="m", **by_key), outcome(0, 0, known=9, _model="m", **by_key))
    made.outcomes(outcome(0, 7, known=9, _model="n", **by_key))
    for model, expected in ((None, [0.0, 0.0, 1.0, 0.0, 7.0]), ("m", [0.0, 0.0, 1.0, 0.0]), ("n", [7.0])):
        assert archive.read(model, columns=["outcome"])["outcome"].to_pylist() == expected


def test_a_key_belongs_to_a_row_after_those_that_are_read(made: MadeArchive) -> None:
    """The outcome is of day 3's row, and must not become that of day 1 because day 3 is not read."""
    made.predictions(prediction(1, _key="k"), day=at(1).date())
    made.predictions(prediction(3, _key="k"), day=at(3).date())
    made.outcomes(outcome(0, 1, known=4, _id=None, _row=None, _model="m", _key="k"), day=at(4).date())
    assert archive.read(until=at(2), columns=["_id", "outcome"]).to_pylist() == [{"_id": "1", "outcome": None}]
    assert archive.read(since=at(2), columns=["_id", "outcome"]).to_pylist() == [{"_id": "3", "outcome": 1.0}]


DAYS, ROWS_PER_DAY = 10, 2_000


@pytest.fixture
def wide_days(made: MadeArchive) -> MadeArchive:
    """A merged file a day, with fifty features that do not compress, in row groups of an hour."""
    random = pd.Series(range(DAYS * ROWS_PER_DAY)).sample(frac=1, random_state=0).to_numpy() / 7
    for day in range(DAYS):
        values = random[day * ROWS_PER_DAY : (day + 1) * ROWS_PER_DAY]
        midnight = at(day - 0.5)
        rows = pd.DataFrame(
            {
                "_id": [f"{day}-{row:04}" for row in range(ROWS_PER_DAY)],
                "_row": 0,
                "_time": pd.date_range(midnight, periods=ROWS_PER_DAY, freq=timedelta(days=1) / ROWS_PER_DAY),
                "_model": "m" if day % 2 else "n",
                "_version": "1",
                "_prediction": values,
                "_offset": range(ROWS_PER_DAY),
                **{f"x{number}": values * number for number in range(50)},
            }
        )
        made.add("predictions", pa.Table.from_pandas(rows), midnight.date(), row_group_size=ROWS_PER_DAY // 24)
    return made


def test_read_fetches_only_files_of_the_time_range(wide_days: MadeArchive, fetched: list[tuple[str, int]]) -> None:
    sizes = {found.path: found.size for found in wide_days.store.list_objects("archive/predictions/")}
    rows = archive.read(since=at(3.5), until=at(5.5), columns=["_id", "x1"])
    assert rows.num_rows == 2 * ROWS_PER_DAY
    by_day: dict[int, int] = {}
    for path, size in fetched:
        by_day[list(sizes).index(path)] = by_day.get(list(sizes).index(path), 0) + size
    # The clocks of clients may differ by minutes, and a slice may be open at midnight: so the days before are looked
    # at. They have no row of the range.
    assert sorted(by_day) == [2, 3, 4, 5, 6, 7, 8, 9]
    # Of later files, whose rows may have waited for the broker, only the footer is read.
    assert all(by_day[day] < list(sizes.values())[day] / 3 for day in range(6, DAYS))
    everything = archive.read(columns=["_id", "x1"])
    assert rows.equals(everything.slice(4 * ROWS_PER_DAY, 2 * ROWS_PER_DAY))


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({"columns": ["_id", "x7"]}, 0.35),
        ({"columns": ["_id"], "where": "x7 > 0"}, 0.35),
        ({"since": at(4), "until": at(4.1)}, 0.35),
        ({"model": "m"}, 0.7),
        ({}, 1.2),  # footers are fetched twice
    ],
)
def test_read_fetches_only_what_it_needs_of_large_files(
    wide_days: MadeArchive,
    fetched: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    share: float,
) -> None:
    """What is fetched is a part of the archive, and the rows are those of an archive that is fetched as a whole."""
    size = sum(found.size for found in wide_days.store.list_objects("archive/predictions/"))
    whole = archive.read(**options)
    fetched.clear()
    monkeypatch.setattr(archive_parts, "SMALL_BYTES", 0)
    monkeypatch.setattr(archive_parts, "FOOTER_BYTES", 2**12)
    monkeypatch.setattr(archive_parts, "MAX_GAP_BYTES", 2**8)
    rows = archive.read(**options)
    assert rows.equals(whole)
    assert rows.num_rows
    assert sum(count for _, count in fetched) <= share * size


@pytest.mark.usefixtures("wide_days")
def test_only_the_needed_columns_and_rows_are_read_by_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The condition is in the scan of the files, and no other columns are."""
    plans: list[str] = []
    sql = Connection.sql

    def explain(self: Connection, query: str) -> Any:
        plans.extend(row[1] for row in self.execute(f"EXPLAIN {query}").fetchall())
        return sql(self, query)

    monkeypatch.setattr(Connection, "sql", explain)
    archive.read("m", columns=["_id"], where="x7 > 12345")
    (plan,) = plans
    assert "x7>12345" in plan.replace(" ", "").replace(".0", "")
    assert "x8" not in plan


def test_read_needs_no_outcomes_if_no_column_of_them_is_wanted(
    made: MadeArchive, fetched: list[tuple[str, int]]
) -> None:
    made.predictions(prediction(1, x=1.0))
    made.outcomes(outcome(1, 1, known=2))
    archive.read(columns=["x"], where="x > 0")
    assert not any("/outcomes/" in path for path, _ in fetched)
    assert archive.read(columns=["x"], where="outcome > 0").num_rows == 1


FILES: list[dict[str, Any]] = [
    {"grows": 1, "mixed": 1, "flag": True, "when": 5, "late": "a", "null": None, "gone": 1.5, "nothing": None},
    {"grows": 2, "mixed": 2.5, "flag": None, "when": 6, "late": None, "null": None, "nothing": None},
    {"grows": 2.5, "mixed": "three", "flag": False, "when": at(7), "null": True, "new": at(1), "nothing": None},
    {"grows": None, "mixed": None, "flag": None, "when": None, "late": None, "null": None, "new": None},
]
"""A prediction a file: which columns there are, and of what type, differs."""
UNITED: dict[str, tuple[str, list[Any]]] = {
    "flag": ("bool", [True, None, False, None]),
    "gone": ("double", [1.5, None, None, None]),
    "grows": ("double", [1.0, 2.0, 2.5, None]),
    "late": ("string", ["a", None, None, None]),
    "mixed": ("string", ["1.0", "2.5", "three", None]),
    "new": ("timestamp[us, tz=UTC]", [None, None, at(1), None]),
    "nothing": ("null", [None, None, None, None]),
    "null": ("bool", [None, None, True, None]),
    "when": ("string", ["5", "6", "2026-01-08 12:00:00+00", None]),
}


@pytest.mark.parametrize("merged", [0, 2, 4], ids=["slices", "slices and merged files", "merged files"])
def test_columns_that_differ_between_files_come_as_one_schema(made: MadeArchive, merged: int) -> None:
    """The rules of docs/archive.md, whichever files are merged."""
    for number, features in enumerate(FILES):
        day = at(number).date() if number < merged else None
        made.predictions(prediction(number, **features), day=day)
    table = archive.read()
    assert {name: (str(table[name].type), table[name].to_pylist()) for name in UNITED} == UNITED
    assert table.column_names == [*OWN_COLUMNS, *sorted(UNITED), *OUTCOME_COLUMNS]


def test_column_without_values_in_a_merged_file_has_the_type_of_other_files(made: MadeArchive) -> None:
    """A merge writes it without a type, as it was in the slices."""
    empty = dict.fromkeys(("when", "flag", "number", "text", "nothing"))
    full = {"when": at(9), "flag": True, "number": 2, "text": "a", "nothing": None}
    for day in (0, 1):
        made.predictions(prediction(day, **empty))
    slices = list_slices(made.store, "predictions")
    (merged,) = merge_slices(made.store, slices, None, MergeLimits(slices=2))
    assert merged.slices.files == slices
    made.predictions(prediction(2, **full))
    made.predictions(prediction(3, **empty))
    table = archive.read()
    kinds = {"when": "timestamp[us, tz=UTC]", "flag": "bool", "number": "int64", "text": "string", "nothing": "null"}
    assert {name: str(table[name].type) for name in full} == kinds
    assert {name: table[name].to_pylist() for name in full} == {
        name: [None, None, value, None] for name, value in full.items()
    }


def test_own_columns_have_their_types_whatever_the_files_have(made: MadeArchive) -> None:
    """Early files lack columns, and predictions can be whole numbers or texts."""
    types = dict.fromkeys(OWN_COLUMNS, "string")
    types |= {"_row": "int64", "_offset": "int64", "_time": "timestamp[ns, tz=UTC]", "_prediction": "double"}
    types |= {"outcome": "double", "outcome_label": "string", "outcome_time": "timestamp[ns, tz=UTC]"}

    def found() -> dict[str, str]:
        return {field.name: str(field.type) for field in archive.read().schema}

    assert found() == types  # of an empty archive
    early = {name: value for name, value in prediction(1).items() if name in {"_id", "_row", "_time", "_model"}}
    made.predictions({**early, "_version": "1", "_prediction": 3})
    made.outcomes({"_id": "1", "_row": 0, "_time": at(2), "outcome": 1.0})
    assert found() == types
    assert archive.read(columns=["_prediction", "_key", "outcome"]).to_pylist() == [
        {"_prediction": 3.0, "_key": None, "outcome": 1.0}
    ]
    made.predictions(prediction(2, _prediction='["u", "v"]'))
    assert found() == {**types, "_prediction": "string"}


def test_feature_with_the_name_of_an_outcome_column_gets_a_prefix(made: MadeArchive) -> None:
    made.predictions(prediction(1, outcome=3.5, known_at=7))
    made.outcomes(outcome(1, 1, known=2))
    assert archive.read(columns=["outcome", "feature_outcome", "known_at"]).to_pylist() == [
        {"outcome": 1.0, "feature_outcome": 3.5, "known_at": 7}
    ]
    assert archive.read(where="feature_outcome > 3 AND outcome = 1").num_rows == 1


def test_column_that_only_files_of_other_times_have_is_null(made: MadeArchive) -> None:
    made.predictions(prediction(1, x=1.0), day=at(1).date())
    made.predictions(prediction(3, x=1.0, new=2.0), day=at(3).date())
    assert archive.read(until=at(2), columns=["x", "new"]).to_pylist() == [{"x": 1.0, "new": None}]
    assert archive.read(until=at(2), where="new IS NULL").column_names == [*OWN_COLUMNS, "x", *OUTCOME_COLUMNS]


def test_rows_are_read_once_while_slices_are_merged(made: MadeArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices are merged and deleted between the listing and the fetch."""
    paths = [made.predictions(prediction(day)) for day in range(3)]
    read_ranges, is_merged = ObjectStore.read_ranges, False

    def merge_then_read(self: ObjectStore, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        nonlocal is_merged
        if not is_merged:
            is_merged = True
            window = Window(topic="predictions", partition=0, first_offset=0, last_offset=29)
            rows = pa.Table.from_pylist([prediction(day) for day in range(3)])
            self.write_parquet(merged_path(window, BEGIN.date()), rows)
            for old in paths[1:]:  # the first one is a leftover
                self.delete(old)
        return read_ranges(self, path, ranges)

    monkeypatch.setattr(ObjectStore, "read_ranges", merge_then_read)
    assert archive.read()["_id"].to_pylist() == ["0", "1", "2"]
    assert is_merged


@pytest.mark.usefixtures("wide_days")
def test_scan_yields_batches_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    reader = archive.scan(columns=["_id"])
    assert list(scratch.iterdir())
    assert sum(batch.num_rows for batch in reader) == DAYS * ROWS_PER_DAY
    assert not list(scratch.iterdir())

    reader = archive.scan(columns=["_id", "_time"], in_order=True)
    first = reader.read_next_batch()
    assert first["_time"].to_pylist() == sorted(first["_time"].to_pylist())
    del reader
    gc.collect()
    assert not list(scratch.iterdir())


def test_unknown_column_is_named_with_those_that_there_are(made: MadeArchive) -> None:
    made.predictions(prediction(1, distance=1.0))
    with pytest.raises(
        InvalidInput, match=r"no column distence .*did you mean distance\?.*; it has _id, .*, distance,"
    ):
        archive.read(columns=["_id", "distence"])
    with pytest.raises(InvalidInput, match=r"where: 'distence > 1' .*distence"):
        archive.read(where="distence > 1")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("x >", "syntax error"),
        ("sum(x) > 1", "aggregate"),
        ("c::INT > 1", "Could not convert"),
        ("", "syntax error"),
        ("true) UNION ALL SELECT 1 WHERE (true", "syntax error"),
        ("true); SELECT (1", "syntax error"),
        ("c IN (SELECT content FROM read_text('/etc/hostname'))", "has a query in it"),
    ],
)
def test_bad_condition_is_refused_with_the_words_of_the_engine(made: MadeArchive, where: str, message: str) -> None:
    made.predictions(prediction(1, x=1.0, c="u"))
    with pytest.raises(InvalidInput, match=rf"(?s)^where: .*{message}"):
        archive.read(where=where)


@pytest.mark.usefixtures("made")
def test_bad_arguments_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"since: .* has no time zone; give one"):
        archive.read(since=datetime(2026, 1, 1))
    with pytest.raises(InvalidInput, match=r"until: 2026-01-01 has no time zone"):
        archive.read(until=date(2026, 1, 1))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"until: give a time of the years 1700 to 2261, or leave it out"):
        archive.read(until=datetime.max.replace(tzinfo=UTC))
    with pytest.raises(InvalidInput, match=r"columns: name at least one"):
        archive.read(columns=[])
    with pytest.raises(InvalidInput, match=r"memory_mb: 1 is too little; give 64 or more"):
        archive.read(memory_mb=1)
    with pytest.raises(InvalidInput, match=r"predictions_topic: '\.\./x' is not the name of a topic"):
        archive.read(predictions_topic="../x")
    with pytest.raises(InvalidInput, match=r"columns: give a list, as in \['x'\]"):
        archive.read(columns="x")
    with pytest.raises(InvalidInput, match=r"storage: .*gs://BUCKET"):
        archive.read(storage="bucket")


@pytest.mark.usefixtures("made")
def test_empty_archive_is_an_empty_table() -> None:
    assert archive.read().column_names == [*OWN_COLUMNS, *OUTCOME_COLUMNS]
    assert archive.read(columns=["x"], where="y > 1").column_names == ["x"]
    assert archive.read("m", since=at(0), until=at(1), labelled_only=True).num_rows == 0


def test_arguments_override_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = MadeArchive(tmp_path / "here")
    made.predictions(prediction(1))
    monkeypatch.setenv("DRIFTLOOP_STORAGE__URL", folder_store(tmp_path / "elsewhere").url("").rstrip("/"))
    monkeypatch.setenv("DRIFTLOOP_TOPICS__PREDICTIONS", "others")
    assert archive.read().num_rows == 0
    assert archive.read(storage=made.url).num_rows == 0
    assert archive.read(storage=made.url, predictions_topic="predictions").num_rows == 1
    monkeypatch.setenv("DRIFTLOOP_STORAGE__URL", "nowhere")
    with pytest.raises(InvalidSettings, match="DRIFTLOOP_STORAGE__URL"):
        archive.read()


def test_unreadable_file_is_named(made: MadeArchive) -> None:
    path = made.predictions(*(prediction(day) for day in range(3)))
    content = made.store.read(path)
    made.store.write(path, content[: len(content) // 2])
    with pytest.raises(ArchiveUnreadable, match=f"{path} is not a readable Parquet file"):
        archive.read()
    made.store.write(path, content)
    damage(made.store, path)
    with pytest.raises(ArchiveUnreadable, match=f"{Path(path).name} is not a readable Parquet file"):
        archive.read()
    made.store.write(path, b"")
    with pytest.raises(ArchiveUnreadable, match=f"{path} is not a readable Parquet file"):
        archive.read()


def test_damage_that_a_scan_meets_late_is_named(made: MadeArchive) -> None:
    count = 200_000  # more than the engine reads before the first batch
    rows = pa.table(
        {
            **{"_id": [f"{number:07}" for number in range(count)], "_row": [0] * count, "_time": [at(0)] * count},
            **{"_model": ["m"] * count, "_version": ["1"] * count, "_offset": range(count)},
        }
    )
    path = made.add("predictions", rows, row_group_size=20_000)
    damage(made.store, path, group=9)
    with pytest.raises(ArchiveUnreadable, match=f"{Path(path).name} is not a readable Parquet file"):
        list(archive.scan())


def test_import_is_cheap() -> None:
    """What is imported with the package has neither Arrow, DuckDB, pandas nor a store's client."""
    heavy = ("pyarrow", "duckdb", "pandas", "fsspec", "pydantic")
    code = f"import sys, driftloop.archive; print([name for name in {heavy} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "[]"


def test_rows_after_midnight_are_in_the_file_of_the_day_before(made: MadeArchive) -> None:
    made.predictions(prediction(0.4), prediction(0.55), day=at(0).date())
    made.predictions(prediction(0.8), day=at(0.8).date())
    assert archive.read(since=at(0.52), columns=["_id"])["_id"].to_pylist() == ["0.55", "0.8"]


def test_feature_may_have_any_name(made: MadeArchive) -> None:
    names = ["select", "a b", 'q"uote', "it's", "a.b", "__row", "__file", "__name", "p", "known_at", "ü", "\n"]
    made.predictions(prediction(1, **dict.fromkeys(names, 1.5)))
    made.predictions(prediction(2, **dict.fromkeys(names, 2.5)))
    assert archive.read(columns=names).to_pydict() == {name: [1.5, 2.5] for name in names}
    for name in names:
        quoted = '"' + name.replace('"', '""') + '"'
        assert archive.read(columns=["_id"], where=f"{quoted} > 2")["_id"].to_pylist() == ["2"]
