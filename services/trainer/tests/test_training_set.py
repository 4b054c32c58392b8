"""What a training set is made of, what it is checked for, and which of its rows are held out."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression

from driftloop.events import DataSelection, new_id
from driftloop.settings import Storage, Topics
from driftloop.storage import dvc
from driftloop.storage.bucket import Bucket
from driftloop.usecase import UseCase
from trainer.retrain import training_set
from trainer.retrain.training_set import Counts, TrainingSet, UnfitData
from trainer.settings import Data

USE_CASE = UseCase(
    name="m",
    numbers=("x", "whole"),
    categories=("c",),
    outcome="y",
    time="at",
    timezone="America/New_York",
    pipeline=LogisticRegression,
    pointer=Path("m.dvc"),
    rows=pd.DataFrame,
)
FEW = Data(fewest_rows=2)
EVERYTHING = DataSelection()
JANUARY, JUNE = date(2013, 1, 1), date(2013, 6, 1)
BEGIN = datetime(2013, 1, 1, tzinfo=UTC)


def days(first: date, count: int, outcome: float = 0.0) -> pd.DataFrame:
    """Two rows a day, one of them shortly before midnight in New York, which is the next day in UTC."""
    start = datetime(first.year, first.month, first.day, tzinfo=UTC)
    at = [start + timedelta(days=n, hours=hour) for n in range(count) for hour in (12, 27)]
    return pd.DataFrame({"at": pd.to_datetime(at, utc=True), "x": np.arange(2.0 * count), "y": outcome})


def base(count: int = 10) -> pd.DataFrame:
    """Days of January, whose last row has no outcome."""
    rows = days(JANUARY, count).assign(whole=1, c="u")[["at", "x", "whole", "c", "y"]]
    rows["y"] = [0.0, 1.0] * (count - 1) + [1.0, np.nan]
    return rows


class World:
    """A base dataset under DVC and an archive, in a bucket; both of a test's own."""

    def __init__(self, storage: Storage, folder: Path) -> None:
        self.storage, self.bucket, self.folder = storage, Bucket(storage), folder
        name = new_id()
        self.topics = Topics(predictions=f"predictions-{name}", outcomes=f"outcomes-{name}")
        self.use_case = replace(USE_CASE, pointer=folder / "base.parquet.dvc")
        self._slices = 0

    def base(self, rows: pd.DataFrame) -> Path:
        """Puts a base dataset into the bucket."""
        file = self.folder / "base.parquet"
        rows.to_parquet(file, index=False)
        return self.pushed(file)

    def pushed(self, file: Path) -> Path:
        """Where the file lies in the bucket's folder of datasets."""
        pointer = dvc.push(self.storage, file)
        self.use_case.pointer.write_text(pointer)
        digest = dvc.pointed(pointer).md5
        return Path(dvc.FOLDER, "files", "md5", digest[:2], digest[2:])

    def archive(self, rows: pd.DataFrame) -> None:
        """Archives a dataset's rows as predictions with outcomes, which were known a week later."""
        self._slices += 1
        ids = [f"{self._slices}-{place}" for place in range(len(rows))]
        answers = rows.drop(columns="y").rename(columns={"at": "time"})
        answers = answers.assign(id=ids, row=0, model="m", version="1", prediction=0.5)
        outcomes = pd.DataFrame({"id": ids, "row": 0, "time": rows["at"] + timedelta(days=7), "outcome": rows["y"]})
        for topic, frame in ((self.topics.predictions, answers), (self.topics.outcomes, outcomes[rows["y"].notna()])):
            self.bucket.write_parquet(self._path(topic), frame)

    def archive_again(self) -> None:
        """Archives everything once more."""
        for topic in (self.topics.predictions, self.topics.outcomes):
            for path in self.bucket.names(f"events/{topic}/"):
                self.bucket.write(path.replace(f"{topic}-0-", f"{topic}-1-"), self.bucket.read(path))

    def told(self, count: int) -> None:
        """Archives outcomes that have no prediction."""
        self._slices += 1
        rows = pd.DataFrame({"id": [new_id() for _ in range(count)], "row": 0, "time": BEGIN, "outcome": 1.0})
        self.bucket.write_parquet(self._path(self.topics.outcomes), rows)

    def _path(self, topic: str) -> str:
        first = self._slices * 10_000
        return f"events/{topic}/{topic}-0-{first:012}-{first + 9_999:012}.parquet"

    def built(self, selection: DataSelection = EVERYTHING, settings: Data = FEW, **changed: Any) -> TrainingSet:
        """A training set, whose folder is its own."""
        folder = self.folder / new_id()
        folder.mkdir()
        use_case = replace(self.use_case, **changed)
        return training_set.build(self.storage, self.bucket, self.topics, use_case, selection, settings, folder)

    def problems(self, selection: DataSelection = EVERYTHING, settings: Data = FEW, **changed: Any) -> list[str]:
        """What is wrong with it."""
        with pytest.raises(UnfitData) as error:
            self.built(selection, settings, **changed)
        return str(error.value).split("; ")


