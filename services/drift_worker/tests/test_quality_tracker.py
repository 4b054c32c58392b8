"""Test that outcomes are joined with archived predictions, with equal results after a restart."""

import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from drift_worker.verdicts import quality_tracker
from drift_worker.verdicts.estimate_record import windows_of_slices
from drift_worker.verdicts.gate_comparison import compare_with_gate
from drift_worker.verdicts.quality_tracker import QualityTracker
from driftloop.archive.layout import slice_path
from driftloop.evaluation.bootstrap import evaluate
from driftloop.evaluation.metrics import roc_auc
from driftloop.evaluation.quality_settings import QualitySettings
from driftloop.evaluation.targets import BINARY
from driftloop.events import (
    DriftVerdict,
    Evaluation,
    MetricEstimate,
    QualityVerdict,
    Window,
)
from driftloop.settings import TopicsSettings
from driftloop.storage.object_store import ObjectStore, StoredObject
from driftloop.storage.reference_store import save_gate_evaluation
from tests.support.archived_rows import archive_rows, damage
from tests.support.folder_store import folder_store

pytest_plugins = "tests.support.drift_windows"

BEGIN = datetime(2013, 1, 1, 12, tzinfo=UTC)
ROWS = 100
GATE = Evaluation(
    rows=5000, days=14, resampling_unit="days", metrics={"roc_auc": MetricEstimate(value=0.97, low=0.96, high=0.98)}
)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return folder_store(tmp_path)


def make_tracker(store: ObjectStore, **settings: Any) -> QualityTracker:
    return QualityTracker(
        store, TopicsSettings(), QualitySettings(**{"min_rows": 50, **settings}), listing_interval_seconds=0
    )


class ArchiveBuilder:
    """Archives windows of predictions, one a day, and slices of their outcomes."""

    def __init__(self, store: ObjectStore, seed: int = 0) -> None:
        self.store = store
        self.random = np.random.default_rng(seed)

    def predict(self, day: int, version: str | Sequence[str] = "1", predictions: object = None) -> pd.DataFrame:
        """Archive a window of predictions; return its rows with their future outcomes in a column."""
        chances = self.random.beta(1, 2, ROWS)
        rows = pd.DataFrame(
            {
                "_id": [f"{day}-{row // 2}" for row in range(ROWS)],
                "_row": [row % 2 for row in range(ROWS)],
                "_time": pd.Timestamp(BEGIN + timedelta(days=day)),
                "_model": "m",
                "_version": version,
                "_run_id": None,
                "_prediction": chances if predictions is None else predictions,
                "_classes": "[0, 1]" if predictions is None else None,
                "_key": [f"key-{row}" for row in range(ROWS)],
                "x": 1.0,
            }
        )
        archive_rows(self.store, window("predictions", day), rows)
        return rows.assign(outcome=(self.random.random(ROWS) < chances).astype(float))

    def report(self, day: int, rows: pd.DataFrame, late: float = 1.0) -> Window:
        """Archive a slice of outcomes, known ``late`` days after the predictions."""
        columns = rows[["_id", "_row", "_time", "outcome"]].assign(outcome_label=None, _model=None, _key=None)
        archive_rows(self.store, window("outcomes", day), columns.assign(_time=rows["_time"] + timedelta(days=late)))
        return window("outcomes", day)

    def report_by_key(self, day: int, rows: pd.DataFrame, late: float = 1.0, model: str = "m") -> Window:
        """Archive a slice of outcomes that name the keys of the rows."""
        times = rows["_time"] + timedelta(days=late)
        named = rows[["_key", "outcome"]].assign(_id=None, _row=None, _model=model, _time=times, outcome_label=None)
        archive_rows(self.store, window("outcomes", day), named)
        return window("outcomes", day)


@pytest.fixture
def builder(store: ObjectStore) -> ArchiveBuilder:
    return ArchiveBuilder(store)


def window(topic: str, day: int) -> Window:
    return Window(topic=topic, partition=0, first_offset=day * ROWS, last_offset=(day + 1) * ROWS - 1)


