"""The tables of the status."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from driftloop.events import (
    DriftVerdict,
    EstimateTrackRecord,
    Event,
    Finding,
    ModelStateChanged,
    Prediction,
    QualityEstimate,
    QualityVerdict,
    RetrainRequested,
    Window,
    derived_event_id,
)
from driftloop.kafka import reader
from driftloop.settings import KafkaSettings, load_settings
from driftloop_cli import console, status_command
from driftloop_cli.settings import CliSettings
from driftloop_cli.status import ModelStatus, Status, model_status, status_parts
from driftloop_cli.status_command import _Champion, _has_windows, read_status

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
    about = {"verdict": verdict, "explanation": f"explanation {number}", "archive": ["gs://b/x.parquet"]}
    return DriftVerdict.model_validate({**window_fields(number), **about, **fields})


def render(events: Sequence[Event], windows: int = 10, width: int = 200) -> list[str]:
    """Return the lines of model m's status, with runs of spaces as one space."""
    return render_status(Status(models=[status_of("m", events, windows)], lag={"drift_worker": {"p-0": 3}}), width)


def render_status(status: Status, width: int = 200) -> list[str]:
    console = Console(width=width, record=True, force_terminal=False, file=StringIO())
    for part in status_parts(status):
        console.print(part)
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


def status_of(
    model: str,
    events: Sequence[Event],
    windows: int = 10,
    *,
    trainer_runs: bool | None = True,
    version: str | None = "1",
    last: str | None = None,
) -> ModelStatus:
    return model_status(model, "champion", version, last, trainer_runs=trainer_runs, events=events, windows=windows)


def retrain_state(state: str, **fields: object) -> ModelStateChanged:
    about = {"time": START, "retrain_id": "r", "model": "m", "version": "2", "explanation": "gain [-0.1, 0.1]"}
    return ModelStateChanged.model_validate({**about, "state": state, **fields})


def request(**fields: object) -> RetrainRequested:
    about = {"id": "r", "model": "m", "trigger": "manual", "reason": "it is [summer]", "requested_by": "root"}
    return RetrainRequested.model_validate({**about, **fields})


def test_status_shows_scores_and_drifted_columns_of_a_window() -> None:
    finding = Finding(column="temp", method="wasserstein", value=2.5, threshold=1.9, drifted=True)
    lines = render([drift(1, "drift", score=9.54, score_threshold=8.1, findings=[finding])])
    assert "2013-07-01 10:00 1 100 drift 9.5 / 8.1 temp" in lines


def test_status_shows_why_a_window_is_inconclusive() -> None:
    assert "2013-07-01 10:00 1 100 inconclusive explanation 1" in render([drift(1, "inconclusive")])


def test_status_shows_a_replayed_verdict_with_the_first_one() -> None:
    events = [drift(1, "no_drift"), drift(1, "drift", replayed=True), drift(2, "drift", model="other", replayed=True)]
    windows = [line for line in render(events) if line.startswith("2013-07-01 ")]
    assert windows == ["2013-07-01 10:00 1 100 no_drift, replayed: drift"]
    assert [verdict.verdict for verdict in status_of("m", events).replays] == ["drift"]


def test_status_shows_the_latest_windows_only() -> None:
    windows = [
        line for line in render([drift(n, "no_drift") for n in range(5)], windows=2) if line.startswith("2013-07")
    ]
    assert [line.split()[1] for line in windows] == ["12:00", "13:00"]


def test_status_keeps_the_last_real_verdict_of_each_version_before_windows_that_could_not_be_judged() -> None:
    events = [
        *(drift(0, "no_drift", version="3"), drift(1, "no_drift"), drift(2, "drift"), drift(3, "drift", version="2")),
        *(drift(number, "inconclusive", version="2", reason="too_few_rows") for number in range(4, 9)),
    ]
    shown = status_of("m", events, windows=2).windows  # version 1 is in service
    assert [(verdict.version, verdict.verdict) for verdict in shown] == [
        *(("1", "drift"), ("2", "drift")),
        *[("2", "inconclusive")] * 2,
    ]


def version_lines(models: Sequence[ModelStatus]) -> list[str]:
    lines = render_status(Status(models=list(models), lag={}))
    first = lines.index("model version drift times in UTC quality") + 2
    return lines[first : lines.index("", first)]


def test_status_begins_with_a_line_for_each_version_of_all_models_the_most_important_first() -> None:
    models = ["a", "b", "c", "d", "e"]
    events: list[Event] = []
    for hour in range(3):
        for number, model in enumerate(models):
            verdict = "drift" if model == "d" or (model == "b" and hour == 2) else "no_drift"
            at = START + timedelta(hours=hour)
            times = {"time": at + timedelta(minutes=number), "first_prediction_at": at}
            events.append(drift(5 * hour + number, verdict, model=model, **times))
    events.append(drift(99, "drift", model="e", version="2", time=START, first_prediction_at=START))
    events.append(drift(100, "inconclusive", model="d", reason="no_reference", time=START + timedelta(hours=9)))
    assert version_lines([status_of(model, events) for model in models]) == [
        "d 1, in service drift since at least 2013-07-01 09:00, in 3 windows; "
        "not judged since 2013-07-01 09:00: 1 window (the version has no reference)",
        "b 1, in service drift since 2013-07-01 11:00, in 1 window",
        *(f"{model} 1, in service no_drift since at least 2013-07-01 09:00, in 3 windows" for model in "eca"),
        "e 2 drift since at least 2013-07-01 09:00, in 1 window",
    ]