def of(cells: list[str | None]) -> pd.Series:
    return pd.Series(cells, dtype=object)


@pytest.fixture
def world(storage: Storage, tmp_path: Path) -> World:
    return World(storage, tmp_path)


def test_a_training_set_is_the_base_dataset_and_the_archive_in_order_of_time(world: World) -> None:
    world.base(base(3))
    world.archive(base(2).assign(at=lambda rows: rows["at"] + timedelta(days=1), x=-1.0))
    made = world.built()
    rows = training_set.read(made.path)
    assert rows["at"].is_monotonic_increasing
    assert rows["x"].tolist() == [0.0, 1.0, 2.0, -1.0, 3.0, -1.0, 4.0, -1.0, 5.0, -1.0]
    assert rows["y"].fillna(-1).tolist() == [0, 1, 0, 0, 1, 1, 1, 1, -1, -1]
    assert made.counts == Counts(
        rows=10, labelled=8, archived=4, archived_labelled=3, outcomes=3, unmatched=0, corrected=0, repeated=0
    )


def test_its_columns_have_the_types_of_the_base_dataset(world: World) -> None:
    world.base(base().astype({"whole": "int16"}))
    world.archive(base(2).assign(whole=[1.0, 2.0, np.nan, 4.0], c=None))
    kinds = pq.read_schema(world.built(settings=Data(missing_share=1, fewest_rows=2)).path)
    assert kinds.names == ["at", "x", "whole", "c", "y"]
    assert [str(kind) for kind in kinds.types] == ["timestamp[ns, tz=UTC]", "double", "int16", "string", "double"]


def test_it_is_a_dataset_version_that_its_pointer_brings_back(world: World, tmp_path: Path) -> None:
    world.base(base())
    made = world.built()
    assert made.artifact == "dataset/m.parquet.dvc"
    back = dvc.pull(world.storage, dvc.push(world.storage, made.path), tmp_path / "back")
    assert back.name == "m.parquet"
    assert back.read_bytes() == made.path.read_bytes()


def test_the_same_rows_are_the_same_version(world: World) -> None:
    world.base(base())
    world.archive(base(2))
    assert world.built().path.read_bytes() == world.built().path.read_bytes()


def test_a_training_set_can_be_a_base_dataset(world: World) -> None:
    world.base(base())
    made = world.built()
    world.pushed(made.path)
    assert world.built().path.read_bytes() == made.path.read_bytes()


def test_a_selection_goes_by_the_use_cases_own_days_and_its_end_is_the_datasets(world: World) -> None:
    world.base(base(10))
    world.archive(base(10).assign(at=lambda rows: rows["at"] + timedelta(minutes=1), x=lambda rows: rows["x"] + 100))
    selection = DataSelection(start=date(2013, 1, 3), end=date(2013, 1, 5), without_days=[date(2013, 1, 4)])
    assert training_set.read(world.built(selection).path)["x"].tolist() == [
        *(4.0, 104.0, 5.0, 105.0),
        *(108.0, 109.0, 110.0, 111.0, 112.0, 113.0, 114.0, 115.0, 116.0, 117.0, 118.0, 119.0),
    ]


