"""Archived predictions beside their outcomes, from a bucket behind GCS's protocol."""

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
from sklearn.linear_model import LogisticRegression

from driftloop.events import new_id
from driftloop.settings import Storage, Topics
from driftloop.storage import labelled_archive
from driftloop.storage.bucket import Bucket
from driftloop.storage.labelled_archive import Broken, Labelled, Oddities, Selection, midnight
from driftloop.usecase import UseCase

USE_CASE = UseCase(
    name="m",
    numbers=("x",),
    categories=("c",),
    outcome="y",
    time="at",
    timezone="America/New_York",
    pipeline=LogisticRegression,
    pointer=Path("m.dvc"),
    rows=pd.DataFrame,
)
BEGIN = datetime(2013, 7, 1, 12, tzinfo=UTC)
Row = dict[str, Any]


def at(days: float) -> datetime:
    return BEGIN + timedelta(days=days)


def asked(day: float, **changed: Any) -> Row:
    """A row that was answered on a day; its id is the day where it has none of its own."""
    return {
        **{"id": f"{day:g}", "row": 0, "time": at(day), "model": "m", "version": "1"},
        **{"prediction": 0.5, "x": day, "c": "u"},
        **changed,
    }


def told(day: float, outcome: float, known: float, **changed: Any) -> Row:
    """What became of the row of a day, known on another."""
    return {"id": f"{day:g}", "row": 0, "time": at(known), "outcome": outcome, **changed}


class Archive:
    """An archive of topics of its own, to which slices are added."""

    def __init__(self, storage: Storage) -> None:
        name = new_id()
        self.bucket = Bucket(storage)
        self.topics = Topics(predictions=f"predictions-{name}", outcomes=f"outcomes-{name}")
        self._slices = 0

    def path(self, topic: str) -> str:
        """Where the next slice belongs."""
        self._slices += 1
        return f"events/{topic}/{topic}-0-{self._slices * 1000:012}-{self._slices * 1000 + 999:012}.parquet"

    def asked(self, *rows: Row) -> str:
        path = self.path(self.topics.predictions)
        self.bucket.write_parquet(path, pa.Table.from_pylist(list(rows)))
        return path

    def told(self, *rows: Row) -> str:
        path = self.path(self.topics.outcomes)
        self.bucket.write_parquet(path, pa.Table.from_pylist(list(rows)))
        return path

    @contextmanager
    def opened(self, use_case: UseCase = USE_CASE, **options: Any) -> Iterator[Labelled]:
        with labelled_archive.opened(self.bucket, self.topics, use_case, **options) as archive:
            yield archive

    def rows(self, selection: Selection = labelled_archive.ALL, use_case: UseCase = USE_CASE) -> pd.DataFrame:
        with self.opened(use_case) as archive:
            return archive.read(selection)

    def outcomes(self, selection: Selection = labelled_archive.ALL) -> dict[str, float]:
        rows = self.rows(selection)
        return dict(zip(rows["id"], rows["y"], strict=True))


@pytest.fixture
def archive(storage: Storage) -> Archive:
    return Archive(storage)


def test_rows_are_as_a_dataset_has_them_with_the_answer_beside_them(archive: Archive) -> None:
    archive.asked(asked(2, version="2", prediction=0.25), asked(1, row=3, c=None))
    archive.told(told(2, 1, known=3), told(1, 0, known=3, row=3))
    rows = archive.rows()
    assert rows.to_dict("records") == [
        {"at": at(1), "x": 1.0, "c": None, "y": 0.0, "id": "1", "row": 3, "version": "1", "prediction": 0.5},
        {"at": at(2), "x": 2.0, "c": "u", "y": 1.0, "id": "2", "row": 0, "version": "2", "prediction": 0.25},
    ]
    assert str(rows["at"].dtype) == "datetime64[ns, UTC]"


def test_an_outcome_may_come_long_after_its_prediction_and_in_a_slice_before_it(archive: Archive) -> None:
    archive.told(told(1, 1, known=90))
    archive.asked(asked(1), asked(2))
    assert archive.outcomes() == {"1": 1.0}


def test_an_outcome_that_comes_twice_counts_once(archive: Archive) -> None:
    archive.asked(asked(1))
    archive.told(told(1, 1, known=2), told(1, 1, known=2))
    archive.told(told(1, 1, known=2))
    assert archive.outcomes() == {"1": 1.0}
    with archive.opened() as opened:
        assert opened.counts()[:2] == (1, 1)
        assert opened.oddities() == Oddities(outcomes=1, unmatched=0, corrected=1, repeated=0)


def test_of_outcomes_that_come_out_of_order_the_one_that_was_known_last_counts(archive: Archive) -> None:
    archive.asked(asked(1), asked(2))
    archive.told(told(1, 0, known=5), told(2, 1, known=4))
    archive.told(told(1, 1, known=3), told(2, 0, known=6))
    assert archive.outcomes() == {"1": 0.0, "2": 0.0}