def verdict(day: int, version: str = "1") -> DriftVerdict:
    at = BEGIN + timedelta(days=day)
    about = {
        "model": "m",
        "version": version,
        "rows": ROWS,
        "first_prediction_at": at,
        "last_prediction_at": at,
        "archive": [],
        "explanation": "",
    }
    return DriftVerdict.model_validate({"window": window("predictions", day), "verdict": "no_drift", **about})


def of_predictions(predictions: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"_prediction": predictions, "_classes": "[0, 1]", "_time": pd.Timestamp(BEGIN)})


def unmatched_count() -> float:
    return REGISTRY.get_sample_value("driftloop_outcomes_unmatched_total") or 0.0


def metric_value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"model": "m", "version": "1", **labels})


def only(verdicts: list[QualityVerdict]) -> QualityVerdict:
    (quality,) = verdicts
    return quality


def test_evaluate_slice_joins_outcomes_with_their_predictions(store: ObjectStore, builder: ArchiveBuilder) -> None:
    rows = builder.predict(0)
    quality = only(make_tracker(store).evaluate_slice(builder.report(0, rows.sample(frac=1, random_state=0))))
    assert (quality.model, quality.version, quality.rows, quality.windows) == ("m", "1", ROWS, 1)
    assert quality.first_prediction_at == quality.last_prediction_at == BEGIN
    assert quality.in_service is not None
    expected = roc_auc(rows["outcome"].to_numpy(), rows["_prediction"].to_numpy())
    assert quality.in_service.metrics["roc_auc"].value == pytest.approx(expected, abs=1e-12)
    assert metric_value("driftloop_quality", metric="roc_auc") == quality.in_service.metrics["roc_auc"].value
    assert metric_value("driftloop_quality_low", metric="roc_auc") == quality.in_service.metrics["roc_auc"].low
    assert quality.id == "outcomes-0-000000000000-000000000099/m/1"


def test_evaluate_slice_pools_slices_until_there_are_enough_days(store: ObjectStore, builder: ArchiveBuilder) -> None:
    days = [builder.predict(day) for day in range(9)]
    tracker = make_tracker(store, min_days=7)
    found = [only(tracker.evaluate_slice(builder.report(day, rows))) for day, rows in enumerate(days)]
    assert [one.windows for one in found] == [1, 1, 1, 1, 5, 6, 7, 7, 7]
    assert [one.in_service.resampling_unit for one in found if one.in_service] == ["rows"] * 4 + ["days"] * 5
    assert "too few days to resample: 1" in found[3].explanation
    together = pd.concat(days[2:])
    last = found[-1]
    assert last.in_service is not None
    assert last.in_service == evaluate(
        BINARY, together["outcome"].to_numpy(), together["_prediction"].to_numpy(), np.repeat(np.arange(7), ROWS)
    )
    assert last.first_prediction_at == BEGIN + timedelta(days=2)


def test_restarted_tracker_gives_equal_verdicts_and_estimates(store: ObjectStore, builder: ArchiveBuilder) -> None:
    tracker = make_tracker(store)
    days = [builder.predict(day) for day in range(8)]
    found = [only(tracker.evaluate_slice(builder.report(day, rows))) for day, rows in enumerate(days)][-1]
    again = make_tracker(store)
    assert only(again.evaluate_slice(window("outcomes", 7))).model_copy(update={"time": found.time}) == found
    chances = of_predictions(builder.random.beta(1, 2, ROWS).tolist())
    one, other = (each.estimate(verdict(8), chances) for each in (tracker, make_tracker(store)))
    assert one is not None
    assert other is not None
    assert one.track_record.windows == 8
    assert other.model_copy(update={"time": one.time}) == one