def test_status_has_a_line_for_the_version_in_service_before_its_first_window() -> None:
    assert version_lines([status_of("m", [drift(1, "drift", version="2")])]) == [
        "m 1, in service no window has been judged yet",
        "m 2 drift since at least 2013-07-01 09:00, in 1 window",
    ]


def test_status_of_a_version_does_not_mix_with_another_models_version_of_the_same_number() -> None:
    events = [drift(1, "drift"), *(drift(number, "no_drift", model="other") for number in range(2, 5))]
    (mine,), (theirs,) = (status_of(model, events).versions for model in ("m", "other"))
    assert (mine.verdict, mine.streak, theirs.verdict, theirs.streak) == ("drift", 1, "no_drift", 3)


def test_status_keeps_the_last_comparison_of_quality_before_outcomes_that_could_not_be_compared() -> None:
    events = [quality(1, "degraded", "1"), quality(2, "inconclusive", "1"), quality(3, "inconclusive", "1")]
    lines = render(events)
    assert "m 1, in service no window has been judged yet degraded, later outcomes not compared" in lines
    start = lines.index("version quality explanation")
    assert lines[start + 2 : start + 4] == ["1 degraded quality 1 [x]", "1 inconclusive quality 3 [x]"]


def test_more_of_the_topic_is_read_until_there_is_a_real_verdict_on_the_version_in_service() -> None:
    rest = [drift(number, "inconclusive", version="2") for number in range(3)]
    assert not _has_windows([drift(0, "drift", version="2"), *rest], {"m": "1"}, 3)
    assert not _has_windows([drift(0, "drift"), *rest], {"m": "1"}, 3)  # nothing real is known of version 2
    assert _has_windows([drift(0, "drift"), drift(1, "no_drift", version="2"), *rest], {"m": "1"}, 3)
    assert not _has_windows([drift(0, "drift", model="other"), *rest], {"m": None, "other": "1"}, 3)


def quality(number: int, verdict: str, version: str, model: str = "m") -> QualityVerdict:
    fields = {"windows": 1, "unmatched": 0, "verdict": verdict, "explanation": f"quality {number} [x]"}
    return QualityVerdict.model_validate({**window_fields(number, version), **fields, "model": model})


def test_status_shows_the_latest_quality_and_estimate_of_each_version() -> None:
    def estimate(*, trusted: bool, version: str, metrics: dict[str, float]) -> QualityEstimate:
        fields = {"metrics": metrics, "trusted": trusted, "explanation": "so", "track_record": EstimateTrackRecord()}
        return QualityEstimate.model_validate({**window_fields(3, version), **fields})

    lines = render(
        [
            quality(1, "consistent", "1"),
            quality(2, "degraded", "1"),
            quality(3, "improved", "2"),
            quality(4, "improved", "10"),
            estimate(trusted=True, version="1", metrics={"roc_auc": 0.75, "brier": 0.1}),
            estimate(trusted=False, version="2", metrics={"roc_auc": 0.5}),
        ]
    )
    start = lines.index("version quality explanation")
    assert lines[start + 2 : start + 7] == [
        "1 degraded quality 2 [x]",
        "1 estimated ROC AUC 0.750, Brier score 0.100; so",
        "2 improved quality 3 [x]",
        "2 estimated, not trusted ROC AUC 0.500; so",
        "10 improved quality 4 [x]",
    ]


def test_status_without_events_shows_no_tables_but_lag() -> None:
    lines = render([])
    assert "no windows yet" in lines
    assert "no retrains yet" in lines
    assert "drift_worker p-0 3" in lines
    assert not any("Quality" in line for line in lines)


def test_status_of_a_promoted_version_says_why_it_was_requested_and_by_whom() -> None:
    lines = render([request(), retrain_state("training"), retrain_state("promoted")])
    start = next(number for number, line in enumerate(lines) if line.startswith("2013-07-01 09:00"))
    assert lines[start : start + 3] == [
        "2013-07-01 09:00 2 promoted requested by root: it is [summer]",
        "gain [-0.1, 0.1]",
        "id r",
    ]


