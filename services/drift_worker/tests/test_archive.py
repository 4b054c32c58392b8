"""Events as rows."""

from datetime import UTC, datetime

from drift_worker.archive import outcome_rows, prediction_rows
from driftloop.events import Outcome, Prediction

AT = datetime(2013, 7, 1, tzinfo=UTC)


def test_predictions_become_a_row_an_instance_with_their_features_in_columns() -> None:
    one = Prediction(
        id="a", time=AT, model="m", version="1", features={"x": [1.0, None], "c": ["u", "v"]}, predictions=[0.1, 0.2]
    )
    two = one.model_copy(update={"id": "b", "features": {"x": [3.0], "c": [None]}, "predictions": [0.3]})
    rows = prediction_rows([one, two])
    assert list(rows.columns) == ["id", "row", "time", "model", "version", "prediction", "x", "c"]
    assert rows[["id", "row", "prediction"]].values.tolist() == [["a", 0, 0.1], ["a", 1, 0.2], ["b", 0, 0.3]]
    assert rows["x"].isna().tolist() == [False, True, False]
    assert str(rows["time"].dtype).startswith("datetime64")


def test_outcomes_become_a_row_each() -> None:
    rows = outcome_rows([Outcome(time=AT, prediction_id="a", index=1, outcome=1)])
    assert rows[["id", "row", "outcome"]].values.tolist() == [["a", 1, 1.0]]
