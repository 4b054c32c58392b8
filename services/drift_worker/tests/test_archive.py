"""Test events as tables of the archive."""

import tracemalloc
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pandas as pd
import pytest

from drift_worker.windows.archive import read_window, write_slice
from driftloop.archive.tables import outcomes_table, predictions_table
from driftloop.events import Outcome, Prediction, Window
from driftloop.storage.object_store import ObjectStore
from tests.support.archived_rows import archive_rows

pytest_plugins = "tests.support.drift_windows"

AT = datetime(2013, 7, 1, tzinfo=UTC)
OWN_COLUMNS = [
    *("_id", "_row", "_time", "_model", "_version", "_run_id", "_prediction"),
    *("_classes", "_label", "_key", "_context", "_offset"),
]
DAY = date(2013, 7, 1)


def test_predictions_table_has_a_row_per_instance_and_a_column_per_feature() -> None:
    one = Prediction(
        id="a", time=AT, model="m", version="1", features={"x": [1.0, None], "c": ["u", "v"]}, predictions=[0.1, 0.2]
    )
    two = one.model_copy(update={"id": "b", "features": {"x": [3.0], "c": [None]}, "predictions": [0.3]})
    rows = predictions_table([one, two], range(2)).to_pandas()
    assert list(rows.columns) == [*OWN_COLUMNS, "c", "x"]
    assert rows[["_id", "_row", "_prediction"]].values.tolist() == [["a", 0, 0.1], ["a", 1, 0.2], ["b", 0, 0.3]]
    assert rows["x"].isna().tolist() == [False, True, False]
    assert str(rows["_time"].dtype).startswith("datetime64")


def test_predictions_table_has_classes_labels_keys_and_context_as_texts() -> None:
    bare = Prediction(id="a", time=AT, model="m", version="1", features={"key": [1.0]}, predictions=[0.1])
    full = Prediction(
        id="b",
        time=AT,
        model="m",
        version="1",
        features={"key": [2.0, 3.0]},
        predictions=[0.4, 0.6],
        classes=["no", "yes"],
        labels=["yes", "no"],
        keys=["order-17", None],
        context={"key": [1, None], "größe": ["ü", True]},
    )
    numbers = bare.model_copy(update={"id": "c", "classes": [1, 2], "labels": [2]})
    table = predictions_table([bare, full, numbers], range(3)).to_pydict()
    assert table["key"] == [1.0, 2.0, 3.0, 1.0]
    assert table["_key"] == [None, "order-17", None, None]
    assert table["_classes"] == [None, '["no", "yes"]', '["no", "yes"]', "[1, 2]"]
    assert table["_label"] == [None, "yes", "no", "2"]
    assert table["_context"] == [None, '{"key": 1, "größe": "ü"}', '{"key": null, "größe": true}', None]