def test_of_outcomes_that_were_known_at_the_same_time_the_archives_last_counts(archive: Archive) -> None:
    archive.asked(asked(1), asked(2))
    archive.told(told(1, 0, known=3), told(1, 1, known=3), told(2, 0, known=3))
    archive.told(told(2, 1, known=3))
    assert archive.outcomes() == {"1": 1.0, "2": 1.0}


def test_outcomes_without_a_prediction_are_counted_and_those_of_another_model_are_not_among_them(
    archive: Archive,
) -> None:
    archive.asked(asked(1), asked(2, model="another"))
    archive.told(told(1, 1, known=3), told(2, 1, known=3), told(7, 1, known=8), told(1, 1, known=3, row=1))
    with archive.opened() as opened:
        assert opened.counts()[:2] == (1, 1)
        assert opened.oddities() == Oddities(outcomes=4, unmatched=2, corrected=0, repeated=0)


def test_a_row_that_was_archived_twice_counts_once_where_it_stood_first(archive: Archive) -> None:
    archive.asked(asked(1, x=10.0), asked(1, x=11.0))
    archive.asked(asked(1, x=12.0), asked(1, x=13.0, model="another"))
    archive.told(told(1, 1, known=3))
    assert archive.rows()["x"].tolist() == [10.0]
    with archive.opened() as opened:
        assert opened.oddities().repeated == 2


def test_a_selection_goes_by_when_it_was_asked_and_its_end_is_not_included(archive: Archive) -> None:
    archive.asked(*(asked(day) for day in range(6)))
    archive.told(*(told(day, 1, known=9) for day in range(6)))
    assert list(archive.outcomes(Selection(since=at(2)))) == ["2", "3", "4", "5"]
    assert list(archive.outcomes(Selection(since=at(2), until=at(4)))) == ["2", "3"]
    assert list(archive.outcomes(Selection(without=((at(0), at(1)), (at(2), at(5)))))) == ["1", "5"]


def test_days_begin_where_the_use_case_says(archive: Archive) -> None:
    late, early = midnight(USE_CASE, date(2013, 7, 3)) - timedelta(minutes=1), midnight(USE_CASE, date(2013, 7, 3))
    archive.asked(asked(1, id="late", time=late), asked(1, id="early", time=early), asked(9))
    archive.told(told(1, 1, known=9, id="late"), told(1, 0, known=9, id="early"))
    with archive.opened() as opened:
        assert opened.counts() == (3, 2, 2)
        assert opened.counts(Selection(since=early)) == (2, 1, 1)


def test_the_last_labelled_rows_are_those_and_what_came_between_and_since(archive: Archive) -> None:
    archive.asked(*(asked(day) for day in (5, 3, 1, 6, 4, 2)))
    archive.told(*(told(day, 1, known=9) for day in (1, 3, 4)))
    with archive.opened() as opened:
        assert opened.counts(Selection(last_rows=2))[:2] == (4, 2)
        assert opened.read(Selection(last_rows=2))["id"].tolist() == ["3", "4"]
        assert opened.read(Selection(last_rows=2, until=at(4)))["id"].tolist() == ["1", "3"]
        assert opened.counts(Selection(last_rows=100))[:2] == (6, 3)


def test_rows_of_the_same_time_are_cut_at_the_one_that_is_meant(archive: Archive) -> None:
    archive.asked(*(asked(1, row=row) for row in range(5)))
    archive.told(*(told(1, 1, known=2, row=row) for row in range(5)))
    assert archive.rows(Selection(last_rows=2))["row"].tolist() == [3, 4]


def test_only_what_some_versions_answered(archive: Archive) -> None:
    archive.asked(asked(1, version="1"), asked(2, version="it's 2"), asked(3, version="3"))
    archive.told(*(told(day, 1, known=9) for day in (1, 2, 3)))
    assert list(archive.outcomes(Selection(versions=("it's 2", "3")))) == ["2", "3"]


def test_slices_may_differ_in_their_columns_and_types(archive: Archive, tmp_path: Path) -> None:
    """Integers, floats, a column that is all missing, one that is not there, numbers in words, numbers as levels."""
    archive.asked(asked(1, x=1, c="u"))
    archive.asked(asked(2, x=None, c=None))
    archive.asked({name: cell for name, cell in asked(3).items() if name not in {"x", "c"}})
    archive.asked(asked(4, x=4.5, c="v", new=True))
    archive.asked(asked(5, x="5.25", c=7, prediction='["u", "v"]'))
    archive.told(*(told(day, 1, known=9) for day in range(1, 6)))
    with archive.opened() as opened:
        rows = opened.read()
        assert rows["x"].fillna(-1).tolist() == [1.0, -1.0, -1.0, 4.5, 5.25]
        assert rows["c"].tolist() == ["u", None, None, "v", "7"]
        assert rows["prediction"].isna().tolist() == [False, False, False, False, True]
        assert opened.unfit() == {}
    with archive.opened(types={"x": "FLOAT"}) as opened:
        opened.write(tmp_path / "rows.parquet")
    assert pd.read_parquet(tmp_path / "rows.parquet")["x"].dtype == "float32"