def test_the_last_labelled_rows_are_of_dataset_and_archive_together(world: World) -> None:
    world.base(base(3))
    world.archive(base(2).assign(x=lambda rows: rows["x"] + 100))
    made = world.built(DataSelection(last_rows=5))
    assert training_set.read(made.path)["x"].tolist() == [101.0, 2.0, 102.0, 3.0, 103.0, 4.0, 5.0]
    assert made.counts.labelled == 5
    assert world.built(DataSelection(last_rows=100)).counts.labelled == 8


def test_without_the_archive_it_is_not_looked_at(world: World) -> None:
    world.base(base(3))
    world.archive(base(2).assign(x="far"))
    assert world.built(DataSelection(archive=False)).counts == Counts(6, 5, 0, 0, 0, 0, 0, 0)


def test_a_renamed_column_is_named_with_its_new_name(world: World) -> None:
    world.base(base().rename(columns={"x": "miles"}))
    assert world.problems() == [
        "schema: the base dataset has no x",
        "schema: the use case does not know miles, which the base dataset has",
    ]


def test_values_that_are_no_numbers_are_counted(world: World) -> None:
    world.base(base().assign(x=["far", "2.5", *["1"] * 18]))
    world.archive(base(2).assign(whole=[1.0, 2.5, 3.0, np.nan]))
    assert world.problems() == [
        "schema: 1 values of x in the base dataset are no DOUBLE",
        "schema: 1 archived values of whole are no BIGINT",
    ]


def test_too_few_labelled_rows_are_counted(world: World) -> None:
    world.base(base())
    assert world.problems(settings=Data(fewest_rows=30)) == [
        "labelled rows: 19 of 20, and 30 are needed (DRIFTLOOP_DATA__FEWEST_ROWS)"
    ]
    assert world.problems(DataSelection(start=JUNE)) == [
        "labelled rows: 0 of 0, and 2 are needed (DRIFTLOOP_DATA__FEWEST_ROWS)"
    ]


def test_a_classifier_needs_both_classes_and_nothing_else(world: World) -> None:
    world.base(base().assign(y=1.0))
    assert world.problems() == ["classes: y is the same in all 20 labelled rows"]
    world.base(base().assign(y=[0.0, 2.0, *[1.0] * 18]))
    assert world.problems() == ["classes: y is neither 0 nor 1 in 1 rows"]
    assert world.built(metric="rmse").counts.labelled == 20


def test_a_column_without_any_value_is_named(world: World) -> None:
    world.base(base().assign(x=np.nan))
    assert world.problems() == ["missing values: x has no value in any of 20 rows"]


def test_a_column_that_the_archive_lacks_is_named_where_the_dataset_has_it(world: World) -> None:
    world.base(base())
    world.archive(base(2).assign(c=of([None, None, None, "u"]), whole=[np.nan, np.nan, 1, 1]))
    (problem,) = world.problems()
    assert problem == (
        "missing values: c is missing in 75% of the archive's 4 rows and in 0% of the base dataset's, and 50% more may "
        "be (DRIFTLOOP_DATA__MISSING_SHARE)"
    )
    assert world.built(settings=Data(fewest_rows=2, missing_share=0.75)).counts.archived == 4
    assert world.built(settings=Data(fewest_rows=5)).counts.archived == 4
    world.base(base().assign(c=of([None] * 10 + ["u"] * 10)))
    assert world.built().counts.archived == 4


def test_outcomes_without_a_prediction_are_counted_and_too_many_are_an_error(world: World) -> None:
    world.base(base())
    world.archive(base(2))
    world.told(2)
    assert world.built().counts.unmatched == 2
    assert "2 outcomes have no archived prediction" in str(world.built().counts)
    world.told(2)
    assert world.problems() == [
        "outcomes: 4 of 7 have no prediction in the archive, and 50% of them may (DRIFTLOOP_DATA__UNMATCHED_SHARE)"
    ]
    assert world.built(settings=Data(fewest_rows=8)).counts.unmatched == 4