def test_evaluate_slice_uses_the_latest_outcome_of_a_row(store: ObjectStore, builder: ArchiveBuilder) -> None:
    rows = builder.predict(0)
    wrong = rows.assign(outcome=1 - rows["outcome"])
    corrected = pd.concat([rows.assign(_time=rows["_time"] + timedelta(hours=1)), wrong])
    tracker = make_tracker(store)
    right = only(make_tracker(store).evaluate_slice(builder.report(0, rows)))
    within = only(tracker.evaluate_slice(builder.report(0, corrected)))
    assert within.in_service == right.in_service
    tracker.evaluate_slice(builder.report(1, wrong, late=1))
    later = only(tracker.evaluate_slice(builder.report(2, rows, late=2)))  # what an earlier slice said wrongly
    assert later.in_service == right.in_service


def test_outcomes_with_a_key_belong_to_the_latest_row_before_them(store: ObjectStore, builder: ArchiveBuilder) -> None:
    earlier, later = builder.predict(0), builder.predict(2)
    by_id = only(make_tracker(store).evaluate_slice(builder.report(0, earlier)))
    by_key = only(make_tracker(store).evaluate_slice(builder.report_by_key(0, earlier, late=1.5)))
    assert by_key.in_service == by_id.in_service
    assert by_key.unmatched == 0
    by_id = only(make_tracker(store).evaluate_slice(builder.report(0, later, late=0)))
    by_key = only(make_tracker(store).evaluate_slice(builder.report_by_key(0, later, late=0)))
    assert by_key.in_service == by_id.in_service
    assert by_key.first_prediction_at == BEGIN + timedelta(days=2)


def test_outcomes_with_a_key_correct_those_with_an_id(store: ObjectStore, builder: ArchiveBuilder) -> None:
    rows = builder.predict(0)
    right = only(make_tracker(store).evaluate_slice(builder.report(0, rows)))
    tracker = make_tracker(store)
    tracker.evaluate_slice(builder.report(0, rows.assign(outcome=1 - rows["outcome"])))
    corrected = only(tracker.evaluate_slice(builder.report_by_key(1, rows, late=1.5)))
    assert corrected.in_service == right.in_service


def test_outcomes_with_a_key_are_matched_beside_those_of_no_row(store: ObjectStore, builder: ArchiveBuilder) -> None:
    rows = builder.predict(0)
    by_id = only(make_tracker(store).evaluate_slice(builder.report(0, rows, late=1.5)))
    mixed = pd.concat([rows, rows.head(1).assign(_key="nobody's")])
    by_key = only(make_tracker(store).evaluate_slice(builder.report_by_key(0, mixed, late=1.5)))
    assert (by_key.rows, by_key.unmatched) == (ROWS, 1)
    assert by_key.in_service == by_id.in_service


def test_outcomes_with_a_key_of_no_row_are_unmatched(store: ObjectStore, builder: ArchiveBuilder) -> None:
    rows = builder.predict(0)
    tracker = make_tracker(store)
    before = unmatched_count()
    assert tracker.evaluate_slice(builder.report_by_key(0, rows, late=-1)) == []
    assert tracker.evaluate_slice(builder.report_by_key(1, rows, model="another")) == []
    assert unmatched_count() == before + 2 * ROWS


def test_unmatched_outcomes_are_counted_and_matched_by_later_slices(
    store: ObjectStore, builder: ArchiveBuilder
) -> None:
    tracker = make_tracker(store, min_days=1, min_rows=150)
    first = builder.predict(0)
    second = builder.predict(1)
    store.delete(slice_path(window("predictions", 1)))
    before = unmatched_count()
    unknown = second.head(10).assign(_id="of another system")
    quality = only(tracker.evaluate_slice(builder.report(0, pd.concat([first, second.head(70), unknown]))))
    assert quality.unmatched == 72  # of ten outcomes of the same rows of an id, two are different
    assert unmatched_count() - before == 72
    assert (quality.verdict, quality.rows) == ("inconclusive", ROWS)
    archive_rows(store, window("predictions", 1), second.drop(columns="outcome"))
    later = only(tracker.evaluate_slice(builder.report(1, second.tail(30))))
    assert (later.unmatched, later.rows, later.windows) == (0, 2 * ROWS, 2)