def test_values_that_do_not_fit_their_type_are_counted(archive: Archive) -> None:
    archive.asked(
        asked(1, x="1"), asked(2, x="far"), asked(3, x="2.5"), asked(4, x=None), asked(5, x="9", model="other")
    )
    with archive.opened() as opened:
        assert opened.unfit() == {"x": 1}
    with archive.opened(types={"x": "BIGINT"}) as opened:
        assert opened.unfit() == {"x": 2}


def test_a_column_may_have_any_name(archive: Archive) -> None:
    names = ("outcome", "n", "file", "told", "features", "a b", 'q"u', "it's", "asked", "source")
    row = {name: float(place) for place, name in enumerate(names)}
    archive.asked({**asked(1), **row})
    archive.told(told(1, 1, known=2))
    rows = archive.rows(use_case=replace(USE_CASE, numbers=names))
    assert rows[list(names)].iloc[0].to_dict() == row
    assert rows["y"].tolist() == [1.0]


def test_what_is_written_has_the_rows_without_an_outcome_too_and_the_same_bytes_each_time(
    archive: Archive, tmp_path: Path
) -> None:
    archive.asked(*(asked(day) for day in (3, 1, 2)))
    archive.told(told(2, 1, known=9))
    for name in ("one", "two"):
        with archive.opened() as opened:
            opened.write(tmp_path / name)
    rows = pd.read_parquet(tmp_path / "one")
    assert list(rows.columns) == ["at", "x", "c", "y"]
    assert rows["y"].fillna(-1).tolist() == [-1, 1, -1]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_an_archive_may_be_empty(archive: Archive) -> None:
    archive.bucket.write_parquet(archive.path(archive.topics.predictions), pd.DataFrame())
    with archive.opened() as opened:
        assert opened.counts() == (0, 0, 0)
        assert opened.oddities() == Oddities(0, 0, 0, 0)
        assert list(opened.read().columns) == ["at", "x", "c", "y", "id", "row", "version", "prediction"]
    archive.asked(asked(1))
    with archive.opened() as opened:
        assert opened.counts() == (1, 0, 0)


def test_what_is_no_slice_is_left_out_and_a_broken_slice_is_named(archive: Archive) -> None:
    archive.asked(asked(1))
    archive.told(told(1, 1, known=2))
    archive.bucket.write(f"events/{archive.topics.predictions}/notes.txt", b"nothing of ours")
    assert archive.outcomes() == {"1": 1.0}
    path = archive.asked(asked(2))
    content = archive.bucket.read(path)
    archive.bucket.write(path, content[: len(content) // 2])
    with pytest.raises(Broken, match=f"{path} is no Parquet file"):
        archive.rows()


def test_a_slice_whose_pages_are_broken_is_an_error_that_says_so(archive: Archive) -> None:
    path = archive.asked(*(asked(day) for day in range(200)))
    content = archive.bucket.read(path)
    archive.bucket.write(path, content[:4] + bytes(1_000) + content[1_004:])
    with pytest.raises(Broken, match="the archive cannot be read"):
        archive.rows()


def test_kept_files_are_fetched_once_and_go_with_those_of_the_bucket(archive: Archive, tmp_path: Path) -> None:
    first, second = archive.asked(asked(1)), archive.asked(asked(2))
    with archive.opened(folder=tmp_path) as opened:
        assert opened.counts().rows == 2
    archive.bucket.write(first, b"a slice has its name for good, so that this is not fetched")
    archive.bucket.delete(second)
    archive.asked(asked(3), asked(4))
    with archive.opened(folder=tmp_path) as opened:
        assert opened.counts().rows == 3
    assert len(list(tmp_path.rglob("*.parquet"))) == 2


def test_rows_that_do_not_fit_into_the_memory_are_joined_on_disk(archive: Archive, tmp_path: Path) -> None:
    megabytes, total, of_slice, names = 128, 1_000_000, 50_000, tuple(f"x{number}" for number in range(16))
    random = np.random.default_rng(0)
    for start in range(0, total, of_slice):
        rows = pd.DataFrame(
            {"id": [f"{place:036}" for place in range(start, start + of_slice)], "row": 0, "time": BEGIN}
        )
        features = {name: random.random(of_slice) for name in names}
        answers = rows.assign(model="m", version="1", prediction=0.5, **features)
        archive.bucket.write_parquet(archive.path(archive.topics.predictions), answers)
        archive.bucket.write_parquet(archive.path(archive.topics.outcomes), rows.assign(outcome=features["x0"]))
    with archive.opened(replace(USE_CASE, numbers=names, categories=()), memory_mb=megabytes) as opened:
        opened.write(tmp_path / "rows.parquet")
    written = pq.read_table(tmp_path / "rows.parquet")
    assert written.num_rows == total
    assert written.nbytes > megabytes * 2**20
    assert written["y"] == written["x0"]