def test_rows_that_were_archived_twice_are_counted_and_no_error(world: World) -> None:
    world.base(base())
    world.archive(base(2))
    world.archive_again()
    counts = world.built().counts
    assert (counts.archived, counts.repeated, counts.corrected) == (4, 4, 3)


def test_all_that_is_wrong_is_said(world: World) -> None:
    world.base(base().drop(columns="c").assign(y=1.0, x=np.nan, extra=1))
    assert [problem.partition(":")[0] for problem in world.problems(settings=Data(fewest_rows=30))] == [
        *("schema", "schema", "labelled rows", "classes", "missing values")
    ]


def test_a_truncated_base_dataset_is_no_parquet_file(world: World) -> None:
    file = world.folder / "base.parquet"
    base(1_000).to_parquet(file, index=False)
    file.write_bytes(file.read_bytes()[:-1_000])
    world.pushed(file)
    with pytest.raises(UnfitData, match=r"base dataset: it cannot be read: .*No magic bytes"):
        world.built()


def test_a_base_dataset_with_other_bytes_in_the_bucket_than_its_pointer_names_is_not_used(world: World) -> None:
    at = world.base(base())
    world.bucket.write(str(at), world.bucket.read(str(at))[:-10])
    with pytest.raises(UnfitData, match=r"base dataset: .* bytes of another file in place of base\.parquet"):
        world.built()


def test_a_base_dataset_that_is_not_in_the_bucket_is_named_with_its_md5(world: World) -> None:
    at = world.base(base())
    world.bucket.delete(str(at))
    with pytest.raises(UnfitData, match=f"does not have base.parquet with md5 {at.parent.name}{at.name}"):
        world.built()


def test_a_broken_slice_of_the_archive_is_named(world: World) -> None:
    world.base(base())
    world.archive(base(2))
    (path,) = world.bucket.names(f"events/{world.topics.predictions}/")
    world.bucket.write(path, b"PAR1")
    with pytest.raises(UnfitData, match=f"{path} is no Parquet file"):
        world.built()


def test_the_latest_days_with_outcomes_are_held_out_and_what_came_after_them_is_in_neither() -> None:
    rows = pd.concat([days(date(2013, 1, 1), 10), days(date(2013, 1, 11), 2, outcome=np.nan)], ignore_index=True)
    learn, held_out = training_set.split(USE_CASE, rows, held_out_days=3)
    assert sorted(set(USE_CASE.days(learn["at"]))) == [date(2013, 1, n) for n in range(1, 8)]
    assert sorted(set(USE_CASE.days(held_out["at"]))) == [date(2013, 1, n) for n in range(8, 11)]


def test_a_split_without_held_out_days_learns_from_all_that_is_known() -> None:
    learn, held_out = training_set.split(USE_CASE, days(date(2013, 1, 1), 4), held_out_days=0)
    assert (len(learn), len(held_out)) == (8, 0)


def test_too_few_days_are_told_with_the_number_that_is_missing() -> None:
    with pytest.raises(UnfitData, match="at least 3 more days"):
        training_set.split(USE_CASE, days(date(2013, 1, 1), 12), held_out_days=14)


def test_one_class_cannot_be_trained_on() -> None:
    with pytest.raises(UnfitData, match="1 different values in 8"):
        training_set.check(USE_CASE, days(date(2013, 1, 1), 4))


def test_the_champion_must_not_have_learned_from_what_it_is_judged_on() -> None:
    held_out = days(date(2013, 1, 5), 2)
    training_set.check_unseen(USE_CASE, held_out, pd.Timestamp("2013-01-05 11:59", tz="UTC"))
    with pytest.raises(UnfitData, match="2 of 4 held-out rows are not later"):
        training_set.check_unseen(USE_CASE, held_out, pd.Timestamp("2013-01-06 04:00", tz="UTC"))