def test_slice_with_unmatched_outcomes_only_gives_no_verdict(store: ObjectStore, builder: ArchiveBuilder) -> None:
    rows = builder.predict(0)
    before = unmatched_count()
    assert make_tracker(store).evaluate_slice(builder.report(0, rows.assign(_id="x", _row=range(ROWS)))) == []
    assert unmatched_count() - before == ROWS


def test_outcomes_without_archived_predictions_give_no_verdict(store: ObjectStore, builder: ArchiveBuilder) -> None:
    rows = builder.predict(0)
    store.delete(slice_path(window("predictions", 0)))
    assert make_tracker(store).evaluate_slice(builder.report(0, rows)) == []


def test_evaluate_slice_judges_each_version_by_its_own_rows(store: ObjectStore, builder: ArchiveBuilder) -> None:
    rows = builder.predict(0, version=["1"] * 60 + ["2"] * 40)
    one, two = sorted(make_tracker(store).evaluate_slice(builder.report(0, rows)), key=lambda quality: quality.version)
    assert (one.version, one.rows) == ("1", 60)
    assert one.in_service is not None
    assert one.in_service.rows == 60
    assert (two.version, two.verdict, two.reason, two.in_service) == ("2", "inconclusive", "too_few_rows", None)
    assert two.explanation == "too few rows: 40 with an outcome of at least 50"


def test_predictions_that_are_no_probabilities_have_no_evaluation_or_estimate(
    store: ObjectStore, builder: ArchiveBuilder
) -> None:
    rows = builder.predict(0, predictions=["[0.5, 0.5]"] * ROWS)
    quality = only(make_tracker(store).evaluate_slice(builder.report(0, rows)))
    assert (quality.verdict, quality.reason) == ("inconclusive", "invalid_predictions")
    assert make_tracker(store).estimate(verdict(0), rows) is None
    assert make_tracker(store).estimate(verdict(0), of_predictions([12.5, 80.0] * 50)) is None
    assert make_tracker(store).estimate(verdict(0), of_predictions([0.0, 1.0] * 50)) is None


@pytest.mark.parametrize(
    ("prediction", "classes"),
    [
        pytest.param("[0.1, 0.9]", "[0, 1, 2]", id="too few probabilities"),
        pytest.param("[0.1, 0.2, 0.7]", "[0, 1, 1]", id="doubled class"),
        pytest.param("good", "[0, 1, 2]", id="text"),
        pytest.param("0.5", f"[{', '.join(map(str, range(10_000)))}]", id="another model's classes"),
    ],
)
@pytest.mark.parametrize("others", ["[0.5, 0.25, 0.25]", "[0.25, 0.75]"])
def test_event_without_usable_predictions_has_no_evaluation_or_estimate(
    store: ObjectStore, builder: ArchiveBuilder, prediction: str, classes: str, others: str
) -> None:
    predictions = [*[others] * (ROWS - 2), prediction, prediction]
    rows = builder.predict(0, predictions=predictions)
    rows["_classes"] = [*["[0, 1, 2]"] * (ROWS - 2), classes, classes]
    archive_rows(store, window("predictions", 0), rows.drop(columns="outcome"))
    with capture_logs() as logs:
        assert make_tracker(store).estimate(verdict(0), rows) is None
    (warning,) = [line for line in logs if line["event"] == "quality.invalid_predictions"]
    assert warning["rows"] == (2 if others == "[0.5, 0.25, 0.25]" else ROWS)
    quality = only(make_tracker(store).evaluate_slice(builder.report(0, rows)))
    assert (quality.verdict, quality.reason) == ("inconclusive", "invalid_predictions")


