"""What the metrics show after a verdict: figures of one window, and when that was."""

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
        else {}
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
    return DriftVerdict.model_validate({**common, "verdict": what, "explanation": "", "archive": "", **judged, **more})


def shown(name: str, model: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"driftloop_drift_{name}", {"model": model, "version": "1", **labels})


def finding(column: str, *, windows: int = 1, drifted: bool = False) -> Finding:
    return Finding(column=column, method="psi", windows=windows, value=0.2, threshold=0.1, drifted=drifted)


def test_alarms_in_a_row_are_counted_until_a_quiet_window() -> None:
    rows = []
    for day, what in enumerate(("drift", "drift", "no_drift", "drift")):
        record_metrics(verdict("row", day, what))
        rows.append((shown("window_alarm", "row"), shown("consecutive_alarms", "row")))
    assert rows == [(1, 1), (1, 2), (0, 0), (1, 1)]


def test_figures_carry_the_time_of_the_window_that_they_are_of() -> None:
    record_metrics(verdict("time", 3, "drift"))
    assert shown("window_end_timestamp_seconds", "time") == (NOON + timedelta(days=3)).timestamp()


def test_a_window_that_could_not_be_judged_is_counted_and_moves_no_figure() -> None:
    record_metrics(verdict("un", 1, "drift"))
    record_metrics(verdict("un", 2, "inconclusive"))
    assert shown("windows_total", "un", verdict="inconclusive") == 1
    assert shown("window_end_timestamp_seconds", "un") == (NOON + timedelta(days=1)).timestamp()
    assert (shown("window_alarm", "un"), shown("consecutive_alarms", "un"), shown("window_score", "un")) == (1, 1, 1.5)


def test_a_column_has_drifted_by_any_of_its_statistics_in_the_latest_window() -> None:
    record_metrics(
        verdict("col", 1, "drift", findings=[finding("x"), finding("x", windows=3, drifted=True), finding("y")])
    )
    assert (shown("column_drifted", "col", column="x"), shown("column_drifted", "col", column="y")) == (1, 0)
    record_metrics(verdict("col", 2, "no_drift", findings=[finding("x"), finding("y")]))
    assert shown("column_drifted", "col", column="x") == 0


def test_behind_a_gap_nothing_is_left_of_what_was_said_of_three_windows() -> None:
    record_metrics(verdict("gap", 1, "drift", findings=[finding("x"), finding("x", windows=3)]))
    record_metrics(
        verdict("gap", 5, "no_drift", multiwindow_score=None, multiwindow_score_threshold=None, findings=[finding("x")])
    )
    assert shown("multiwindow_score", "gap") is None
    assert shown("statistic", "gap", column="x", method="psi", windows="3") is None
    assert shown("statistic", "gap", column="x", method="psi", windows="1") == 0.2
