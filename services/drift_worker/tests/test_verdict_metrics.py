"""Test the metrics after a verdict: values of one window, and its time."""

from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import REGISTRY

from drift_worker.worker import record_metrics
from driftloop.events import DriftVerdict, Finding, Window

NOON = datetime(2013, 7, 1, 12, tzinfo=UTC)


def verdict(model: str, day: int, what: str, **more: Any) -> DriftVerdict:
    judged = (
        {"score": 1.5, "score_threshold": 1.0, "multiwindow_score": 2.0, "multiwindow_score_threshold": 1.0}
        if what != "inconclusive"
        else {"reason": "too_few_rows"}
    )
    ends = NOON + timedelta(days=day)
    window = Window(topic="predictions", partition=0, first_offset=day, last_offset=day)
    common = {
        "window": window,
        "model": model,
        "version": "1",
        "rows": 10,
        "first_prediction_at": ends,
        "last_prediction_at": ends,
    }
    return DriftVerdict.model_validate({**common, "verdict": what, "explanation": "", "archive": [], **judged, **more})


def gauge(name: str, model: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"driftloop_drift_{name}", {"model": model, "version": "1", **labels})


def finding(column: str, *, windows: int = 1, drifted: bool = False) -> Finding:
    return Finding(column=column, method="psi", windows=windows, value=0.2, threshold=0.1, drifted=drifted)


def test_consecutive_alarms_are_counted_until_a_window_without_drift() -> None:
    rows = []
    for day, what in enumerate(("drift", "drift", "no_drift", "drift")):
        record_metrics(verdict("row", day, what))
        rows.append((gauge("window_alarm", "row"), gauge("consecutive_alarms", "row")))
    assert rows == [(1, 1), (1, 2), (0, 0), (1, 1)]


def test_window_end_is_the_time_of_the_judged_window() -> None:
    record_metrics(verdict("time", 3, "drift"))
    assert gauge("window_end_timestamp_seconds", "time") == (NOON + timedelta(days=3)).timestamp()


def test_inconclusive_window_is_counted_and_changes_no_gauge() -> None:
    record_metrics(verdict("un", 1, "drift"))
    record_metrics(verdict("un", 2, "inconclusive"))
    assert gauge("windows_total", "un", verdict="inconclusive") == 1
    assert gauge("window_end_timestamp_seconds", "un") == (NOON + timedelta(days=1)).timestamp()
    assert (
        gauge("window_alarm", "un"),
        gauge("consecutive_alarms", "un"),
        gauge("window_score", "un"),
    ) == (1, 1, 1.5)


def test_versions_of_the_same_number_of_five_models_have_gauges_of_their_own() -> None:
    models = [f"same-{number}" for number in range(5)]
    for day, what in enumerate(("drift", "no_drift", "inconclusive")):
        for number, model in enumerate(models):
            alarms = what == "drift" or (what == "no_drift" and number == 4)
            record_metrics(verdict(model, 10 * day + number, "drift" if alarms else what, score=float(number)))
    assert [gauge("window_alarm", model) for model in models] == [0, 0, 0, 0, 1]
    assert [gauge("consecutive_alarms", model) for model in models] == [0, 0, 0, 0, 2]
    assert [gauge("window_score", model) for model in models] == [0, 1, 2, 3, 4]
    assert [gauge("unjudged_windows_total", model, reason="too_few_rows") for model in models] == [1] * 5


def test_column_drifted_is_set_by_any_statistic_of_the_latest_window() -> None:
    record_metrics(
        verdict("col", 1, "drift", findings=[finding("x"), finding("x", windows=3, drifted=True), finding("y")])
    )
    assert (gauge("column_drifted", "col", column="x"), gauge("column_drifted", "col", column="y")) == (
        1,
        0,
    )
    record_metrics(verdict("col", 2, "no_drift", findings=[finding("x"), finding("y")]))
    assert gauge("column_drifted", "col", column="x") == 0


def test_multiwindow_metrics_are_removed_after_a_gap() -> None:
    record_metrics(verdict("gap", 1, "drift", findings=[finding("x"), finding("x", windows=3)]))
    record_metrics(
        verdict("gap", 5, "no_drift", multiwindow_score=None, multiwindow_score_threshold=None, findings=[finding("x")])
    )
    assert gauge("multiwindow_score", "gap") is None
    assert gauge("statistic", "gap", column="x", method="psi", windows="3") is None
    assert gauge("statistic", "gap", column="x", method="psi", windows="1") == 0.2


def test_cumulated_score_and_its_columns_are_in_the_metrics() -> None:
    change = {"column": "x", "statistic": "mean_rank", "direction": "up", "windows": 9, "score": 1.25}
    findings = [finding("x"), finding("y")]
    record_metrics(verdict("slow", 1, "drift", findings=findings, cumulated_score=1.25, cumulated_changes=[change]))
    assert gauge("cumulated_score", "slow") == 1.25
    assert [gauge("column_drifted", "slow", column=column) for column in ("x", "y")] == [1, 0]