def test_rows_whose_values_make_judging_fail_are_inconclusive_and_logged(
    store: ObjectStore, builder: ArchiveBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = builder.predict(0)
    slice_of_outcomes = builder.report(0, rows)

    def fail(*_: object) -> None:
        raise OverflowError("int too large")

    monkeypatch.setattr(quality_tracker, "score_rows", fail)  # a mock: values that are known to do this are handled
    with capture_logs() as logs:
        assert make_tracker(store).estimate(verdict(0), rows) is None
        quality = only(make_tracker(store).evaluate_slice(slice_of_outcomes))
    assert (quality.verdict, quality.reason) == ("inconclusive", "failed")
    assert quality.explanation == "judging has failed: OverflowError, see the log"
    events = [line["event"] for line in logs if line["log_level"] == "error"]
    assert events == ["quality.estimate_failed", "quality.judging_failed"]


def test_text_among_the_outcomes_of_a_number_is_an_unknown_label(store: ObjectStore, builder: ArchiveBuilder) -> None:
    numbers = np.linspace(10, 60, ROWS)
    rows = builder.predict(0, predictions=numbers)
    columns = rows[["_id", "_row", "_time"]].assign(_model=None, _key=None, outcome=numbers + 1, outcome_label=None)
    columns = columns.astype({"outcome_label": object})
    columns.loc[0, ["outcome", "outcome_label"]] = [None, "n/a"]
    archive_rows(store, window("outcomes", 0), columns)
    quality = only(make_tracker(store).evaluate_slice(window("outcomes", 0)))
    assert quality.unknown_labels == {"n/a": 1}
    assert quality.in_service is not None
    assert quality.in_service.metrics["bias"].value == pytest.approx(-1)


def test_numeric_labels_without_probabilities_are_judged_as_the_classes_of_the_gate(
    store: ObjectStore, builder: ArchiveBuilder
) -> None:
    rows = builder.predict(0, predictions=[1.0, 2.0, 4.0, 4.0] * (ROWS // 4))
    window = builder.report(0, rows.assign(outcome=[1.0, 2.0, 4.0, 2.0] * (ROWS // 4)))
    as_numbers = only(make_tracker(store).evaluate_slice(window)).in_service
    save_gate_evaluation(store, "m", "1", GATE.model_copy(update={"classes": [1, 2, 4]}))
    as_classes = only(make_tracker(store).evaluate_slice(window)).in_service
    assert as_numbers is not None
    assert (as_numbers.classes, "rmse" in as_numbers.metrics) == (None, True)
    assert as_classes is not None
    assert (as_classes.classes, as_classes.metrics["accuracy"].value) == ([1, 2, 4], 0.75)


def test_numbers_are_judged_as_numbers_beside_labels_of_another_model(
    store: ObjectStore, builder: ArchiveBuilder
) -> None:
    numbers = np.linspace(10, 60, ROWS)
    rows = builder.predict(0, predictions=numbers)
    outcomes = rows[["_id", "_row", "_time", "outcome"]].assign(outcome=numbers + 1, outcome_label=None)
    labels = outcomes.assign(_id=[f"other-{row}" for row in range(ROWS)], outcome=None, outcome_label="yes")
    mixed = pd.concat([outcomes.astype({"outcome": object, "outcome_label": object}), labels], ignore_index=True)
    archive_rows(store, window("outcomes", 0), mixed.assign(_model=None, _key=None))
    quality = only(make_tracker(store).evaluate_slice(window("outcomes", 0)))
    assert quality.unknown_labels == {}
    assert quality.in_service is not None
    assert quality.in_service.metrics["bias"].value == pytest.approx(-1)


@pytest.mark.parametrize("is_damaged", [True, False])
def test_deleted_or_unreadable_slice_is_skipped(
    store: ObjectStore, builder: ArchiveBuilder, *, is_damaged: bool
) -> None:
    tracker = make_tracker(store)
    rows = builder.predict(0)
    builder.predict(1)
    assert only(tracker.evaluate_slice(builder.report(0, rows))).rows == ROWS
    store.delete(slice_path(window("predictions", 0)))
    if is_damaged:
        damage(store, slice_path(window("predictions", 1)))
    else:
        store.write(slice_path(window("predictions", 1)), b"no parquet")
    assert tracker.evaluate_slice(window("outcomes", 0)) == []
    assert make_tracker(store).evaluate_slice(window("outcomes", 0)) == []


def test_slices_behind_the_judged_one_do_not_count(store: ObjectStore, builder: ArchiveBuilder) -> None:
    """They can be those of a topic that was deleted and made again, whose offsets begin again at 0."""
    expected = only(make_tracker(store).evaluate_slice(builder.report(1, builder.predict(1))))
    for day in range(100, 140):
        builder.report(day, builder.predict(day))
    found = only(make_tracker(store).evaluate_slice(window("outcomes", 1)))
    assert (found.rows, found.in_service) == (expected.rows, expected.in_service)


def test_prediction_in_two_slices_counts_once(store: ObjectStore, builder: ArchiveBuilder) -> None:
    rows = builder.predict(0)
    archive_rows(store, window("predictions", 1), rows.drop(columns="outcome"))
    quality = only(make_tracker(store).evaluate_slice(builder.report(0, rows)))
    assert (quality.rows, quality.unmatched) == (ROWS, 0)


def test_only_the_lookback_slices_of_predictions_are_read(store: ObjectStore, builder: ArchiveBuilder) -> None:
    days = [builder.predict(day) for day in range(3)]
    slice_of_outcomes = builder.report(0, pd.concat(days))
    quality = only(make_tracker(store, prediction_lookback_slices=2).evaluate_slice(slice_of_outcomes))
    assert (quality.rows, quality.unmatched) == (2 * ROWS, ROWS)


def test_archived_file_is_read_once(
    store: ObjectStore, builder: ArchiveBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    really = ObjectStore.read

    def noted(self: ObjectStore, path: str) -> bytes:
        read.append(path)
        return really(self, path)

    monkeypatch.setattr(ObjectStore, "read", noted)
    tracker = make_tracker(store)
    for day in range(3):
        tracker.evaluate_slice(builder.report(day, builder.predict(day)))
    files = [path for path in read if path.endswith(".parquet")]
    assert len(files) == len(set(files)) == 6


def test_outcomes_that_are_too_few_to_measure_change_no_metric(store: ObjectStore, builder: ArchiveBuilder) -> None:
    names = ("driftloop_quality", "driftloop_quality_low", "driftloop_quality_high")
    assert only(make_tracker(store).evaluate_slice(builder.report(0, builder.predict(0)))).in_service
    measured = [metric_value(name, metric="roc_auc") for name in names]
    few = only(make_tracker(store, min_rows=10 * ROWS).evaluate_slice(builder.report(1, builder.predict(1))))
    assert (few.verdict, few.reason) == ("inconclusive", "too_few_rows")
    assert [metric_value(name, metric="roc_auc") for name in names] == measured


def test_evaluate_slice_compares_with_the_gate(store: ObjectStore, builder: ArchiveBuilder) -> None:
    save_gate_evaluation(store, "m", "1", GATE)
    quality = only(make_tracker(store).evaluate_slice(builder.report(0, builder.predict(0))))
    assert quality.verdict == "degraded"
    assert quality.at_gate == GATE
    assert "0.970 [0.960, 0.980] on 5,000 rows of 14 days at the gate: a difference of -" in quality.explanation
    assert metric_value("driftloop_quality_at_gate", metric="roc_auc") == 0.97


def test_version_without_gate_evaluation_is_inconclusive(store: ObjectStore, builder: ArchiveBuilder) -> None:
    quality = only(make_tracker(store).evaluate_slice(builder.report(0, builder.predict(0))))
    assert (quality.verdict, quality.reason, quality.at_gate) == ("inconclusive", "not_evaluated_at_gate", None)


def test_unreadable_gate_evaluation_is_inconclusive(store: ObjectStore, builder: ArchiveBuilder) -> None:
    store.write("references/m/1/gate_evaluation.json", b'{"rows": ')
    quality = only(make_tracker(store).evaluate_slice(builder.report(0, builder.predict(0))))
    assert (quality.verdict, quality.reason) == ("inconclusive", "unreadable_gate_evaluation")
    assert quality.in_service is not None


def figure(value: float, margin: float) -> MetricEstimate:
    return MetricEstimate(value=value, low=value - margin, high=value + margin)


@pytest.mark.parametrize(
    ("name", "found", "gate", "verdict"),
    [
        ("roc_auc", figure(0.70, 0.02), figure(0.75, 0.02), "degraded"),
        ("roc_auc", figure(0.80, 0.02), figure(0.75, 0.02), "improved"),
        ("roc_auc", figure(0.725, 0.02), figure(0.75, 0.02), "consistent"),  # the gate's figure is unsure too
        ("rmse", figure(15.0, 1.0), figure(10.0, 1.0), "degraded"),
        ("rmse", figure(5.0, 1.0), figure(10.0, 1.0), "improved"),
    ],
)
def test_compare_with_gate_needs_a_difference_beyond_both_intervals(
    name: str, found: MetricEstimate, gate: MetricEstimate, verdict: str
) -> None:
    one, other = (Evaluation(rows=1, days=7, resampling_unit="days", metrics={name: each}) for each in (found, gate))
    assert compare_with_gate(one, other).verdict == verdict


def test_equal_outcomes_are_inconclusive(store: ObjectStore, builder: ArchiveBuilder) -> None:
    save_gate_evaluation(store, "m", "1", GATE)
    quality = only(make_tracker(store).evaluate_slice(builder.report(0, builder.predict(0).assign(outcome=0.0))))
    assert (quality.verdict, quality.reason) == ("inconclusive", "metric_undefined")


def test_estimate_without_track_record_is_not_trusted(store: ObjectStore, builder: ArchiveBuilder) -> None:
    rows = builder.predict(0)
    estimate = make_tracker(store).estimate(verdict(0), rows)
    assert estimate is not None
    assert set(estimate.metrics) == {"roc_auc", "brier", "accuracy"}
    assert (estimate.trusted, estimate.track_record.windows, estimate.track_record.mean_error) == (False, 0, None)
    assert estimate.explanation == "outcomes are known for 0 windows of at least 5"


@pytest.mark.parametrize(("changed", "trusted"), [(False, True), (True, False)])
def test_estimate_is_trusted_if_its_track_record_is_good(
    store: ObjectStore, builder: ArchiveBuilder, changed: bool, trusted: bool
) -> None:
    tracker = make_tracker(store, max_estimate_error=0.05)
    for day in range(12):
        rows = builder.predict(day)
        if changed:  # half of the outcomes have nothing to do with the features any more
            rows.loc[::2, "outcome"] = (builder.random.random(ROWS // 2) < 0.5).astype(float)
        tracker.evaluate_slice(builder.report(day, rows))
    estimate = tracker.estimate(verdict(12), builder.predict(12))
    assert estimate is not None
    assert estimate.track_record.windows == 12
    assert estimate.track_record.mean_error is not None
    assert estimate.track_record.mean_absolute_error is not None
    assert (estimate.track_record.mean_error > 0.05) is changed
    assert estimate.track_record.mean_absolute_error >= abs(estimate.track_record.mean_error)
    assert estimate.trusted is trusted
    assert metric_value("driftloop_quality_estimate_bias", metric="roc_auc") == estimate.track_record.mean_error
    assert metric_value("driftloop_quality_estimate", metric="brier") == estimate.metrics["brier"]


def test_track_record_of_a_version_with_few_rows_in_each_slice_has_windows_of_several_slices(
    store: ObjectStore, builder: ArchiveBuilder
) -> None:
    tracker = make_tracker(store, min_rows=50)
    for day in range(10):
        rows = builder.predict(day, version=["1"] * 75 + ["2"] * 25)
        tracker.evaluate_slice(builder.report(day, rows))
    rows = builder.predict(10)
    spanning = {"first_offset": 9 * ROWS, "last_offset": 11 * ROWS - 1}
    for version, windows in (("1", 9), ("2", 4)):  # without the one that has rows of the window itself
        judged = verdict(10, version)
        judged = judged.model_copy(update={"window": judged.window.model_copy(update=spanning)})
        estimate = tracker.estimate(judged, rows)
        assert estimate is not None
        assert estimate.track_record.windows == windows


def test_slices_are_pooled_within_a_partition_until_they_have_enough_rows() -> None:
    slices = [Window(topic="p", partition=part, first_offset=n, last_offset=n) for part in (2, 10) for n in range(4)]
    counts = pd.Series([1, 2, 5, 1, 1, 1, 1, 2], [each.name for each in slices])
    found = windows_of_slices(counts.sample(frac=1, random_state=0), 3)
    assert [found.get(each.name) for each in slices] == [
        *["p-2-000000000000-000000000001"] * 2,
        *("p-2-000000000002-000000000002", None),
        *["p-10-000000000000-000000000002"] * 3,
        None,
    ]


def test_estimate_needs_enough_rows(store: ObjectStore) -> None:
    assert make_tracker(store).estimate(verdict(0), of_predictions([0.2, 0.8] * 24)) is None
    assert make_tracker(store).estimate(verdict(0), of_predictions([0.2, 0.8] * 25)) is not None


def test_track_record_leaves_out_the_estimated_window(store: ObjectStore, builder: ArchiveBuilder) -> None:
    tracker = make_tracker(store)
    rows = builder.predict(0)
    tracker.evaluate_slice(builder.report(0, rows))
    estimate = tracker.estimate(verdict(0), rows)
    assert estimate is not None
    assert estimate.track_record.windows == 0


def test_predictions_are_in_memory_once_also_while_outcomes_are_joined(
    store: ObjectStore, builder: ArchiveBuilder
) -> None:
    days, copies = 40, 40
    for day in range(days):
        rows = builder.predict(day)
        many = [rows.assign(_id=f"{number}-" + rows["_id"]) for number in range(copies)]
        archive_rows(store, window("predictions", day), pd.concat(many).drop(columns="outcome"))
    rows = rows.assign(_id="0-" + rows["_id"])
    first = builder.report(days, rows)
    make_tracker(store).evaluate_slice(first)  # imports, and what is made on first use
    tracker = make_tracker(store)
    tracemalloc.start()
    try:
        tracker.evaluate_slice(first)
        held, _ = tracemalloc.get_traced_memory()
        second = builder.report(days + 1, rows)
        tracemalloc.reset_peak()
        quality = only(tracker.evaluate_slice(second))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size = 9 * 8 * days * copies * ROWS  # nine columns
    assert quality.rows == ROWS
    assert held < 1.5 * size
    assert peak < 1.8 * size


def test_archive_is_listed_again_only_after_a_while_or_a_rebalance(
    store: ObjectStore, builder: ArchiveBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []
    list_objects = store.list_objects

    def record(prefix: str) -> list[StoredObject]:
        listed.append(prefix)
        return list_objects(prefix)

    monkeypatch.setattr(store, "list_objects", record)
    tracker = QualityTracker(store, TopicsSettings(), QualitySettings(min_rows=50), listing_interval_seconds=1_000)
    assert only(tracker.evaluate_slice(builder.report(0, builder.predict(0)))).rows == ROWS
    of_own = builder.predict(1)
    tracker.on_predictions_archived(window("predictions", 1))
    assert only(tracker.evaluate_slice(builder.report(1, of_own))).unmatched == 0
    assert len(listed) == 2  # predictions and outcomes, at the first evaluation
    of_another_worker = builder.predict(2)
    before = unmatched_count()
    assert tracker.evaluate_slice(builder.report(2, of_another_worker)) == []
    assert unmatched_count() - before == ROWS
    tracker.on_partitions_moved()
    assert only(tracker.evaluate_slice(builder.report(2, of_another_worker))).unmatched == 0
    assert len(listed) == 4