def test_event_with_thousands_of_columns_does_not_widen_the_others_in_memory() -> None:
    rows = 500
    narrow = Prediction(time=AT, model="m", version="1", features={"x": [1, 2]}, predictions=[0.1, 0.2])
    wide_features = {f"c{number}": [number] for number in range(5_000)}
    wide = Prediction(time=AT, model="m", version="1", features=wide_features, predictions=[0.3])
    events = [*[narrow] * (rows // 2), wide, narrow]
    tracemalloc.start()
    try:
        table = predictions_table(events, range(len(events)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 15 * 2**20  # 500 × 5,000 references to None alone take 20 MB
    assert table["x"].to_pylist() == [*[1, 2] * (rows // 2), None, 1, 2]
    assert table["c17"].to_pylist() == [*[None] * rows, 17, None, None]
    assert (table["x"].type, table["c17"].type) == ("int64", "int64")


def test_window_of_several_slices_has_each_row_of_its_version_once(store: ObjectStore) -> None:
    whole = Window(topic="predictions", partition=0, first_offset=10, last_offset=39)

    def write(first: int, last: int, *names: str, version: str = "1", x: object = None) -> None:
        table = pd.DataFrame({"_id": names, "_row": 0, "_model": "m", "_version": version, "x": x})
        slice_ = Window(topic="predictions", partition=0, first_offset=first, last_offset=last)
        archive_rows(store, slice_, table)

    write(0, 9, "before")
    write(10, 19, "a", "b")
    write(20, 29, "other", version="2", x=1.0)
    write(20, 24, "c", x=2)  # an orphan
    write(30, 39, "c", "d", x=2.5)
    write(30, 49, "orphan")
    rows = read_window(store, whole, "m", "1")
    assert rows["_id"].tolist() == ["a", "b", "c", "d"]
    assert rows["x"].isna().tolist() == [True, True, False, False]
    assert rows["x"].dtype == float
    assert read_window(store, whole, "m", "3").empty
    with pytest.raises(FileNotFoundError):
        read_window(store, whole.model_copy(update={"first_offset": 50, "last_offset": 59}), "m", "1")


def test_window_has_the_rows_of_its_versions_run_only(store: ObjectStore) -> None:
    window = Window(topic="predictions", partition=0, first_offset=0, last_offset=2)
    one = Prediction(id="a", time=AT, model="m", version="1", features={"x": [1.0]}, predictions=[0.1])
    two, three = (one.model_copy(update={"id": run_id, "run_id": run_id}) for run_id in ("first", "second"))
    write_slice(store, window, predictions_table([one, two, three], range(3)), DAY)
    ids = {run_id: read_window(store, window, "m", "1", run_id)["_id"].tolist() for run_id in (None, "first", "gone")}
    assert ids == {None: ["a"], "first": ["first"], "gone": []}


def test_outcomes_table_has_the_key_of_an_outcome_without_an_id() -> None:
    table = outcomes_table([Outcome(time=AT, model="m", key="order-17", outcome=1)], [7]).to_pydict()
    assert {name: cells[0] for name, cells in table.items() if name != "_time"} == {
        **{"_id": None, "_row": None, "_model": "m", "_key": "order-17", "outcome": 1.0, "outcome_label": None},
        "_offset": 7,
    }


def test_outcomes_table_has_a_row_per_outcome() -> None:
    rows = outcomes_table([Outcome(time=AT, prediction_id="a", index=1, outcome=1)], [7]).to_pandas()
    assert rows[["_id", "_row", "outcome"]].values.tolist() == [["a", 1, 1.0]]


def test_predictions_table_holds_versions_with_different_columns() -> None:
    one = Prediction(id="a", time=AT, model="m", version="1", features={"x": [1], "old": [2.0]}, predictions=[0.1])
    two = Prediction(id="b", time=AT, model="m", version="2", features={"x": ["high"], "new": [3]}, predictions=[0.2])
    rows = predictions_table([one, two], range(2)).to_pandas()
    assert rows["x"].tolist() == ["1", "high"]
    assert rows[["old", "new"]].isna().to_numpy().tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize(
    ("cells", "kept"),
    [
        ([1, None, 3], [1, None, 3]),
        ([1, 2.5, None], [1.0, 2.5, None]),
        ([2**60 + 1, 0.5], [float(2**60), 0.5]),
        ([True, None], [True, None]),
        ([True, 1.0], ["True", "1.0"]),
        ([1.0, True], ["1.0", "True"]),
        ([10**30, None], [str(10**30), None]),
        (["a", 1, None], ["a", "1", None]),
        (["a", None], ["a", None]),
        ([None, None], [None, None]),
        ([float("nan"), 1.0], [None, 1.0]),
        ([float("inf"), 1.0], [float("inf"), 1.0]),
    ],
)
def test_predictions_table_column_has_one_type_without_loss(cells: list[Any], kept: list[Any]) -> None:
    event = Prediction(id="a", time=AT, model="m", version="1", features={"x": cells}, predictions=[0.1] * len(cells))
    assert predictions_table([event], range(1))["x"].to_pylist() == kept


def test_predictions_with_several_outputs_become_json() -> None:
    event = Prediction(id="a", time=AT, model="m", version="1", features={}, predictions=[[0.1, 0.9], ["late", "UA"]])
    assert predictions_table([event], range(1))["_prediction"].to_pylist() == ["[0.1, 0.9]", '["late", "UA"]']


def test_labels_beside_probabilities_of_another_version_stay_as_they_are() -> None:
    fields = {"time": AT, "model": "m", "features": {}}
    of_classes = Prediction(id="a", version="1", predictions=[[0.1, 0.9]], classes=["good", "bad"], **fields)
    of_labels = Prediction(id="b", version="2", predictions=["good"], **fields)
    table = predictions_table([of_classes, of_labels], range(2))
    assert table["_prediction"].to_pylist() == ["[0.1, 0.9]", "good"]


def test_archived_times_are_in_utc() -> None:
    new_york = AT.astimezone(timezone(timedelta(hours=-5)))
    event = Prediction(id="a", time=new_york, model="m", version="1", features={}, predictions=[0.1])
    (time,) = predictions_table([event], range(1)).to_pandas()["_time"]
    assert (time, str(time.tz)) == (AT, "UTC")
