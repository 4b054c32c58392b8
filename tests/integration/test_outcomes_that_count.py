"""Which of several reports about a row counts: the same one for a retrain, for the quality, and for ``explain``."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from prometheus_client import REGISTRY

from drift_worker.verdicts.quality_tracker import QualityTracker
from driftloop.archive.tables import outcomes_table, predictions_table
from driftloop.evaluation.quality_settings import QualitySettings
from driftloop.events import Event, Outcome, Prediction, Window, new_event_id
from driftloop.kafka import reader
from driftloop.settings import RegistrySettings, StorageSettings, TopicsSettings
from driftloop.storage import labelled_archive
from driftloop.storage.object_store import ObjectStore
from driftloop_cli.explain_search import outcomes_of
from driftloop_cli.settings import StorageCliSettings
from tests.support.archived_rows import archive_rows
from tests.support.synthetic_usecase import make_use_case

pytestmark = pytest.mark.integration

BEGIN = datetime(2013, 7, 1, 12, tzinfo=UTC)
FUTURE = datetime(2199, 1, 1, tzinfo=UTC) - BEGIN
HOUR = timedelta(hours=1)
Reports = Sequence[tuple[int, timedelta]]
"""Outcomes with the times after the prediction at which they became known, in the order of their arrival."""

CASES: dict[str, tuple[Reports, int]] = {
    "the same twice": ([(1, HOUR), (1, HOUR)], 1),
    "both at one time": ([(1, HOUR), (0, HOUR)], 0),
    "both at one time, the other way around": ([(0, HOUR), (1, HOUR)], 1),
    "a correction": ([(1, HOUR), (0, 2 * HOUR)], 0),
    "out of order": ([(1, 2 * HOUR), (0, HOUR)], 1),
    "from the future": ([(1, FUTURE), (0, HOUR)], 0),
    "from the future alone": ([(1, FUTURE)], 1),
}


class Archive:
    """An archive of topics of its own, and everything that reads outcomes from it."""

    def __init__(self, storage: StorageSettings) -> None:
        name = new_event_id()
        self.store = ObjectStore(storage)
        self.topics = TopicsSettings(predictions=f"predictions-{name}", outcomes=f"outcomes-{name}")
        registry = RegistrySettings(model="m")
        self.cli = StorageCliSettings(topics=self.topics, storage=storage, registry=registry)
        self.use_case = make_use_case()
        self.prediction = Prediction(
            time=BEGIN, model="m", version="1", features={"x": [1.0, 2.0]}, predictions=[0.5, 0.5], classes=[0, 1]
        )
        archive_rows(self.store, self.window("predictions", 0), predictions_table([self.prediction], [0]))

    def window(self, topic: str, number: int) -> Window:
        name = self.topics.name_of(topic)  # type: ignore[arg-type]
        return Window(topic=name, partition=0, first_offset=10 * number, last_offset=10 * number + 9)

    def report(self, number: int, *outcomes: Outcome) -> Window:
        """Archive a slice of outcomes."""
        archive_rows(self.store, self.window("outcomes", number), outcomes_table(outcomes, range(len(outcomes))))
        return self.window("outcomes", number)

    def outcome(self, value: float, known_after: timedelta = HOUR, **changed: Any) -> Outcome:
        named = {"prediction_id": self.prediction.id, "index": 0, **changed}
        return Outcome(time=BEGIN + known_after, outcome=value, **named)

    def tracker(self) -> QualityTracker:
        return QualityTracker(self.store, self.topics, QualitySettings())

    def of_retrain(self) -> list[float]:
        with labelled_archive.open_archive(self.store, self.topics, self.use_case) as labelled:
            rows: list[float] = labelled.read()["y"].tolist()
            return rows

    def of_quality(self) -> list[float]:
        joined: list[float] = self.tracker()._refresh()["outcome"].tolist()
        return joined

    def of_explanation(self) -> float:
        reported = outcomes_of(self.cli, self.store, self.prediction.id)
        return float(reported[reported["_row"] == 0]["outcome"].iloc[-1])


@pytest.fixture
def archived(storage: StorageSettings, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """An archive with one prediction of two rows; nothing is left on the topics."""
    nothing: list[Event] = []
    monkeypatch.setattr(reader, "read_since", lambda *_: nothing)
    return Archive(storage)


@pytest.mark.parametrize("slices", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_the_same_outcome_counts_everywhere(archived: Archive, case: str, slices: int) -> None:
    reports, expected = CASES[case]
    outcomes = [archived.outcome(value, known_after) for value, known_after in reports]
    if slices == 1:
        archived.report(0, *outcomes)
    else:
        for number, outcome in enumerate(outcomes):
            archived.report(number, outcome)
    assert archived.of_retrain() == archived.of_quality() == [expected]
    assert archived.of_explanation() == expected


def test_outcomes_of_rows_that_do_not_exist_are_counted_and_change_nothing(archived: Archive) -> None:
    before = REGISTRY.get_sample_value("driftloop_outcomes_unmatched_total") or 0.0
    window = archived.report(
        0, archived.outcome(1), archived.outcome(0, index=7), archived.outcome(0, prediction_id=new_event_id())
    )
    (verdict,) = archived.tracker().evaluate_slice(window)
    assert (verdict.rows, verdict.unmatched) == (1, 2)
    assert REGISTRY.get_sample_value("driftloop_outcomes_unmatched_total") == before + 2
    with labelled_archive.open_archive(archived.store, archived.topics, archived.use_case) as labelled:
        anomalies = labelled.anomalies()
        rows = labelled.read()
    assert (anomalies.outcomes, anomalies.unmatched) == (3, 2)
    assert rows["y"].tolist() == [1.0]


def test_outcome_that_is_no_class_counts_as_none(archived: Archive) -> None:
    archived.report(0, archived.outcome(2.5), archived.outcome(1, index=1))
    with labelled_archive.open_archive(archived.store, archived.topics, archived.use_case) as labelled:
        assert labelled.anomalies().unknown_labels == 1
        rows: pd.DataFrame = labelled.read()
    assert rows["_row"].tolist() == [1]
