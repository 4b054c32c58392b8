"""Events as rows."""

from datetime import UTC, datetime

import pyarrow as pa

from drift_worker.archive import outcome_rows, prediction_rows
from driftloop.events import Outcome, Prediction

AT = datetime(2013, 7, 1, tzinfo=UTC)


def test_predictions_become_a_row_an_instance_with_their_features_in_columns() -> None:
    one = Prediction(
        id="a", time=AT, model="m", version="1", features={"x": [1.0, None], "c": ["u", "v"]}, predictions=[0.1, 0.2]
    )
    two = one.model_copy(update={"id": "b", "features": {"x": [3.0], "c": [None]}, "predictions": [0.3]})
    rows = prediction_rows([one, two])
    assert list(rows.columns) == ["id", "row", "time", "model", "version", "prediction", "c", "x"]
    assert rows[["id", "row", "prediction"]].values.tolist() == [["a", 0, 0.1], ["a", 1, 0.2], ["b", 0, 0.3]]
    assert rows["x"].isna().tolist() == [False, True, False]
    assert str(rows["time"].dtype).startswith("datetime64")


def test_outcomes_become_a_row_each() -> None:
    rows = outcome_rows([Outcome(time=AT, prediction_id="a", index=1, outcome=1)])
    assert rows[["id", "row", "outcome"]].values.tolist() == [["a", 1, 1.0]]


def test_versions_whose_columns_differ_share_a_file() -> None:
    one = Prediction(id="a", time=AT, model="m", version="1", features={"x": [1], "old": [2.0]}, predictions=[0.1])
    two = Prediction(id="b", time=AT, model="m", version="2", features={"x": ["high"], "new": [3]}, predictions=[0.2])
    rows = prediction_rows([one, two])
    pa.Table.from_pandas(rows)
    assert rows["x"].tolist() == ["1", "high"]
    assert rows[["old", "new"]].isna().to_numpy().tolist() == [[False, True], [True, False]]
