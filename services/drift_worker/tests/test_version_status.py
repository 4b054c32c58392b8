"""Test which version counts as in service, and the order of versions."""

from datetime import UTC, datetime, timedelta

import pytest

from drift_worker.web.verdict_cache import ServiceChange, VerdictCache
from drift_worker.web.version_status import version_statuses, versions_in_service
from driftloop.events import DriftVerdict, ModelStateChanged, Window
from driftloop.version_status import JudgedWindow, Verdict

BEGIN = datetime(2013, 1, 1, tzinfo=UTC)
VERDICTS: dict[str, Verdict] = {"d": "drift", "n": "no_drift", "i": "inconclusive"}


def window(number: int, partition: int = 0) -> Window:
    return Window(topic="predictions", partition=partition, first_offset=number, last_offset=number)


def judged(kinds: str, first_day: int = 0) -> list[JudgedWindow]:
    """Return a window a day: ``d`` for drift, ``n`` for no drift, ``i`` for inconclusive."""
    windows = []
    for day, kind in enumerate(kinds, first_day):
        at = BEGIN + timedelta(days=day)
        published_at, ends = at + timedelta(hours=2), at + timedelta(hours=1)
        windows.append(JudgedWindow(window(day), VERDICTS[kind], None, "", published_at, at, ends))
    return windows


def make_event(number: int, model: str, version: str, verdict: Verdict) -> DriftVerdict:
    at = BEGIN + timedelta(days=number)
    return DriftVerdict(
        time=at,
        window=window(number),
        model=model,
        version=version,
        rows=1,
        first_prediction_at=at,
        last_prediction_at=at,
        verdict=verdict,
        explanation="",
        archive=["gs://b/x.parquet"],
    )


def change(version: str, day: float, state: str = "promoted") -> ServiceChange:
    return ServiceChange(version, BEGIN + timedelta(days=day), state)


@pytest.mark.parametrize(
    ("windows", "changes", "version"),
    [
        ({"1": judged("nn")}, [], "1"),
        ({"1": judged("nn"), "2": judged("n", 5)}, [], "2"),
        ({"1": judged("nn"), "2": judged("n", 5)}, [change("2", 4)], "2"),
        ({"1": judged("nn")}, [change("1", -1), change("2", 0.5)], "2"),
        ({"1": judged("n", 7), "2": judged("n", 5)}, [change("2", 4), change("1", 6, "rolled_back")], "1"),
        ({"1": judged("n"), "3": judged("n", 8)}, [change("1", -1)], "3"),
        ({"1": judged("n", 1), "3": judged("n", 0)}, [change("1", 0.5)], "1"),
        ({}, [change("7", 0)], "7"),
    ],
    ids=[
        *("only version", "latest to answer", "promoted", "promoted, not yet answering", "rolled back"),
        *("alias moved by hand", "replaced", "no window yet"),
    ],
)
def test_version_in_service(windows: dict[str, list[JudgedWindow]], changes: list[ServiceChange], version: str) -> None:
    by_version = {"m": {found.version: found for found in changes}} if changes else {}
    found = versions_in_service({("m", name): judged for name, judged in windows.items()}, by_version)
    assert found["m"].version == version


def test_of_two_versions_in_the_latest_window_the_later_one_is_in_service() -> None:
    old, new = judged("n")[0], judged("n")[0]
    new = new._replace(last_prediction_at=new.last_prediction_at + timedelta(minutes=1))
    windows = {("m", "2"): [new], ("m", "1"): [old._replace(published_at=old.published_at + timedelta(seconds=1))]}
    assert versions_in_service(windows, {})["m"].version == "2"


def test_last_rows_of_a_replaced_version_that_are_judged_late_do_not_bring_it_into_service() -> None:
    rest = judged("i", 3)[0]
    rest = rest._replace(published_at=rest.published_at + timedelta(days=7))
    windows = {("m", "1"): [*judged("nnn"), rest], ("m", "2"): judged("nn", 4)}
    assert versions_in_service(windows, {})["m"].version == "2"
    other_partition = [each._replace(window=window(0, 1)) for each in judged("n", 20)]
    assert versions_in_service({**windows, ("m", "3"): other_partition}, {})["m"].version == "3"


def test_statuses_begin_with_versions_in_service_and_among_those_with_drift() -> None:
    cache = VerdictCache(max_events=100)
    for number, (model, version, verdict) in enumerate(
        [
            *(("fine", "1", "drift"), ("fine", "2", "no_drift")),
            *(("bad", "1", "no_drift"), ("bad", "2", "drift")),
            ("unclear", "1", "inconclusive"),
        ]
    ):
        cache.add(make_event(number, model, version, VERDICTS[verdict[0]]))
    for model, version in (("fine", "2"), ("bad", "2")):
        cache.add(
            ModelStateChanged(
                time=BEGIN, retrain_id="r", model=model, version=version, state="promoted", explanation=""
            )
        )
    statuses = version_statuses(cache)
    assert [(status.model, status.version, status.in_service is not None) for status in statuses] == [
        *(("bad", "2", True), ("unclear", "1", True), ("fine", "2", True)),
        *(("fine", "1", False), ("bad", "1", False)),
    ]


@pytest.mark.parametrize("state", ["training", "rejected", "failed"])
def test_only_promotions_and_rollbacks_bring_a_version_into_service(state: str) -> None:
    cache = VerdictCache(max_events=100)
    fields = {"retrain_id": "r", "model": "m", "version": "1", "state": state, "explanation": ""}
    cache.add(ModelStateChanged.model_validate(fields))
    assert cache.service_changes() == {}
