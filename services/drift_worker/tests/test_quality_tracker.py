"""Outcomes meet their predictions in the archive; what comes of it is the same after a restart."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prometheus_client import REGISTRY

from drift_worker.settings import QualitySettings
from drift_worker.verdicts.quality_tracker import QualityTracker, compare_with_gate
from drift_worker.verdicts.window_judge import WindowJudge
from drift_worker.windows import archive
from drift_worker.windows.committed_slices import CommittedSlices
from drift_worker.windows.orphan_cleanup import ArchiveCleaner
from drift_worker.windows.recent_windows import RecentWindows
from drift_worker.windows.slicer import Slicer
from drift_worker.worker import Worker
from driftloop.evaluation.bootstrap import evaluate
from driftloop.evaluation.metrics import roc_auc
from driftloop.events import (
    DriftVerdict,
    Evaluation,
    MetricEstimate,
    Outcome,
    Prediction,
    QualityEstimate,
    QualityVerdict,
    Window,
)
from driftloop.kafka.consumer_loop import Commit, ConsumedMessage
from driftloop.settings import TopicsSettings, WindowSettings
from driftloop.storage.bucket import Bucket
from driftloop.storage.reference_store import save_gate_evaluation
from tests.support.drift_windows import Folder

pytest_plugins = "tests.support.drift_windows"

BEGIN = datetime(2013, 1, 1, 12, tzinfo=UTC)
ROWS = 100
GATE = Evaluation(
    rows=5000, days=14, resampling_unit="days", metrics={"roc_auc": MetricEstimate(value=0.97, low=0.96, high=0.98)}
)


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Folder(tmp_path)


def qualities(bucket: Bucket, **settings: Any) -> QualityTracker:
    return QualityTracker(bucket, TopicsSettings(), QualitySettings(**{"min_rows": 50, **settings}))


class Life:
    """Windows of predictions, a day each, and slices of their outcomes, in the archive."""

    def __init__(self, bucket: Bucket, seed: int = 0) -> None:
        self.bucket = bucket
        self.random = np.random.default_rng(seed)

    def asked(self, day: int, version: str | Sequence[str] = "1", predictions: object = None) -> pd.DataFrame:
        """A window of predictions and, in a column, what will come of them."""
        chances = self.random.beta(1, 2, ROWS)
        rows = pd.DataFrame(
            {
                "id": [f"{day}-{row // 2}" for row in range(ROWS)],
                "row": [row % 2 for row in range(ROWS)],
                "time": pd.Timestamp(BEGIN + timedelta(days=day)),
                "model": "m",
                "version": version,
                "prediction": chances if predictions is None else predictions,
                "x": 1.0,
            }
        )
        archive.write_slice(self.bucket, window("predictions", day), rows)
        return rows.assign(outcome=(self.random.random(ROWS) < chances).astype(float))

    def told(self, day: int, rows: pd.DataFrame, late: float = 1.0) -> Window:
        """A slice of outcomes."""
        columns = rows[["id", "row", "time", "outcome"]]
        archive.write_slice(
            self.bucket, window("outcomes", day), columns.assign(time=rows["time"] + timedelta(days=late))
        )
        return window("outcomes", day)


@pytest.fixture
def life(bucket: Bucket) -> Life:
    return Life(bucket)


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
        "archive": "",
        "explanation": "",
    }
    return DriftVerdict.model_validate({"window": window("predictions", day), "verdict": "no_drift", **about})


def unmatched() -> float:
    return REGISTRY.get_sample_value("driftloop_outcomes_unmatched_total") or 0.0


def shown(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"model": "m", "version": "1", **labels})


def only(found: list[QualityVerdict]) -> QualityVerdict:
    (quality,) = found
    return quality


def test_outcomes_are_measured_with_the_predictions_that_they_are_of(bucket: Bucket, life: Life) -> None:
    rows = life.asked(0)
    quality = only(qualities(bucket).evaluate_slice(life.told(0, rows.sample(frac=1, random_state=0))))
    assert (quality.model, quality.version, quality.rows, quality.windows) == ("m", "1", ROWS, 1)
    assert quality.first_prediction_at == quality.last_prediction_at == BEGIN
    assert quality.in_service is not None
    expected = roc_auc(rows["outcome"].to_numpy(), rows["prediction"].to_numpy())
    assert quality.in_service.metrics["roc_auc"].value == pytest.approx(expected, abs=1e-12)
    assert shown("driftloop_quality", metric="roc_auc") == quality.in_service.metrics["roc_auc"].value
    assert shown("driftloop_quality_low", metric="roc_auc") == quality.in_service.metrics["roc_auc"].low
    assert quality.id == "outcomes-0-000000000000-000000000099/m/1"


def test_slices_are_measured_together_until_they_have_enough_days(bucket: Bucket, life: Life) -> None:
    days = [life.asked(day) for day in range(9)]
    working = qualities(bucket, min_days=7)
    found = [only(working.evaluate_slice(life.told(day, rows))) for day, rows in enumerate(days)]
    assert [one.windows for one in found] == [1, 1, 1, 1, 5, 6, 7, 7, 7]
    assert [one.in_service.resampling_unit for one in found if one.in_service] == ["rows"] * 4 + ["days"] * 5
    assert "too few days" in found[3].explanation
    together = pd.concat(days[2:])
    last = found[-1]
    assert last.in_service is not None
    assert last.in_service == evaluate(
        together["outcome"].to_numpy(), together["prediction"].to_numpy(), np.repeat(np.arange(7), ROWS)
    )
    assert last.first_prediction_at == BEGIN + timedelta(days=2)


def test_a_restarted_worker_finds_the_same(bucket: Bucket, life: Life) -> None:
    working = qualities(bucket)
    days = [life.asked(day) for day in range(8)]
    found = [only(working.evaluate_slice(life.told(day, rows))) for day, rows in enumerate(days)][-1]
    again = qualities(bucket)
    assert only(again.evaluate_slice(window("outcomes", 7))).model_copy(update={"time": found.time}) == found
    chances = pd.Series(life.random.beta(1, 2, ROWS))
    one, other = (each.estimate(verdict(8), chances) for each in (working, qualities(bucket)))
    assert one is not None
    assert other is not None
    assert one.track_record.windows == 8
    assert other.model_copy(update={"time": one.time}) == one


def test_the_last_known_outcome_of_a_row_counts(bucket: Bucket, life: Life) -> None:
    rows = life.asked(0)
    wrong = rows.assign(outcome=1 - rows["outcome"])
    corrected = pd.concat([rows.assign(time=rows["time"] + timedelta(hours=1)), wrong])
    working = qualities(bucket)
    right = only(qualities(bucket).evaluate_slice(life.told(0, rows)))
    within = only(working.evaluate_slice(life.told(0, corrected)))
    assert within.in_service == right.in_service
    working.evaluate_slice(life.told(1, wrong, late=1))
    later = only(working.evaluate_slice(life.told(2, rows, late=2)))  # what an earlier slice said wrongly
    assert later.in_service == right.in_service


def test_outcomes_without_a_prediction_are_counted_and_looked_for_again(bucket: Bucket, life: Life) -> None:
    working = qualities(bucket, min_days=1, min_rows=150)
    first = life.asked(0)
    second = life.asked(1)
    bucket.delete(archive.slice_path(window("predictions", 1)))
    before = unmatched()
    unknown = second.head(10).assign(id="of another system")
    quality = only(working.evaluate_slice(life.told(0, pd.concat([first, second.head(70), unknown]))))
    assert quality.unmatched == 72  # of ten outcomes of the same rows of an id, two are different
    assert unmatched() - before == 72
    assert (quality.verdict, quality.rows) == ("inconclusive", ROWS)
    archive.write_slice(bucket, window("predictions", 1), second.drop(columns="outcome"))
    later = only(working.evaluate_slice(life.told(1, second.tail(30))))
    assert (later.unmatched, later.rows, later.windows) == (0, 2 * ROWS, 2)


def test_outcomes_of_unknown_ids_alone_are_no_verdict_and_no_fault(bucket: Bucket, life: Life) -> None:
    rows = life.asked(0)
    before = unmatched()
    assert qualities(bucket).evaluate_slice(life.told(0, rows.assign(id="x", row=range(ROWS)))) == []
    assert unmatched() - before == ROWS


def test_outcomes_before_there_is_any_archived_prediction_are_unmatched(bucket: Bucket, life: Life) -> None:
    rows = life.asked(0)
    bucket.delete(archive.slice_path(window("predictions", 0)))
    assert qualities(bucket).evaluate_slice(life.told(0, rows)) == []


def test_each_version_of_a_slice_is_measured_with_its_own_rows(bucket: Bucket, life: Life) -> None:
    rows = life.asked(0, version=["1"] * 60 + ["2"] * 40)
    one, two = sorted(qualities(bucket).evaluate_slice(life.told(0, rows)), key=lambda quality: quality.version)
    assert (one.version, one.rows) == ("1", 60)
    assert one.in_service is not None
    assert one.in_service.rows == 60
    assert (two.version, two.verdict, two.in_service) == ("2", "inconclusive", None)
    assert two.explanation == "too few rows: 40 with an outcome, and 50 are needed"


def test_predictions_that_are_no_numbers_are_not_measured_and_promise_nothing(bucket: Bucket, life: Life) -> None:
    rows = life.asked(0, predictions=["[0.5, 0.5]"] * ROWS)
    quality = only(qualities(bucket).evaluate_slice(life.told(0, rows)))
    assert (quality.verdict, quality.explanation) == ("inconclusive", "its predictions are not one number a row")
    assert qualities(bucket).estimate(verdict(0), rows["prediction"]) is None
    assert qualities(bucket).estimate(verdict(0), pd.Series([12.5, 80.0] * 50)) is None
    assert qualities(bucket).estimate(verdict(0), pd.Series([0.0, 1.0] * 50)) is None


def test_a_slice_that_was_cleared_or_cannot_be_read_is_left_out(bucket: Bucket, life: Life) -> None:
    working = qualities(bucket)
    rows = life.asked(0)
    life.asked(1)
    assert only(working.evaluate_slice(life.told(0, rows))).rows == ROWS
    bucket.delete(archive.slice_path(window("predictions", 0)))
    bucket.write(archive.slice_path(window("predictions", 1)), b"no parquet")
    assert working.evaluate_slice(window("outcomes", 0)) == []
    assert qualities(bucket).evaluate_slice(window("outcomes", 0)) == []


def test_an_answer_that_two_slices_hold_counts_once(bucket: Bucket, life: Life) -> None:
    rows = life.asked(0)
    archive.write_slice(bucket, window("predictions", 1), rows.drop(columns="outcome"))
    quality = only(qualities(bucket).evaluate_slice(life.told(0, rows)))
    assert (quality.rows, quality.unmatched) == (ROWS, 0)


def test_only_so_many_slices_are_kept(bucket: Bucket, life: Life) -> None:
    days = [life.asked(day) for day in range(3)]
    told = life.told(0, pd.concat(days))
    quality = only(qualities(bucket, prediction_lookback_slices=2).evaluate_slice(told))
    assert (quality.rows, quality.unmatched) == (2 * ROWS, ROWS)


def test_a_file_is_read_once(bucket: Bucket, life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    really = Folder.read

    def noted(self: Folder, path: str) -> bytes:
        read.append(path)
        return really(self, path)

    monkeypatch.setattr(Folder, "read", noted)
    working = qualities(bucket)
    for day in range(3):
        working.evaluate_slice(life.told(day, life.asked(day)))
    files = [path for path in read if path.endswith(".parquet")]
    assert len(files) == len(set(files)) == 6


def test_quality_is_compared_with_what_the_gate_measured(bucket: Bucket, life: Life) -> None:
    save_gate_evaluation(bucket, "m", "1", GATE)
    quality = only(qualities(bucket).evaluate_slice(life.told(0, life.asked(0))))
    assert quality.verdict == "degraded"
    assert quality.at_gate == GATE
    assert "0.970 [0.960, 0.980] on 5,000 rows of 14 days at the gate: a difference of -" in quality.explanation
    assert shown("driftloop_quality_at_gate", metric="roc_auc") == 0.97


def test_a_first_version_has_no_gate_to_be_compared_with(bucket: Bucket, life: Life) -> None:
    quality = only(qualities(bucket).evaluate_slice(life.told(0, life.asked(0))))
    assert (quality.verdict, quality.at_gate) == ("inconclusive", None)
    assert quality.explanation.endswith("no gate has measured this version")


def test_what_the_gate_wrote_and_nobody_can_read_is_told(bucket: Bucket, life: Life) -> None:
    bucket.write("references/m/1/gate_evaluation.json", b'{"rows": ')
    quality = only(qualities(bucket).evaluate_slice(life.told(0, life.asked(0))))
    assert quality.verdict == "inconclusive"
    assert "cannot be read" in quality.explanation
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
def test_a_verdict_needs_a_difference_beyond_both_intervals(
    name: str, found: MetricEstimate, gate: MetricEstimate, verdict: str
) -> None:
    one, other = (Evaluation(rows=1, days=7, resampling_unit="days", metrics={name: each}) for each in (found, gate))
    assert compare_with_gate(one, other)[0] == verdict


def test_outcomes_that_are_all_the_same_have_no_verdict(bucket: Bucket, life: Life) -> None:
    save_gate_evaluation(bucket, "m", "1", GATE)
    quality = only(qualities(bucket).evaluate_slice(life.told(0, life.asked(0).assign(outcome=0.0))))
    assert (quality.verdict, quality.explanation) == ("inconclusive", "all outcomes of 100 rows are the same")


def test_an_estimate_without_a_record_is_not_trusted(bucket: Bucket, life: Life) -> None:
    rows = life.asked(0)
    estimate = qualities(bucket).estimate(verdict(0), rows["prediction"])
    assert estimate is not None
    assert set(estimate.metrics) == {"roc_auc", "brier", "accuracy"}
    assert (estimate.trusted, estimate.track_record.windows, estimate.track_record.mean_error) == (False, 0, None)
    assert estimate.explanation == "the outcomes of 0 windows are known, and 5 are needed"


@pytest.mark.parametrize(("changed", "trusted"), [(False, True), (True, False)])
def test_an_estimate_is_trusted_as_its_record_is_good(bucket: Bucket, life: Life, changed: bool, trusted: bool) -> None:
    working = qualities(bucket, max_estimate_error=0.05)
    for day in range(12):
        rows = life.asked(day)
        if changed:  # half of the outcomes have nothing to do with the features any more
            rows.loc[::2, "outcome"] = (life.random.random(ROWS // 2) < 0.5).astype(float)
        working.evaluate_slice(life.told(day, rows))
    estimate = working.estimate(verdict(12), life.asked(12)["prediction"])
    assert estimate is not None
    assert estimate.track_record.windows == 12
    assert estimate.track_record.mean_error is not None
    assert estimate.track_record.mean_absolute_error is not None
    assert (estimate.track_record.mean_error > 0.05) is changed
    assert estimate.track_record.mean_absolute_error >= abs(estimate.track_record.mean_error)
    assert estimate.trusted is trusted
    assert shown("driftloop_quality_estimate_bias", metric="roc_auc") == estimate.track_record.mean_error
    assert shown("driftloop_quality_estimate", metric="brier") == estimate.metrics["brier"]


def test_of_few_rows_nothing_is_expected(bucket: Bucket) -> None:
    assert qualities(bucket).estimate(verdict(0), pd.Series([0.2, 0.8] * 24)) is None
    assert qualities(bucket).estimate(verdict(0), pd.Series([0.2, 0.8] * 25)) is not None


def test_a_window_is_no_part_of_the_record_of_its_own_estimate(bucket: Bucket, life: Life) -> None:
    working = qualities(bucket)
    rows = life.asked(0)
    working.evaluate_slice(life.told(0, rows))
    estimate = working.estimate(verdict(0), rows["prediction"])
    assert estimate is not None
    assert estimate.track_record.windows == 0


def test_estimates_and_qualities_are_published_with_the_offsets_of_their_slices(bucket: Bucket, life: Life) -> None:
    settings = WindowSettings(rows=ROWS)
    known = CommittedSlices()
    history = RecentWindows(bucket, settings.min_rows, known.preceding)
    judging, tidying = WindowJudge(bucket, settings, history), ArchiveCleaner(bucket, report_retention_days=90)
    worker = Worker(Slicer(settings), judging, qualities(bucket), history, known, bucket, tidying)
    finals: list[Commit] = []
    for offset, chance in enumerate(life.random.random(ROWS)):
        answer = Prediction(
            id=str(offset), time=BEGIN, model="m", version="1", features={"x": [1.0]}, predictions=[chance]
        )
        finals += worker.handle(ConsumedMessage("predictions", 0, offset, answer, offset))
    for offset in range(ROWS):
        outcome = Outcome(time=BEGIN, prediction_id=str(offset), index=0, outcome=offset % 2)
        finals += worker.handle(ConsumedMessage("outcomes", 0, offset, outcome, offset))
    assert [(final.topic, final.offset) for final in finals] == [("predictions", ROWS), ("outcomes", ROWS)]
    assert [[type(event) for event in final.events] for final in finals] == [
        [DriftVerdict, QualityEstimate],
        [QualityVerdict],
    ]
    assert len({event.id for final in finals for event in final.events}) == 3
