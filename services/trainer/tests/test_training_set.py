"""The training set: its rows, its checks, and the holdout."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from driftloop.events import DataSelection, new_event_id
from driftloop.settings import StorageSettings, TopicsSettings
from driftloop.storage import dvc
from driftloop.storage.object_store import ObjectStore
from tests.support.synthetic_usecase import make_use_case
from trainer.retrain import holdout as holdout_split
from trainer.retrain import training_set
from trainer.retrain.training_set import InvalidTrainingData, TrainingSet, TrainingSetCounts
from trainer.settings import TrainingDataSettings

pytestmark = pytest.mark.integration

USE_CASE = make_use_case(numeric_features=("x", "whole"), categorical_features=("c",))
FEW_ROWS = TrainingDataSettings(min_labelled_rows=2)
ALL_DATA = DataSelection()
JANUARY, JUNE = date(2013, 1, 1), date(2013, 6, 1)
BEGIN = datetime(2013, 1, 1, tzinfo=UTC)


def days(first: date, count: int, outcome: float = 0.0) -> pd.DataFrame:
    """Return two rows per day, one of them before midnight in New York, which is the next day in UTC."""
    start = datetime(first.year, first.month, first.day, tzinfo=UTC)
    at = [start + timedelta(days=n, hours=hour) for n in range(count) for hour in (12, 27)]
    return pd.DataFrame({"at": pd.to_datetime(at, utc=True), "x": np.arange(2.0 * count), "y": outcome})


def base(count: int = 10) -> pd.DataFrame:
    """Return days of January; the last row has no outcome."""
    rows = days(JANUARY, count).assign(whole=1, c="u")[["at", "x", "whole", "c", "y"]]
    rows["y"] = [0.0, 1.0] * (count - 1) + [1.0, np.nan]
    return rows


class DatasetFixture:
    """A base dataset under DVC and an archive in a bucket, both of one test."""

    def __init__(self, storage: StorageSettings, folder: Path) -> None:
        self.storage, self.store, self.folder = storage, ObjectStore(storage), folder
        name = new_event_id()
        self.topics = TopicsSettings(predictions=f"predictions-{name}", outcomes=f"outcomes-{name}")
        self.use_case = replace(USE_CASE, dvc_file=folder / "base.parquet.dvc")
        self._slices = 0

    def push_base(self, rows: pd.DataFrame) -> Path:
        """Push a base dataset to the bucket; return its path there."""
        file = self.folder / "base.parquet"
        rows.to_parquet(file, index=False)
        return self.push(file)

    def push(self, file: Path) -> Path:
        """Push a file as the base dataset; return its path in the bucket."""
        pointer = dvc.push(self.storage, file)
        self.use_case.dvc_file.write_text(pointer)
        digest = dvc.parse_pointer(pointer).md5
        return Path(dvc.REMOTE_PREFIX, "files", "md5", digest[:2], digest[2:])

    def archive(self, rows: pd.DataFrame) -> None:
        """Archive rows as predictions, with outcomes a week later."""
        self._slices += 1
        ids = [f"{self._slices}-{place}" for place in range(len(rows))]
        answers = rows.drop(columns="y").rename(columns={"at": "_time"})
        answers = answers.assign(_id=ids, _row=0, _model="m", _version="1", _prediction=0.5)
        outcomes = pd.DataFrame({"_id": ids, "_row": 0, "_time": rows["at"] + timedelta(days=7), "outcome": rows["y"]})
        for topic, frame in ((self.topics.predictions, answers), (self.topics.outcomes, outcomes[rows["y"].notna()])):
            self.store.write_parquet(self._path(topic), frame)

    def archive_again(self) -> None:
        """Archive everything a second time."""
        for topic in (self.topics.predictions, self.topics.outcomes):
            for path, *_ in self.store.list_objects(f"slices/{topic}/"):
                self.store.write(path.replace(f"{topic}-0-", f"{topic}-1-"), self.store.read(path))

    def archive_unmatched_outcomes(self, count: int) -> None:
        """Archive outcomes without a prediction."""
        self._slices += 1
        rows = pd.DataFrame({"_id": [new_event_id() for _ in range(count)], "_row": 0, "_time": BEGIN, "outcome": 1.0})
        self.store.write_parquet(self._path(self.topics.outcomes), rows)

    def _path(self, topic: str) -> str:
        first = self._slices * 10_000
        return f"slices/{topic}/{topic}-0-{first:012}-{first + 9_999:012}.parquet"

    def build(
        self, selection: DataSelection = ALL_DATA, settings: TrainingDataSettings = FEW_ROWS, **changed: Any
    ) -> TrainingSet:
        """Build a training set in a folder of its own."""
        folder = self.folder / new_event_id()
        folder.mkdir()
        use_case = replace(self.use_case, **changed)
        return training_set.build(self.storage, self.store, self.topics, use_case, selection, settings, folder)

    def problems(
        self, selection: DataSelection = ALL_DATA, settings: TrainingDataSettings = FEW_ROWS, **changed: Any
    ) -> list[str]:
        """Return the problems of a training set that cannot be built."""
        with pytest.raises(InvalidTrainingData) as error:
            self.build(selection, settings, **changed)
        return str(error.value).split("; ")


def series(cells: list[str | None]) -> pd.Series:
    return pd.Series(cells, dtype=object)


@pytest.fixture
def dataset(storage: StorageSettings, tmp_path: Path) -> DatasetFixture:
    return DatasetFixture(storage, tmp_path)


def test_training_set_merges_base_and_archive_in_order_of_time(dataset: DatasetFixture) -> None:
    dataset.push_base(base(3))
    dataset.archive(base(2).assign(at=lambda rows: rows["at"] + timedelta(days=1), x=-1.0))
    result = dataset.build()
    assert result.archived_through == BEGIN + timedelta(days=3, hours=3)
    assert dataset.build(DataSelection(archive=False)).archived_through is None
    rows = training_set.read(result.path)
    assert rows["at"].is_monotonic_increasing
    assert rows["x"].tolist() == [0.0, 1.0, 2.0, -1.0, 3.0, -1.0, 4.0, -1.0, 5.0, -1.0]
    assert rows["y"].fillna(-1).tolist() == [0, 1, 0, 0, 1, 1, 1, 1, -1, -1]
    assert result.counts == TrainingSetCounts(
        rows=10, labelled=8, archived=4, archived_labelled=3, outcomes=3, unmatched=0, corrected=0, repeated=0
    )


def test_training_set_has_types_of_base_dataset(dataset: DatasetFixture) -> None:
    dataset.push_base(base().astype({"whole": "int16"}))
    dataset.archive(base(2).assign(whole=[1.0, 2.0, np.nan, 4.0], c=None))
    kinds = pq.read_schema(
        dataset.build(settings=TrainingDataSettings(max_missing_rate_increase=1, min_labelled_rows=2)).path
    )
    assert kinds.names == ["at", "x", "whole", "c", "y"]
    assert [str(kind) for kind in kinds.types] == ["timestamp[ns, tz=UTC]", "double", "int16", "string", "double"]


def test_training_set_is_restored_by_its_pointer(dataset: DatasetFixture, tmp_path: Path) -> None:
    dataset.push_base(base())
    result = dataset.build()
    assert result.artifact == "dataset/m.parquet.dvc"
    back = dvc.pull(dataset.storage, dvc.push(dataset.storage, result.path), tmp_path / "back")
    assert back.name == "m.parquet"
    assert back.read_bytes() == result.path.read_bytes()


def test_training_set_has_same_bytes_for_same_rows(dataset: DatasetFixture) -> None:
    dataset.push_base(base())
    dataset.archive(base(2))
    assert dataset.build().path.read_bytes() == dataset.build().path.read_bytes()


def test_training_set_can_become_base_dataset(dataset: DatasetFixture) -> None:
    dataset.push_base(base())
    result = dataset.build()
    dataset.push(result.path)
    assert dataset.build().path.read_bytes() == result.path.read_bytes()


def test_training_set_selects_days_in_use_case_time_zone_and_base_end_bounds_base_only(dataset: DatasetFixture) -> None:
    dataset.push_base(base(10))
    dataset.archive(base(10).assign(at=lambda rows: rows["at"] + timedelta(minutes=1), x=lambda rows: rows["x"] + 100))
    selection = DataSelection(start=date(2013, 1, 3), base_end=date(2013, 1, 5), exclude_days=[date(2013, 1, 4)])
    assert training_set.read(dataset.build(selection).path)["x"].tolist() == [
        *(4.0, 104.0, 5.0, 105.0),
        *(108.0, 109.0, 110.0, 111.0, 112.0, 113.0, 114.0, 115.0, 116.0, 117.0, 118.0, 119.0),
    ]


def test_training_set_last_rows_counts_base_and_archive_together(dataset: DatasetFixture) -> None:
    dataset.push_base(base(3))
    dataset.archive(base(2).assign(x=lambda rows: rows["x"] + 100))
    result = dataset.build(DataSelection(last_rows=5))
    assert training_set.read(result.path)["x"].tolist() == [101.0, 2.0, 102.0, 3.0, 103.0, 4.0, 5.0]
    assert result.counts.labelled == 5
    assert dataset.build(DataSelection(last_rows=100)).counts.labelled == 8


def test_training_set_without_archive_does_not_read_it(dataset: DatasetFixture) -> None:
    dataset.push_base(base(3))
    dataset.archive(base(2).assign(x="far"))
    assert dataset.build(DataSelection(archive=False)).counts == TrainingSetCounts(6, 5, 0, 0, 0, 0, 0, 0)


def test_training_set_reports_renamed_column(dataset: DatasetFixture) -> None:
    dataset.push_base(base().rename(columns={"x": "miles"}))
    assert dataset.problems() == ["schema: the base dataset has no x (and the use case does not name its miles)"]


def test_training_set_leaves_out_columns_that_the_use_case_does_not_name(dataset: DatasetFixture) -> None:
    dataset.push_base(base(3).assign(order_id="a", note=None))
    rows = training_set.read(dataset.build(DataSelection(archive=False)).path)
    assert list(rows.columns) == ["at", "x", "whole", "c", "y"]


def test_training_set_has_columns_of_subgroups_from_base_dataset_and_context(dataset: DatasetFixture) -> None:
    dataset.push_base(base().assign(shop="old town"))
    dataset.archive(days(JUNE, 1).assign(whole=1, c="u", _context='{"shop": "harbour", "page": 7}'))
    rows = training_set.read(dataset.build(subgroup_columns=("c", "shop", "page")).path)
    assert list(rows.columns) == ["at", "x", "whole", "c", "shop", "page", "y"]
    assert rows["shop"].tolist() == ["old town"] * 20 + ["harbour"] * 2
    assert rows["page"].tolist() == [None] * 20 + ["7"] * 2


def test_training_set_counts_values_of_wrong_type(dataset: DatasetFixture) -> None:
    dataset.push_base(base().assign(x=["far", "2.5", *["1"] * 18]))
    dataset.archive(base(2).assign(whole=[1.0, 2.5, 3.0, np.nan]))
    assert dataset.problems() == [
        "schema: 1 value of x in the base dataset is no number, such as 'far'",
        "schema: 1 value of whole in the archive is no whole number, such as '2.5'",
    ]


def test_training_set_reports_too_few_labelled_rows(dataset: DatasetFixture) -> None:
    dataset.push_base(base())
    assert dataset.problems(settings=TrainingDataSettings(min_labelled_rows=30)) == [
        "labelled rows: 19 of 20, and 30 are needed (DRIFTLOOP_DATA__MIN_LABELLED_ROWS)"
    ]
    assert dataset.problems(DataSelection(start=JUNE)) == [
        "labelled rows: 0 of 0, and 2 are needed (DRIFTLOOP_DATA__MIN_LABELLED_ROWS)"
    ]


def test_training_set_of_classifier_needs_both_classes_and_no_others(dataset: DatasetFixture) -> None:
    dataset.push_base(base().assign(y=1.0))
    assert dataset.problems() == ["classes: y is the same in all 20 labelled rows"]
    dataset.push_base(base().assign(y=[0.0, 2.0, *[1.0] * 18]))
    (problem,) = dataset.problems()
    assert problem.startswith("classes: y is 2.0 in 1 rows, and the classes of the use case are 0, 1: ")
    assert dataset.build(classes=None).counts.labelled == 20


def test_training_set_reports_column_without_values(dataset: DatasetFixture) -> None:
    dataset.push_base(base().assign(x=np.nan))
    assert dataset.problems() == ["missing values: x has no value in any of 20 rows"]


def test_training_set_reports_column_missing_more_often_in_archive(dataset: DatasetFixture) -> None:
    dataset.push_base(base())
    dataset.archive(base(2).assign(c=series([None, None, None, "u"]), whole=[np.nan, np.nan, 1, 1]))
    (problem,) = dataset.problems()
    assert problem == (
        "missing values: c is missing in 75% of the archive's 4 rows and in 0% of the base dataset's, "
        "and at most 50% more "
        "is allowed (DRIFTLOOP_DATA__MAX_MISSING_RATE_INCREASE)"
    )
    assert (
        dataset.build(
            settings=TrainingDataSettings(min_labelled_rows=2, max_missing_rate_increase=0.75)
        ).counts.archived
        == 4
    )
    assert dataset.build(settings=TrainingDataSettings(min_labelled_rows=5)).counts.archived == 4
    dataset.push_base(base().assign(c=series([None] * 10 + ["u"] * 10)))
    assert dataset.build().counts.archived == 4


def test_training_set_counts_unmatched_outcomes_and_rejects_too_many(dataset: DatasetFixture) -> None:
    dataset.push_base(base())
    dataset.archive(base(2))
    dataset.archive_unmatched_outcomes(2)
    assert dataset.build().counts.unmatched == 2
    assert "2 outcomes have no archived prediction" in str(dataset.build().counts)
    dataset.archive_unmatched_outcomes(2)
    assert dataset.problems() == [
        "outcomes: 4 of 7 have no prediction in the archive, and at most 50% may have none "
        "(DRIFTLOOP_DATA__MAX_UNMATCHED_RATIO)"
    ]
    assert dataset.build(settings=TrainingDataSettings(min_labelled_rows=8)).counts.unmatched == 4


def test_training_set_counts_repeated_rows(dataset: DatasetFixture) -> None:
    dataset.push_base(base())
    dataset.archive(base(2))
    dataset.archive_again()
    counts = dataset.build().counts
    assert (counts.archived, counts.repeated, counts.corrected) == (4, 4, 3)


def test_training_set_reports_all_problems(dataset: DatasetFixture) -> None:
    dataset.push_base(base().drop(columns="c").assign(y=1.0, x=np.nan, extra=1))
    assert [
        problem.partition(":")[0] for problem in dataset.problems(settings=TrainingDataSettings(min_labelled_rows=30))
    ] == [*("schema", "labelled rows", "classes", "missing values")]


def test_training_set_rejects_truncated_base_dataset(dataset: DatasetFixture) -> None:
    file = dataset.folder / "base.parquet"
    base(1_000).to_parquet(file, index=False)
    file.write_bytes(file.read_bytes()[:-1_000])
    dataset.push(file)
    with pytest.raises(InvalidTrainingData, match=r"base dataset: it cannot be read: .*No magic bytes"):
        dataset.build()


def test_training_set_rejects_base_dataset_with_other_bytes(dataset: DatasetFixture) -> None:
    at = dataset.push_base(base())
    dataset.store.write(str(at), dataset.store.read(str(at))[:-10])
    with pytest.raises(InvalidTrainingData, match=r"base dataset: .* has another file in place of base\.parquet"):
        dataset.build()


def test_training_set_names_missing_base_dataset_by_md5(dataset: DatasetFixture) -> None:
    at = dataset.push_base(base())
    dataset.store.delete(str(at))
    with pytest.raises(InvalidTrainingData, match=f"does not have base.parquet with md5 {at.parent.name}{at.name}"):
        dataset.build()


def test_training_set_names_broken_archive_slice(dataset: DatasetFixture) -> None:
    dataset.push_base(base())
    dataset.archive(base(2))
    ((path, *_),) = dataset.store.list_objects(f"slices/{dataset.topics.predictions}/")
    dataset.store.write(path, b"PAR1")
    with pytest.raises(InvalidTrainingData, match=f"{path} is not a readable Parquet file"):
        dataset.build()


def test_split_holds_out_latest_days_with_outcomes_and_drops_later_rows() -> None:
    rows = pd.concat([days(date(2013, 1, 1), 10), days(date(2013, 1, 11), 2, outcome=np.nan)], ignore_index=True)
    train, holdout = holdout_split.split(USE_CASE, rows, holdout_days=3)
    assert sorted(set(USE_CASE.local_dates(train["at"]))) == [date(2013, 1, n) for n in range(1, 8)]
    assert sorted(set(USE_CASE.local_dates(holdout["at"]))) == [date(2013, 1, n) for n in range(8, 11)]


def test_split_without_holdout_trains_on_all_labelled_days() -> None:
    train, holdout = holdout_split.split(USE_CASE, days(date(2013, 1, 1), 4), holdout_days=0)
    assert (len(train), len(holdout)) == (8, 0)


def test_split_reports_number_of_missing_days() -> None:
    with pytest.raises(InvalidTrainingData, match="at least 3 more days"):
        holdout_split.split(USE_CASE, days(date(2013, 1, 1), 12), holdout_days=14)


def test_require_two_classes_rejects_single_class() -> None:
    with pytest.raises(InvalidTrainingData, match="1 different values in 8"):
        holdout_split.require_two_classes(USE_CASE, days(date(2013, 1, 1), 4))


@pytest.mark.parametrize(
    ("trained_through", "with_archive", "message"),
    [
        ("2013-01-06 04:00", True, "2 of 4 holdout rows are not later"),
        ("2013-01-08", True, "no outcome of a later prediction is archived yet"),
        ("2013-01-08", False, "select the archive"),
    ],
    ids=["some rows", "all rows", "all rows, without the archive"],
)
def test_require_unseen_holdout_rejects_rows_the_champion_was_trained_on(
    trained_through: str, with_archive: bool, message: str
) -> None:
    holdout = days(date(2013, 1, 5), 2)
    with pytest.raises(InvalidTrainingData, match=message):
        holdout_split.require_unseen_holdout(
            USE_CASE, holdout, pd.Timestamp(trained_through, tz="UTC"), with_archive=with_archive
        )


def test_require_unseen_holdout_accepts_rows_after_the_champions() -> None:
    trained_through = pd.Timestamp("2013-01-05 11:59", tz="UTC")
    holdout_split.require_unseen_holdout(USE_CASE, days(date(2013, 1, 5), 2), trained_through, with_archive=True)


def test_what_may_be_missing_does_not_depend_on_the_selection(dataset: DatasetFixture) -> None:
    rows = base(4)
    rows["x"] = [np.nan, *rows["x"][1:]]
    rows["whole"] = pd.array([pd.NA, *rows["whole"][1:]], dtype="Int64")
    dataset.push_base(rows)
    everything, later = dataset.build(), dataset.build(DataSelection(start=date(2013, 1, 3)))
    assert everything.optional_features == later.optional_features == {"x", "whole"}
    frame = training_set.read(later.path, later.optional_features)
    assert not frame[["x", "whole"]].isna().any(axis=None)
    assert frame.dtypes[["x", "whole"]].astype(str).tolist() == ["float64", "float64"]
    assert training_set.read(later.path)["whole"].dtype == "int64"


def test_use_case_says_what_may_be_missing(dataset: DatasetFixture) -> None:
    dataset.push_base(base(3))
    assert dataset.build().optional_features == frozenset()
    assert dataset.build(optional_features=("c",)).optional_features == {"c"}
    rows = base(3)
    rows["x"] = [np.nan, *rows["x"][1:]]
    dataset.push_base(rows)
    (problem,) = dataset.problems(optional_features=("c",))
    assert problem.startswith("missing values: x is missing in 1 of 6 rows")
