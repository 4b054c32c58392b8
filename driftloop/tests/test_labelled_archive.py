"""The archive of labelled rows, read from a bucket that speaks GCS's protocol."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftloop.archive.layout import merged_path
from driftloop.errors import ArchiveUnreadable
from driftloop.events import Window, new_event_id
from driftloop.settings import StorageSettings, TopicsSettings
from driftloop.storage import labelled_archive
from driftloop.storage.duckdb_sql import CastFailures
from driftloop.storage.labelled_archive import (
    ArchiveAnomalies,
    ArchiveQuery,
    LabelledArchive,
    start_of_day,
)
from driftloop.storage.object_store import ObjectStore
from driftloop.usecase import UseCase
from tests.support.archived_rows import damage
from tests.support.folder_store import folder_store
from tests.support.synthetic_usecase import kinds_of, make_use_case

pytestmark = pytest.mark.integration

USE_CASE = make_use_case(categorical_features=("c",))
BEGIN = datetime(2013, 7, 1, 12, tzinfo=UTC)
Row = dict[str, Any]


def at(days: float) -> datetime:
    return BEGIN + timedelta(days=days)


def prediction(day: float, **changed: Any) -> Row:
    """A prediction made on a day; its id is the day unless another is given."""
    return {
        **{"_id": f"{day:g}", "_row": 0, "_time": at(day), "_model": "m", "_version": "1"},
        **{"_prediction": 0.5, "_key": None, "x": day, "c": "u"},
        **changed,
    }


def outcome(day: float, value: float, known: float, **changed: Any) -> Row:
    """The outcome of the row of one day, known on another day."""
    named = {"_id": f"{day:g}", "_row": 0, "_model": None, "_key": None}
    return {**named, "_time": at(known), "outcome": value, **changed}


class ArchiveBuilder:
    """Builds an archive of topics of its own, slice by slice."""

    def __init__(self, storage: StorageSettings) -> None:
        name = new_event_id()
        self.store = ObjectStore(storage)
        self.topics = TopicsSettings(predictions=f"predictions-{name}", outcomes=f"outcomes-{name}")
        self._slices = 0

    def path(self, topic: str) -> str:
        """Return the path of the next slice."""
        self._slices += 1
        return f"slices/{topic}/{topic}-0-{self._slices * 1000:012}-{self._slices * 1000 + 999:012}.parquet"

    def add_predictions(self, *rows: Row) -> str:
        path = self.path(self.topics.predictions)
        self.store.write_parquet(path, pa.Table.from_pylist(list(rows)))
        return path

    def add_outcomes(self, *rows: Row) -> str:
        path = self.path(self.topics.outcomes)
        self.store.write_parquet(path, pa.Table.from_pylist(list(rows)))
        return path

    @contextmanager
    def open(self, use_case: UseCase = USE_CASE, **options: Any) -> Iterator[LabelledArchive]:
        with labelled_archive.open_archive(self.store, self.topics, use_case, **options) as archive:
            yield archive

    def rows(self, query: ArchiveQuery = labelled_archive.EVERYTHING, use_case: UseCase = USE_CASE) -> pd.DataFrame:
        with self.open(use_case) as archive:
            return archive.read(query)

    def outcomes(self, query: ArchiveQuery = labelled_archive.EVERYTHING) -> dict[str, float]:
        rows = self.rows(query)
        return dict(zip(rows["_id"], rows["y"], strict=True))


@pytest.fixture
def archive(storage: StorageSettings) -> ArchiveBuilder:
    return ArchiveBuilder(storage)


def test_archive_reads_rows_with_the_columns_of_a_dataset_and_the_prediction(archive: ArchiveBuilder) -> None:
    archive.add_predictions(prediction(2, _version="2", _prediction=0.25), prediction(1, _row=3, c=None))
    archive.add_outcomes(outcome(2, 1, known=3), outcome(1, 0, known=3, _row=3))
    rows = archive.rows()
    none = {"_classes": None}
    assert rows.to_dict("records") == [
        {
            "at": at(1),
            "x": 1.0,
            "c": None,
            "y": 0.0,
            "_id": "1",
            "_row": 3,
            "_version": "1",
            "_prediction": 0.5,
            **none,
        },
        {
            "at": at(2),
            "x": 2.0,
            "c": "u",
            "y": 1.0,
            "_id": "2",
            "_row": 0,
            "_version": "2",
            "_prediction": 0.25,
            **none,
        },
    ]
    assert str(rows["at"].dtype) == "datetime64[ns, UTC]"


def test_archive_joins_outcome_archived_long_after_or_before_its_prediction(archive: ArchiveBuilder) -> None:
    archive.add_outcomes(outcome(1, 1, known=90))
    archive.add_predictions(prediction(1), prediction(2))
    assert archive.outcomes() == {"1": 1.0}


def test_archive_counts_repeated_outcome_once(archive: ArchiveBuilder) -> None:
    archive.add_predictions(prediction(1))
    archive.add_outcomes(outcome(1, 1, known=2), outcome(1, 1, known=2))
    archive.add_outcomes(outcome(1, 1, known=2))
    assert archive.outcomes() == {"1": 1.0}
    with archive.open() as labelled:
        assert labelled.counts()[:2] == (1, 1)
        assert labelled.anomalies() == ArchiveAnomalies(
            outcomes=1, unmatched=0, corrected=1, repeated=0, unknown_labels=0
        )


def test_archive_uses_outcome_known_last_when_out_of_order(archive: ArchiveBuilder) -> None:
    archive.add_predictions(prediction(1), prediction(2))
    archive.add_outcomes(outcome(1, 0, known=5), outcome(2, 1, known=4))
    archive.add_outcomes(outcome(1, 1, known=3), outcome(2, 0, known=6))
    assert archive.outcomes() == {"1": 0.0, "2": 0.0}


def test_archive_uses_last_archived_of_outcomes_with_equal_time(archive: ArchiveBuilder) -> None:
    archive.add_predictions(prediction(1), prediction(2))
    archive.add_outcomes(outcome(1, 0, known=3), outcome(1, 1, known=3), outcome(2, 0, known=3))
    archive.add_outcomes(outcome(2, 1, known=3))
    assert archive.outcomes() == {"1": 1.0, "2": 1.0}


def test_archive_uses_an_outcome_from_the_future_only_if_there_is_no_other(archive: ArchiveBuilder) -> None:
    future = (datetime.now(UTC) + timedelta(days=36_500) - BEGIN) / timedelta(days=1)
    archive.add_predictions(prediction(1), prediction(2))
    archive.add_outcomes(outcome(1, 1, known=future), outcome(2, 1, known=future))
    archive.add_outcomes(outcome(1, 0, known=3))
    assert archive.outcomes() == {"1": 0.0, "2": 1.0}


def test_archive_anomalies_count_outcomes_without_prediction_of_any_model(
    archive: ArchiveBuilder,
) -> None:
    archive.add_predictions(prediction(1), prediction(2, _model="another"))
    archive.add_outcomes(
        outcome(1, 1, known=3), outcome(2, 1, known=3), outcome(7, 1, known=8), outcome(1, 1, known=3, _row=1)
    )
    with archive.open() as labelled:
        assert labelled.counts()[:2] == (1, 1)
        assert labelled.anomalies() == ArchiveAnomalies(
            outcomes=4, unmatched=2, corrected=0, repeated=0, unknown_labels=0
        )


def test_archive_keeps_first_of_duplicate_rows(archive: ArchiveBuilder) -> None:
    archive.add_predictions(prediction(1, x=10.0), prediction(1, x=11.0))
    archive.add_predictions(prediction(1, x=12.0), prediction(1, x=13.0, _model="another"))
    archive.add_outcomes(outcome(1, 1, known=3))
    assert archive.rows()["x"].tolist() == [10.0]
    with archive.open() as labelled:
        assert labelled.anomalies().repeated == 2


def test_archive_query_selects_by_prediction_time_with_exclusive_end(archive: ArchiveBuilder) -> None:
    archive.add_predictions(*(prediction(day) for day in range(6)))
    archive.add_outcomes(*(outcome(day, 1, known=9) for day in range(6)))
    assert list(archive.outcomes(ArchiveQuery(since=at(2)))) == ["2", "3", "4", "5"]
    assert list(archive.outcomes(ArchiveQuery(since=at(2), until=at(4)))) == ["2", "3"]
    assert list(archive.outcomes(ArchiveQuery(excluded_ranges=((at(0), at(1)), (at(2), at(5)))))) == ["1", "5"]


def test_archive_counts_days_in_time_zone_of_use_case(archive: ArchiveBuilder) -> None:
    late, early = (
        start_of_day(USE_CASE, date(2013, 7, 3)) - timedelta(minutes=1),
        start_of_day(USE_CASE, date(2013, 7, 3)),
    )
    archive.add_predictions(
        prediction(1, _id="late", _time=late), prediction(1, _id="early", _time=early), prediction(9)
    )
    archive.add_outcomes(outcome(1, 1, known=9, _id="late"), outcome(1, 0, known=9, _id="early"))
    with archive.open() as labelled:
        assert labelled.counts() == (3, 2, 2)
        assert labelled.counts(ArchiveQuery(since=early)) == (2, 1, 1)


def test_archive_query_last_rows_starts_at_nth_last_labelled_row(archive: ArchiveBuilder) -> None:
    archive.add_predictions(*(prediction(day) for day in (5, 3, 1, 6, 4, 2)))
    archive.add_outcomes(*(outcome(day, 1, known=9) for day in (1, 3, 4)))
    with archive.open() as labelled:
        assert labelled.counts(ArchiveQuery(last_rows=2))[:2] == (4, 2)
        assert labelled.read(ArchiveQuery(last_rows=2))["_id"].tolist() == ["3", "4"]
        assert labelled.read(ArchiveQuery(last_rows=2, until=at(4)))["_id"].tolist() == ["1", "3"]
        assert labelled.counts(ArchiveQuery(last_rows=100))[:2] == (6, 3)


DAYS = 12


@pytest.fixture
def merged_days(archive: ArchiveBuilder) -> ArchiveBuilder:
    """A merged file of predictions, and one of outcomes a day later, for each of some days, with 10 rows each."""
    for day in range(DAYS):
        window = Window(topic=archive.topics.predictions, partition=0, first_offset=day * 10, last_offset=day * 10 + 9)
        rows = [prediction(day, _id=f"{day}", _row=row, _time=at(day + row / 100)) for row in range(10)]
        archive.store.write_parquet(merged_path(window, at(day).date()), pa.Table.from_pylist(rows))
        if day % 3 == 0:  # the outcomes of every third day only
            window = window.model_copy(update={"topic": archive.topics.outcomes})
            rows = [outcome(day, 1.0, known=day + 1, _row=row) for row in range(10)]
            archive.store.write_parquet(merged_path(window, at(day + 1).date()), pa.Table.from_pylist(rows))
    return archive


@pytest.mark.parametrize(
    ("query", "days"),
    [
        # Days 11 and 10 have no outcomes, so three are looked at, the day before them because of clocks, and the one
        # before that because its last slice may have been open until then.
        (ArchiveQuery(last_rows=5), 5),
        (ArchiveQuery(last_rows=10), 5),
        (ArchiveQuery(last_rows=11), 11),
        (ArchiveQuery(last_rows=1_000), DAYS),
        (ArchiveQuery(last_rows=1_000, since=at(5)), 8),
        (ArchiveQuery(since=at(9)), 4),
        (labelled_archive.EVERYTHING, DAYS),
    ],
)
def test_archive_fetches_no_more_days_than_a_query_needs(
    merged_days: ArchiveBuilder, monkeypatch: pytest.MonkeyPatch, query: ArchiveQuery, days: int
) -> None:
    everything = merged_days.rows(query)
    fetched: list[str] = []
    read = ObjectStore.read

    def record(self: ObjectStore, path: str) -> bytes:
        fetched.append(path)
        return read(self, path)

    monkeypatch.setattr(ObjectStore, "read", record)
    monkeypatch.setattr(labelled_archive, "FIRST_FILES", 1)
    with merged_days.open(query=query) as labelled:
        pd.testing.assert_frame_equal(labelled.read(query), everything)
    assert sum(f"/{merged_days.topics.predictions}/" in path for path in fetched) == days


def test_archive_query_last_rows_cuts_within_rows_of_equal_time(archive: ArchiveBuilder) -> None:
    archive.add_predictions(*(prediction(1, _row=row) for row in range(5)))
    archive.add_outcomes(*(outcome(1, 1, known=2, _row=row) for row in range(5)))
    assert archive.rows(ArchiveQuery(last_rows=2))["_row"].tolist() == [3, 4]


def test_archive_query_selects_versions(archive: ArchiveBuilder) -> None:
    archive.add_predictions(prediction(1, _version="1"), prediction(2, _version="it's 2"), prediction(3, _version="3"))
    archive.add_outcomes(*(outcome(day, 1, known=9) for day in (1, 2, 3)))
    assert list(archive.outcomes(ArchiveQuery(versions=("it's 2", "3")))) == ["2", "3"]


def test_archive_unifies_slices_with_different_columns_and_types(archive: ArchiveBuilder, tmp_path: Path) -> None:
    """Integers, floats, an all-missing column, an absent column, numbers as text, numbers as category values."""
    archive.add_predictions(prediction(1, x=1, c="u"))
    archive.add_predictions(prediction(2, x=None, c=None))
    archive.add_predictions({name: cell for name, cell in prediction(3).items() if name not in {"x", "c"}})
    archive.add_predictions(prediction(4, x=4.5, c="v", new=True))
    archive.add_predictions(prediction(5, x="5.25", c=7, _prediction='["u", "v"]'))
    archive.add_outcomes(*(outcome(day, 1, known=9) for day in range(1, 6)))
    with archive.open() as labelled:
        rows = labelled.read()
        assert rows["x"].fillna(-1).tolist() == [1.0, -1.0, -1.0, 4.5]  # the fifth prediction is not of the target
        assert rows["c"].tolist() == ["u", None, None, "v"]
        assert labelled.type_mismatches() == {}
    with archive.open(types={"x": "FLOAT"}) as labelled:
        labelled.write(tmp_path / "rows.parquet")
    assert pd.read_parquet(tmp_path / "rows.parquet")["x"].dtype == "float32"


def test_archive_counts_values_that_do_not_fit_their_type(archive: ArchiveBuilder) -> None:
    archive.add_predictions(
        prediction(1, x="1"),
        prediction(2, x="far"),
        prediction(3, x="2.5"),
        prediction(4, x=None),
        prediction(5, x="9", _model="other"),
    )
    with archive.open() as labelled:
        assert labelled.type_mismatches() == {"x": CastFailures(1, "far", "DOUBLE")}
    with archive.open(types={"x": "BIGINT"}) as labelled:
        assert labelled.type_mismatches() == {"x": CastFailures(2, "2.5", "BIGINT")}


def test_archive_accepts_any_column_name(archive: ArchiveBuilder) -> None:
    names: tuple[str, ...] = (
        "outcome",
        "n",
        "file",
        "report_count",
        "features",
        "a b",
        'q"u',
        "it's",
        "typed_predictions",
        "source",
    )
    names += ("id", "row", "time", "model", "version", "prediction", "classes", "label", "key")
    names += ("filename", "name", "number")
    row = {name: float(place) for place, name in enumerate(names)}
    archive.add_predictions({**prediction(1), **row})
    archive.add_outcomes(outcome(1, 1, known=2))
    rows = archive.rows(use_case=replace(USE_CASE, feature_kinds=kinds_of(names)))
    assert rows[list(names)].iloc[0].to_dict() == row
    assert rows["y"].tolist() == [1.0]


def test_archive_reads_columns_of_subgroups_from_the_context(archive: ArchiveBuilder) -> None:
    archive.add_predictions(
        prediction(1, _context='{"campaign": "spring", "page \\"1\\"": 3}'),
        prediction(2, _context='{"campaign": null}'),
    )
    archive.add_predictions(prediction(3))  # its slice has no column of contexts
    archive.add_outcomes(*(outcome(day, 1, known=9) for day in (1, 2, 3)))
    names = ("campaign", 'page "1"')
    rows = archive.rows(use_case=replace(USE_CASE, subgroup_columns=("c", *names)))
    assert rows[list(names)].values.tolist() == [["spring", "3"], [None, None], [None, None]]


def test_archive_without_context_has_no_values_of_its_columns(archive: ArchiveBuilder) -> None:
    archive.add_predictions(prediction(1))
    archive.add_outcomes(outcome(1, 1, known=9))
    rows = archive.rows(use_case=replace(USE_CASE, subgroup_columns=("campaign",)))
    assert rows["campaign"].tolist() == [None]


def test_archive_writes_unlabelled_rows_too_and_equal_bytes_each_time(archive: ArchiveBuilder, tmp_path: Path) -> None:
    archive.add_predictions(*(prediction(day) for day in (3, 1, 2)))
    archive.add_outcomes(outcome(2, 1, known=9))
    for name in ("one", "two"):
        with archive.open() as labelled:
            labelled.write(tmp_path / name)
    rows = pd.read_parquet(tmp_path / "one")
    assert list(rows.columns) == ["at", "x", "c", "y"]
    assert rows["y"].fillna(-1).tolist() == [-1, 1, -1]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_archive_may_be_empty(archive: ArchiveBuilder) -> None:
    archive.store.write_parquet(archive.path(archive.topics.predictions), pd.DataFrame())
    with archive.open() as labelled:
        assert labelled.counts() == (0, 0, 0)
        assert labelled.anomalies() == ArchiveAnomalies(0, 0, 0, 0, 0)
        assert list(labelled.read().columns) == [
            "at",
            "x",
            "c",
            "y",
            "_id",
            "_row",
            "_version",
            "_prediction",
            "_classes",
        ]
    archive.add_predictions(prediction(1))
    with archive.open() as labelled:
        assert labelled.counts() == (1, 0, 0)


def test_archive_ignores_other_files_and_names_truncated_slice(archive: ArchiveBuilder) -> None:
    archive.add_predictions(prediction(1))
    archive.add_outcomes(outcome(1, 1, known=2))
    archive.store.write(f"slices/{archive.topics.predictions}/notes.txt", b"nothing of ours")
    assert archive.outcomes() == {"1": 1.0}
    path = archive.add_predictions(prediction(2))
    content = archive.store.read(path)
    archive.store.write(path, content[: len(content) // 2])
    with pytest.raises(ArchiveUnreadable, match=f"{path} is not a readable Parquet file"):
        archive.rows()


def test_archive_reports_slice_with_corrupt_pages(archive: ArchiveBuilder) -> None:
    path = archive.add_predictions(*(prediction(day) for day in range(200)))
    damage(archive.store, path)
    with pytest.raises(ArchiveUnreadable, match=f"{Path(path).name} is not a readable Parquet file"):
        archive.rows()


def test_archive_folder_downloads_each_slice_once_and_deletes_stale_ones(
    archive: ArchiveBuilder, tmp_path: Path
) -> None:
    first, second = archive.add_predictions(prediction(1)), archive.add_predictions(prediction(2))
    with archive.open(folder=tmp_path) as labelled:
        assert labelled.counts().rows == 2
    size = len(archive.store.read(first))
    archive.store.write(first, b"x" * size)  # only a file of another size has other rows, so that this is not fetched
    archive.store.delete(second)
    archive.add_predictions(prediction(3), prediction(4))
    with archive.open(folder=tmp_path) as labelled:
        assert labelled.counts().rows == 3
    assert len(list(tmp_path.rglob("*.parquet"))) == 2


def test_archive_folder_gets_a_damaged_file_again(archive: ArchiveBuilder, tmp_path: Path) -> None:
    archive.add_predictions(prediction(1), prediction(2))
    archive.add_outcomes(outcome(1, 1, known=2))
    with archive.open(folder=tmp_path) as labelled:
        assert len(labelled.read()) == 1
    (local,) = tmp_path.rglob("slices_predictions-*.parquet")
    damage(folder_store(tmp_path), str(local.relative_to(tmp_path)))
    with pytest.raises(ArchiveUnreadable, match=local.name), archive.open(folder=tmp_path) as labelled:
        labelled.read()
    with archive.open(folder=tmp_path) as labelled:
        assert len(labelled.read()) == 1


def test_archive_has_a_feature_whose_name_other_models_write_in_other_letters(archive: ArchiveBuilder) -> None:
    """Two models may share a topic, and a version may be trained with a column that is called X by now."""
    both = prediction(2) | {"X": None}
    other = prediction(3, _model="other") | {"x": None, "X": 7.0}
    renamed = {("X" if name == "x" else name): value for name, value in prediction(4).items()}
    archive.add_predictions(both, other)
    archive.add_predictions(renamed)
    archive.add_outcomes(*(outcome(day, 1, known=day + 0.5) for day in (2, 3, 4)))
    assert archive.rows()["x"].tolist() == [2.0, 4.0]


def test_archive_folder_keeps_no_row_that_was_erased(archive: ArchiveBuilder, tmp_path: Path) -> None:
    path = archive.add_predictions(prediction(1), prediction(2))
    with archive.open(folder=tmp_path) as labelled:
        assert labelled.counts().rows == 2
    archive.store.write_parquet(path, archive.store.read_table(path).slice(1))
    with archive.open(folder=tmp_path) as labelled:
        assert labelled.counts().rows == 1


def test_archive_joins_more_rows_than_fit_into_memory(archive: ArchiveBuilder, tmp_path: Path) -> None:
    megabytes, total, of_slice, names = 128, 1_000_000, 50_000, tuple(f"x{number}" for number in range(16))
    random = np.random.default_rng(0)
    for start in range(0, total, of_slice):
        rows = pd.DataFrame(
            {"_id": [f"{place:036}" for place in range(start, start + of_slice)], "_row": 0, "_time": BEGIN}
        )
        features = {name: random.random(of_slice) for name in names}
        answers = rows.assign(_model="m", _version="1", _prediction=0.5, **features)
        archive.store.write_parquet(archive.path(archive.topics.predictions), answers)
        archive.store.write_parquet(archive.path(archive.topics.outcomes), rows.assign(outcome=features["x0"]))
    with archive.open(replace(USE_CASE, feature_kinds=kinds_of(names), classes=None), memory_mb=megabytes) as labelled:
        labelled.write(tmp_path / "rows.parquet")
    written = pq.read_table(tmp_path / "rows.parquet")
    assert written.num_rows == total
    assert written.nbytes > megabytes * 2**20
    assert written["y"] == written["x0"]


def by_key(key: str, value: float, known: float, model: str = "m") -> Row:
    """An outcome that names a key."""
    return {"_id": None, "_row": None, "_model": model, "_key": key, "_time": at(known), "outcome": value}


def test_outcome_with_a_key_belongs_to_the_latest_row_before_it(archive: ArchiveBuilder) -> None:
    archive.add_predictions(*(prediction(day, _key="order-17") for day in (1, 3, 5)), prediction(2, _key="order-18"))
    archive.add_outcomes(
        by_key("order-17", 1, known=3), by_key("order-18", 0, known=1), by_key("order-17", 0, known=4.5)
    )
    assert archive.outcomes() == {"3": 0.0}
    archive.add_outcomes(by_key("order-17", 1, known=2), by_key("order-18", 1, known=2))
    assert archive.outcomes() == {"1": 1.0, "2": 1.0, "3": 0.0}
    with archive.open() as labelled:
        # Three rows and, before there was a prediction of it, a key.
        assert labelled.anomalies() == ArchiveAnomalies(
            outcomes=4, unmatched=1, corrected=1, repeated=0, unknown_labels=0
        )


def test_outcomes_by_key_and_by_id_correct_each_other(archive: ArchiveBuilder) -> None:
    archive.add_predictions(prediction(1, _key="a"), prediction(1, _key="a"), prediction(2, _key="b"))
    archive.add_outcomes(outcome(1, 1, known=3), by_key("b", 1, known=3))
    archive.add_outcomes(by_key("a", 0, known=4), outcome(2, 0, known=2.5))
    assert archive.outcomes() == {"1": 0.0, "2": 1.0}


def test_outcome_with_a_key_belongs_to_rows_of_its_model_only(archive: ArchiveBuilder) -> None:
    archive.add_predictions(prediction(1, _key="a"), prediction(2, _key="a", _model="another"))
    archive.add_outcomes(by_key("a", 1, known=3), by_key("a", 0, known=4, model="another"))
    assert archive.outcomes() == {"1": 1.0}


def test_outcomes_by_key_need_no_prediction_with_a_key(archive: ArchiveBuilder) -> None:
    archive.add_predictions(prediction(1))
    archive.add_outcomes(by_key("a", 1, known=3))
    assert archive.outcomes() == {}


def test_rows_of_one_key_and_time_are_the_last_in_the_archives_order(archive: ArchiveBuilder) -> None:
    archive.add_predictions(prediction(1, _id="first", _key="a"), prediction(1, _id="second", _key="a"))
    archive.add_outcomes(by_key("a", 1, known=1))
    assert archive.outcomes() == {"second": 1.0}