def test_status_of_several_models_has_a_section_for_each() -> None:
    events = [quality(1, "degraded", "1"), quality(2, "improved", "1", model="other"), drift(1, "drift", model="other")]
    status = Status(models=[status_of("m", events), status_of("other", events, trainer_runs=False)], lag={})
    lines = render_status(status)
    second = lines.index("models:/other@champion is version 1")
    assert "no windows yet" in lines[:second]
    assert "1 degraded quality 1 [x]" in lines[:second]
    assert lines[second + 1].startswith("no trainer of other runs")
    assert "1 improved quality 2 [x]" in lines[second:]
    assert not any("quality 2" in line for line in lines[:second])


def test_status_in_80_columns_cuts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [f"a_column_with_a_rather_long_name_{n}" for n in range(3)]
    findings = [Finding(column=name, method="ks", value=1, threshold=0, drifted=True) for name in columns]
    events = [
        drift(1, "drift", score=1234.5, score_threshold=8.1, findings=findings),
        request(reason="because " * 20 + "it is summer", requested_by="somebody.with@a.long.address.example"),
        retrain_state("promoted", retrain_id="r", explanation="better " * 30 + "by far"),
    ]
    output = StringIO()
    monkeypatch.setattr(console, "out", Console(file=output, width=80, force_terminal=True, color_system=None))
    for part in status_parts(Status(models=[status_of("m", events)], lag={})):
        console.print_table(part) if isinstance(part, Table) else console.print_message(part)
    text = output.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    cells = "".join(text.split())
    assert all(column in cells for column in columns)
    assert "2013-07-01 10:00" in text
    assert (text.count("because"), text.count("better")) == (20, 30)


def test_table_that_is_no_terminals_is_as_wide_as_its_longest_cell(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name")
    table.add_row("x" * 500)
    console.print_table(table)
    assert "x" * 500 in capsys.readouterr().out


def answer(version: str, at: datetime, **fields: object) -> Prediction:
    """Return an event whose own time is another one, as of a row that is replayed."""
    event_id = derived_event_id(at, version)
    about = {"id": event_id, "time": START, "model": "m", "version": version, "features": {}, "predictions": []}
    return Prediction.model_validate({**about, **fields})


@pytest.mark.parametrize(
    ("seconds", "version", "is_overdue"),
    [(59, "2", False), (61, "2", True), (61, "1", False)],
    ids=["within a minute", "after a minute", "the alias's own"],
)
def test_status_says_if_another_version_answers_than_the_alias_names(
    seconds: int, version: str, *, is_overdue: bool
) -> None:
    moved = retrain_state("promoted", version="1", time=START)
    events = [moved, answer(version, START + timedelta(seconds=seconds)), answer("1", START - timedelta(days=1))]
    events += [answer("7", START + timedelta(days=1), model="other")]
    events += [answer("7", START + timedelta(days=1), imported=True)]
    status = status_of("m", events)
    assert (status.answering and status.answering.version, status.is_swap_overdue) == (version, is_overdue)
    assert any("GET /models" in line for line in render(events)) == is_overdue


def test_status_of_a_lost_alias_says_how_to_set_it_again() -> None:
    events = [answer("3", START)]
    status = Status(models=[status_of("m", events, version=None, last="3")], lag={})
    lines = render_status(status)
    assert "rollback --to 3" in lines[0]
    assert lines[1] == "version 3 of m has answered last, at 2013-07-01 09:00 UTC"


def test_status_shows_what_is_known_while_the_registry_or_kafka_is_away() -> None:
    model = status_of("m", [drift(1, "drift")], version=None)
    lines = render_status(Status(models=[model], lag={"drift_worker": {"p-0": 3}}, unavailable={"registry": "away"}))
    assert not [line for line in lines if line.startswith("models:/")]
    assert {"Windows of m:", "drift_worker p-0 3"} <= set(lines)
    lines = render_status(Status(models=[status_of("m", [])], lag={}, unavailable={"kafka": "away"}))
    assert lines == ["models:/m@champion is version 1"]


def test_status_shows_the_lag_of_the_groups_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_REGISTRY__MODEL", "flights")
    monkeypatch.setenv("DRIFTLOOP_DRIFT_WORKER__GROUP", "night_workers")
    monkeypatch.setenv("DRIFTLOOP_DRIFT_WORKER__PORT", "9001")  # of the same section; the command does not need it
    monkeypatch.setattr(status_command, "_registered_models", lambda *_, **__: [])
    monkeypatch.setattr(status_command, "_champion", lambda *_: _Champion(None, None))
    monkeypatch.setattr(reader, "read_last", lambda *_: [])
    monkeypatch.setattr(reader, "has_members", lambda *_: True)

    def consumer_lag(_: KafkaSettings, group: str, topics: Collection[str]) -> dict[str, int]:
        return {f"{topic}-0": len(group) for topic in topics}

    monkeypatch.setattr(reader, "consumer_lag", consumer_lag)
    status = read_status(load_settings(CliSettings), 10, all_models=False)
    assert status.lag == {
        "night_workers": {"predictions-0": 13, "outcomes-0": 13},
        "trainer-flights": {"retrain-0": 15},
    }
