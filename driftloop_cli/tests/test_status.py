"""The tables of the status."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console

from driftloop.events import (
    DriftVerdict,
    EstimateTrackRecord,
    Event,
    Finding,
    ModelStateChanged,
    QualityEstimate,
    QualityVerdict,
    Window,
)
from driftloop_cli.status import status_tables

START = datetime(2013, 7, 1, 9, tzinfo=UTC)


def window_fields(number: int, version: str = "1") -> dict[str, Any]:
    return {
        "window": Window(topic="predictions", partition=0, first_offset=100 * number, last_offset=100 * number + 99),
        "model": "m",
        "version": version,
        "rows": 100,
        "first_prediction_at": START,
        "last_prediction_at": START + timedelta(hours=number),
    }


def drift(number: int, verdict: str, **fields: object) -> DriftVerdict:
    about = {"verdict": verdict, "explanation": f"explanation {number}", "archive": "gs://b/x.parquet"}
    return DriftVerdict.model_validate({**window_fields(number), **about, **fields})


def render(events: Sequence[Event], windows: int = 10, retrains: list[ModelStateChanged] | None = None) -> list[str]:
    """Return the lines of the tables with cells separated by ``|``."""
    console = Console(width=200, record=True, force_terminal=False)
    for table in status_tables(events, windows, retrains or [], {"drift_worker": {"predictions-0": 3}}):
        console.print(table)
    lines = console.export_text().splitlines()
    return ["|".join(cell.strip() for cell in line.strip("│┃ ").replace("┃", "│").split("│")) for line in lines]


def test_status_shows_scores_and_drifted_columns_of_a_window() -> None:
    finding = Finding(column="temp", method="wasserstein", value=2.5, threshold=1.9, drifted=True)
    lines = render([drift(1, "drift", score=9.54, score_threshold=8.1, findings=[finding])])
    assert "predictions-0 100–199|1|100|2013-07-01 09:00|2013-07-01 10:00|drift|9.5|8.1|temp" in lines


def test_status_shows_why_a_window_is_inconclusive() -> None:
    assert any(line.endswith("|inconclusive|||explanation 1") for line in render([drift(1, "inconclusive")]))


def test_status_shows_a_replayed_verdict_with_the_first_one() -> None:
    events = [drift(1, "no_drift"), drift(1, "drift", replayed=True)]
    windows = [line for line in render(events) if line.startswith("predictions-0 ")]
    assert len(windows) == 1
    assert windows[0].endswith("|no_drift, replayed: drift")


def test_status_shows_the_latest_windows_only() -> None:
    windows = [line for line in render([drift(n, "no_drift") for n in range(5)], windows=2) if "predictions-0 " in line]
    assert [line.split("|")[0] for line in windows] == ["predictions-0 300–399", "predictions-0 400–499"]


def test_status_shows_the_latest_quality_and_estimate_of_each_version() -> None:
    def quality(number: int, verdict: str, version: str) -> QualityVerdict:
        fields = {"windows": 1, "unmatched": 0, "verdict": verdict, "explanation": f"quality {number} [x]"}
        return QualityVerdict.model_validate({**window_fields(number, version), **fields})

    def estimate(*, trusted: bool, version: str, metrics: dict[str, float]) -> QualityEstimate:
        fields = {"metrics": metrics, "trusted": trusted, "explanation": "so", "track_record": EstimateTrackRecord()}
        return QualityEstimate.model_validate({**window_fields(3, version), **fields})

    lines = render(
        [
            quality(1, "consistent", "1"),
            quality(2, "degraded", "1"),
            quality(3, "improved", "2"),
            estimate(trusted=True, version="1", metrics={"roc_auc": 0.75}),
            estimate(trusted=False, version="2", metrics={"roc_auc": 0.5}),
            estimate(trusted=True, version="3", metrics={"brier": 0.1}),
        ]
    )
    start = lines.index(next(line for line in lines if line.startswith("version|quality|explanation")))
    assert lines[start + 2 : start + 6] == [
        "1|degraded|quality 2 [x]",
        "1|estimated|ROC AUC 0.750; so",
        "2|improved|quality 3 [x]",
        "2|estimated, not trusted|ROC AUC 0.500; so",
    ]


def test_status_without_events_shows_no_tables_but_lag() -> None:
    lines = render([])
    assert "no windows yet" in lines
    assert "no retrains yet" in lines
    assert "drift_worker|predictions-0|3" in lines
    assert not any("quality" in line for line in lines)


def test_status_shows_the_state_of_a_retrain() -> None:
    state = ModelStateChanged(
        time=START, retrain_id="r", model="m", version="2", state="rejected", explanation="gain [-0.1, 0.1]"
    )
    assert "2013-07-01 09:00:00|r|2|rejected|gain [-0.1, 0.1]" in render([], retrains=[state])
