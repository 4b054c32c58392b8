"""Test which verdict a version's status shows, since when, and that an inconclusive one never hides a real one."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from driftloop.events import DriftReason, QualityVerdict, Window
from driftloop.version_status import JudgedWindow, Verdict, VersionStatus, most_important_first, version_status

BEGIN = datetime(2013, 1, 1, tzinfo=UTC)
VERDICTS: dict[str, Verdict] = {"d": "drift", "n": "no_drift", "i": "inconclusive"}


def window(number: int) -> Window:
    return Window(topic="predictions", partition=0, first_offset=number, last_offset=number)


def judged(kinds: str, first_day: int = 0, reason: DriftReason = "too_few_rows") -> list[JudgedWindow]:
    """Return a window a day: ``d`` for drift, ``n`` for no drift, ``i`` for inconclusive."""
    windows = []
    for day, kind in enumerate(kinds, first_day):
        verdict, at = VERDICTS[kind], BEGIN + timedelta(days=day)
        why = reason if kind == "i" else None
        published_at, ends = at + timedelta(hours=2), at + timedelta(hours=1)
        windows.append(JudgedWindow(window(day), verdict, why, "", published_at, at, ends))
    return windows


def status_of(kinds: str) -> VersionStatus:
    return version_status("m", "1", judged(kinds))


@pytest.mark.parametrize(
    ("kinds", "verdict", "since_day", "streak", "unjudged"),
    [
        ("nnddd", "drift", 2, 3, 0),
        ("nndddi", "drift", 2, 3, 1),
        ("nddidii", "drift", 1, 3, 2),
        ("ddnn", "no_drift", 2, 2, 0),
        ("nn", "no_drift", 0, 2, 0),
        ("ii", "inconclusive", None, 0, 2),
        ("", "inconclusive", None, 0, 0),
    ],
    ids=["drift", "rest after drift", "gaps", "recovered", "never drifted", "never judged", "no window"],
)
def test_light_is_the_last_verdict_that_was_reached(
    kinds: str, verdict: Verdict, since_day: int | None, streak: int, unjudged: int
) -> None:
    status = status_of(kinds)
    since = None if since_day is None else BEGIN + timedelta(days=since_day)
    assert (status.verdict, status.since, status.streak, sum(status.unjudged.values())) == (
        verdict,
        since,
        streak,
        unjudged,
    )


def test_text_says_since_when_and_why_later_windows_were_not_judged() -> None:
    assert status_of("nddi").text == (
        "drift since 2013-01-02 00:00, in 2 windows; not judged since 2013-01-04 00:00: 1 window (too few rows)"
    )
    assert status_of("nn").text == "no drift since at least 2013-01-01 00:00, in 2 windows"
    mixed = version_status("m", "1", [*judged("dii"), *judged("i", 3, "no_reference")])
    assert mixed.unjudged_reasons == "2: too few rows, 1: the version has no reference"


def test_status_says_since_when_no_window_could_be_judged() -> None:
    assert status_of("ndd").unjudged_since is None
    assert status_of("nddii").unjudged_since == BEGIN + timedelta(days=3)
    assert status_of("ii").text == "not judged since 2013-01-01 00:00: 2 windows (too few rows)"
    assert status_of("").text == "no window has been judged yet"


def quality(number: int, verdict: str, **changed: Any) -> QualityVerdict:
    fields = {"window": window(number), "model": "m", "version": "1", "rows": 9, "windows": 1, "unmatched": 0}
    times = {"first_prediction_at": BEGIN, "last_prediction_at": BEGIN}
    return QualityVerdict.model_validate({**fields, **times, "verdict": verdict, "explanation": "", **changed})


@pytest.mark.parametrize(
    ("verdicts", "shown", "later"),
    [
        ([], None, None),
        (["consistent", "degraded"], 1, None),
        (["degraded", "inconclusive", "inconclusive"], 0, 2),
        (["degraded", "inconclusive", "improved"], 2, None),
        (["inconclusive", "inconclusive"], 1, None),
    ],
    ids=["none", "compared", "not compared later", "compared again", "never compared"],
)
def test_quality_that_cannot_be_compared_hides_no_comparison(
    verdicts: Sequence[str], shown: int | None, later: int | None
) -> None:
    qualities = [quality(number, verdict) for number, verdict in enumerate(verdicts)]
    status = version_status("m", "1", [], qualities)
    assert status.quality == (None if shown is None else qualities[shown])
    assert status.later_quality == (None if later is None else qualities[later])


def test_status_says_nothing_of_another_version_of_the_same_number() -> None:
    first = [window._replace(run_id="first") for window in judged("dd")]
    imported, second = judged("n", 2), [window._replace(run_id="second") for window in judged("n", 3)]
    qualities = [quality(1, "degraded", run_id="first"), quality(2, "improved", run_id="second")]
    status = version_status("m", "1", [*first, *imported, *second], qualities)
    assert (status.run_id, status.verdict, status.streak, status.windows) == ("second", "no_drift", 2, 2)
    assert status.quality == qualities[1]
    assert version_status("m", "1", first, qualities).quality == qualities[0]
    assert version_status("m", "1", [], qualities).run_id == "second"


def test_the_most_important_version_is_first() -> None:
    statuses = [
        version_status("quiet", "1", judged("n"), in_service="so"),
        version_status("old", "1", judged("d")),
        version_status("unclear", "1", judged("i"), in_service="so"),
        version_status("rest", "1", judged("di"), in_service="so"),
        version_status("newer", "1", judged("n", 5), in_service="so"),
        version_status("new", "1", [], in_service="so"),
    ]
    names = [status.model for status in most_important_first(statuses)]
    assert names == ["rest", "unclear", "new", "newer", "quiet", "old"]


def test_status_is_stored_and_read_unchanged() -> None:
    status = version_status("m", "1", judged("ddi"), [quality(0, "degraded")], "so")
    assert VersionStatus.model_validate_json(status.model_dump_json()) == status
