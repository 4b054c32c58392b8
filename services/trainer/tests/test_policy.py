"""The policy's decisions, as a table of scenarios."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from driftloop.events import (
    DataSelection,
    DriftVerdict,
    Evaluation,
    Event,
    Finding,
    MetricEstimate,
    ModelStateChanged,
    QualityVerdict,
    RetrainRequested,
)
from driftloop.events import Window as Slice
from trainer.policy.model_history import MAX_WINDOWS, ModelHistory
from trainer.policy.policy import Decision, decide
from trainer.policy.settings import PolicySettings

HOLDOUT_DAYS = 14
TRAINED_THROUGH = datetime(2013, 3, 31, 23, tzinfo=UTC)
WALL = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = PolicySettings(
    lookback_windows=10,
    min_alarms=4,
    min_days_since_alarm=0,
    max_stale_days=28,
    cooldown_days=7,
    max_cooldown_days=28,
)


def on(day: int) -> datetime:
    """Return noon of the N-th day after the training rows of version 1."""
    return datetime(2013, 3, 31, 12, tzinfo=UTC) + timedelta(days=day)


def judged_at(day: int) -> datetime:
    """Return when a day's verdicts were published: the year is replayed at a day per minute."""
    return WALL + timedelta(minutes=day)


def windows(verdicts: str, first: int = 1, version: str = "1", **changes: Any) -> list[Event]:
    """Return a window per day: ``a`` for drift, ``q`` for no drift, ``u`` for inconclusive."""
    return [
        DriftVerdict(
            id=f"w{day}/{version}",
            time=judged_at(day),
            window=Slice(topic="predictions", partition=0, first_offset=day * 10, last_offset=day * 10 + 9),
            model="m",
            version=version,
            rows=1000,
            first_prediction_at=on(day) - timedelta(hours=8),
            last_prediction_at=on(day),
            verdict={"a": "drift", "q": "no_drift", "u": "inconclusive"}[verdict],
            explanation="",
            findings=[Finding(column="temp", method="wasserstein", value=2, threshold=1, drifted=verdict == "a")],
            archive=["gs://b/x"],
        ).model_copy(update=changes)
        for day, verdict in enumerate(verdicts, first)
    ]


def quality(day: int, verdict: str = "consistent", version: str = "1", resampling_unit: str = "days") -> QualityVerdict:
    """Return a verdict on the outcomes up to a day."""
    found = {
        "rows": 7000,
        "days": 7,
        "resampling_unit": resampling_unit,
        "metrics": {"roc_auc": MetricEstimate(value=0.6, low=0.58, high=0.62)},
    }
    return QualityVerdict.model_validate(
        {
            **{"id": f"q{day}/{version}", "time": judged_at(day), "windows": 7, "model": "m", "version": version},
            **{"window": {"topic": "outcomes", "partition": 0, "first_offset": day, "last_offset": day}},
            **{
                "rows": 7000,
                "unmatched": 0,
                "first_prediction_at": on(day - 6),
                "last_prediction_at": on(day),
                "verdict": verdict,
            },
            **{
                "explanation": "ROC AUC 0.600 in service, 0.700 at the gate",
                "in_service": Evaluation.model_validate(found),
            },
        }
    )


def request(name: str, day: int | None = None) -> RetrainRequested:
    """Return a request by the policy on a day, or by a person."""
    by = (
        {"trigger": "drift", "requested_by": "policy", "window_end": on(day)}
        if day
        else {"trigger": "manual", "requested_by": "me"}
    )
    return RetrainRequested.model_validate({"id": name, "model": "m", "reason": "", "time": WALL, **by})


def change(
    name: str, state: str, version: str | None = None, day: int = 0, trained_through: int | None = None
) -> ModelStateChanged:
    """Return a state of a retrain."""
    time = None if trained_through is None else on(trained_through)
    return ModelStateChanged.model_validate(
        {
            **{"id": f"{name}/{state}/{version}", "retrain_id": name, "model": "m", "version": version},
            **{"state": state, "explanation": "", "time": judged_at(day), "trained_through": time},
        }
    )


FIRST_VERSION = [request("first"), change("first", "promoted", "1", trained_through=0)]
WITH_OUTCOMES = [*FIRST_VERSION, quality(20)]
"""Version 1 is in service, and outcomes of 20 later days are known."""


def decision_on(events: Sequence[Event], policy: PolicySettings = POLICY) -> Decision:
    history = ModelHistory("m")
    for event in events:
        history.add(event)
    return decide(history, policy, HOLDOUT_DAYS, datetime.date)


SCENARIOS: dict[str, tuple[list[Event], str]] = {
    "no events": ([], "nothing: no version is in service"),
    "alarms before any version": (windows("aaaa"), "nothing: no version is in service"),
    "windows without drift": (
        [*WITH_OUTCOMES, *windows("qqqqqqqqqq")],
        "nothing: 0 of the last 10 windows of version 1 alarm",
    ),
    "one unusual day, which makes a run of three alarms": (
        [*WITH_OUTCOMES, *windows("qqqqaaaqqq")],
        "nothing: 3 of the last 10 windows of version 1 alarm, and 4 are needed",
    ),
    "alarms again and again": (
        [*WITH_OUTCOMES, *windows("qqaaaqqqqa")],
        "retrain: 4 of the last 10 windows of version 1 alarm, most often temp",
    ),
    "the first windows of all": ([*WITH_OUTCOMES, *windows("aaaa")], "retrain: 4 of the last 4 windows"),
    "alarms before the last windows": ([*WITH_OUTCOMES, *windows("aaaaqqqqqqqqqq")], "nothing: 0 of the last 10"),
    "inconclusive windows are ignored": ([*WITH_OUTCOMES, *windows("aauuuuuuuuaa")], "retrain: 4 of the last 4"),
    "windows of another version": (
        [*WITH_OUTCOMES, *windows("aaaaaa", version="2")],
        "nothing: 0 of the last 0 windows of version 1",
    ),
    "windows of another model": ([*WITH_OUTCOMES, *windows("aaaaaa", model="other")], "nothing: 0 of the last 0"),
    "replayed verdicts": ([*WITH_OUTCOMES, *windows("aaaaaa", replayed=True)], "nothing: 0 of the last 0"),
    "degraded": (
        [*FIRST_VERSION, quality(20, "degraded")],
        "retrain: version 1 is worse than at its gate: ROC AUC 0.600 in service, 0.700 at the gate",
    ),
    "degraded, resampled by rows": ([*FIRST_VERSION, quality(20, "degraded", resampling_unit="rows")], "nothing: "),
    "degraded earlier": ([*FIRST_VERSION, quality(19, "degraded"), quality(20)], "nothing: "),
    "degraded, and later outcomes could not be compared": (
        [*FIRST_VERSION, quality(20, "degraded"), quality(21, "inconclusive"), quality(22, "inconclusive")],
        "retrain: version 1 is worse than at its gate",
    ),
    "recovered, and later outcomes could not be compared": (
        [*FIRST_VERSION, quality(20, "degraded"), quality(21), quality(22, "inconclusive")],
        "nothing: 0 of the last 0 windows",
    ),
    "outcomes of another model's version of the same number": (
        [*WITH_OUTCOMES, quality(21, "degraded").model_copy(update={"model": "other"})],
        "nothing: 0 of the last 0 windows",
    ),
    "five models, one of which alarms, with versions of the same number": (
        [
            *WITH_OUTCOMES,
            *(event for model in ("a", "b", "c", "d") for event in windows("ququ", model=model)),
            *windows("auaauuau"),
            *windows("qqqqqqqq", first=9, model="a"),
        ],
        "retrain: 4 of the last 4 windows of version 1 alarm",
    ),
    "an earlier version was degraded": (
        [*FIRST_VERSION, quality(20, "degraded"), change("second", "promoted", "2", trained_through=20)],
        "nothing: 0 of the last 0 windows of version 2",
    ),
    "alarms and degraded": (
        [*FIRST_VERSION, *windows("aaaa"), quality(20, "degraded")],
        "retrain: 4 of the last 4 windows of",
    ),
    "a retrain is pending": (
        [*WITH_OUTCOMES, *windows("aaaa"), request("by-hand")],
        "training: 4 of the last 4 windows of version 1 alarm, most often temp; but retrain by-hand is pending",
    ),
    "a training has started": (
        [*WITH_OUTCOMES, *windows("aaaa"), request("by-hand"), change("by-hand", "training")],
        "training: ",
    ),
    "a manual retrain was rejected": (
        [*WITH_OUTCOMES, *windows("aaaa"), request("by-hand"), change("by-hand", "rejected", "2")],
        "retrain: ",
    ),
    "a retrain without state before a finished one": (
        [*WITH_OUTCOMES, *windows("aaaa"), request("lost"), request("by-hand"), change("by-hand", "failed")],
        "retrain: ",
    ),
    "cooldown": (
        [*WITH_OUTCOMES, *windows("aaaa"), request("p", 1), change("p", "promoted", "1", trained_through=0)],
        "cooldown: 4 of the last 4 windows of version 1 alarm, most often temp; but the cooldown lasts until "
        "2013-04-08 12:00",
    ),
    "after a cooldown": (
        [*WITH_OUTCOMES, *windows("aaaa", first=5), request("p", 1), change("p", "promoted", "1", trained_through=0)],
        "retrain: ",
    ),
    "rejected once: the cooldown is doubled": (
        [*WITH_OUTCOMES, *windows("aaaa", first=11), request("p", 1), change("p", "rejected", "2")],
        "cooldown: 4 of the last 4 windows of version 1 alarm, most often temp; but the cooldown lasts until "
        "2013-04-15 12:00",
    ),
    "rejected once, later": (
        [*WITH_OUTCOMES, *windows("aaaa", first=12), request("p", 1), change("p", "rejected", "2")],
        "retrain: ",
    ),
    "failed and rejected: doubled twice": (
        [
            *[*WITH_OUTCOMES, *windows("aaaa", first=30), request("p", 1), change("p", "failed")],
            *[request("r", 16), change("r", "rejected", "2")],
        ],
        "cooldown: 4 of the last 4 windows of version 1 alarm, most often temp; but the cooldown lasts until "
        "2013-05-14 12:00",
    ),
    "rejected often: not longer than the longest": (
        [
            *[*WITH_OUTCOMES, *windows("aaaa", first=86)],
            *[event for n in range(1, 60) for event in (request(f"p{n}", n), change(f"p{n}", "rejected", "2"))],
        ],
        "retrain: ",
    ),
    "a promotion ends the doubling": (
        [
            *[*WITH_OUTCOMES, *windows("aaaa", first=20), request("p", 1), change("p", "rejected", "2")],
            *[request("by-hand"), change("by-hand", "promoted", "1", trained_through=0)],
        ],
        "retrain: ",
    ),
    "its version was rolled back: doubled": (
        [
            *[*WITH_OUTCOMES, request("p", 1), change("p", "promoted", "2", day=1, trained_through=1)],
            *[change("p", "rolled_back", "1", day=3), *windows("aaaa", first=4)],
        ],
        "cooldown: 4 of the last 4 windows of version 1 alarm, most often temp; but the cooldown lasts until "
        "2013-04-15 12:00",
    ),
    "back in service: earlier verdicts are no reason": (
        [
            *[*WITH_OUTCOMES, *windows("aaaa"), quality(20, "degraded"), request("by-hand")],
            *[change("by-hand", "promoted", "2", day=21), change("by-hand", "rolled_back", "1", day=22)],
        ],
        "nothing: 0 of the last 0 windows of version 1",
    ),
    "a version of the same number, of the model before it was deleted and made again": (
        [
            *[*WITH_OUTCOMES, *windows("aaaa"), quality(21, "degraded"), request("by-hand")],
            *[change("by-hand", "promoted", "1", day=22, trained_through=0), *windows("a", first=23)],
        ],
        "nothing: 1 of the last 1 windows of version 1 alarm",
    ),
    "too few days of outcomes": (
        [*FIRST_VERSION, *windows("aaaa", first=12), quality(13)],
        "insufficient_outcomes: 4 of the last 4 windows of version 1 alarm, most often temp; but a retrain could not "
        "help yet: version 1 was trained on rows up to 2013-03-31, outcomes are known up to 2013-04-13, and the gate "
        "needs 14 days of later ones: 1 more (DRIFTLOOP_GATE__HOLDOUT_DAYS)",
    ),
    "just enough days of outcomes": ([*FIRST_VERSION, *windows("aaaa", first=12), quality(14)], "retrain: "),
    "no outcome at all": (
        [*FIRST_VERSION, *windows("aaaa")],
        "insufficient_outcomes: 4 of the last 4 windows of version 1 alarm, most often temp; but a retrain could not "
        "help yet: version 1 was trained on rows up to 2013-03-31, outcomes are known of no prediction, and the gate "
        "needs 14 days of later ones: 14 more (DRIFTLOOP_GATE__HOLDOUT_DAYS)",
    ),
    "outcomes of the previous version count": (
        [
            *FIRST_VERSION,
            change("second", "promoted", "2", trained_through=3),
            quality(17),
            *windows("aaaa", first=18, version="2"),
        ],
        "retrain: 4 of the last 4 windows of version 2",
    ),
    "many days of outcomes that no version was trained on": (
        [*FIRST_VERSION, *windows("qqqq"), quality(28)],
        "retrain: 28 days or more of outcomes, those after 2013-03-31, have been in no training",
    ),
    "one day fewer": (
        [*FIRST_VERSION, *windows("qqqq"), quality(27)],
        "nothing: 0 of the last 4 windows of version 1 alarm",
    ),
    "alarms, and many days": (
        [*FIRST_VERSION, *windows("aaaa"), quality(28)],
        "retrain: 4 of the last 4 windows of version 1 alarm, most often temp; 28 days or more of outcomes",
    ),
    "many days, and a retrain is pending": (
        [*FIRST_VERSION, quality(28), request("by-hand")],
        "training: 28 days or more of outcomes, those after 2013-03-31, have been in no training "
        "(DRIFTLOOP_POLICY__MAX_STALE_DAYS); but retrain by-hand is pending",
    ),
    "many days, after a training that failed": (
        [*FIRST_VERSION, request("p", 28), change("p", "failed"), quality(29)],
        "cooldown: 28 days or more of outcomes, those after 2013-03-31, have been in no training "
        "(DRIFTLOOP_POLICY__MAX_STALE_DAYS); but the cooldown lasts until 2013-05-12 12:00",
    ),
    "days that a rejected version was trained on": (
        [*FIRST_VERSION, request("p", 28), change("p", "rejected", "2", trained_through=14), quality(41)],
        "nothing: ",
    ),
    "as many days again after a rejected version": (
        [*FIRST_VERSION, request("p", 28), change("p", "rejected", "2", trained_through=14), quality(42)],
        "retrain: 28 days or more of outcomes, those after 2013-04-14, have been in no training",
    ),
    "days that a rolled-back version was trained on": (
        [
            *[*FIRST_VERSION, request("by-hand"), change("by-hand", "promoted", "2", day=28, trained_through=28)],
            *[quality(55), change("by-hand", "rolled_back", "1", day=55)],
        ],
        "nothing: ",
    ),
    "many days, and an older verdict arrives late": (
        [*FIRST_VERSION, quality(28), quality(3, version="0")],
        "retrain: ",
    ),
    "unknown end of a version's training rows": (
        [request("first"), change("first", "promoted", "1"), *windows("aaaa")],
        "retrain: ",
    ),
}


@pytest.mark.parametrize(("events", "said"), SCENARIOS.values(), ids=SCENARIOS)
def test_policy_decision(events: list[Event], said: str) -> None:
    decision = decision_on(events)
    assert f"{decision.kind}: {decision.explanation}".startswith(said)
    assert (decision.retrain is not None) == (decision.kind == "retrain")


@pytest.mark.parametrize("events", [events for events, _ in SCENARIOS.values()], ids=SCENARIOS)
def test_policy_ignores_repeated_events(events: list[Event]) -> None:
    for again in range(len(events)):
        assert decision_on([*events, *events[again:]]) == decision_on(events)


@pytest.mark.parametrize("events", [events for events, _ in SCENARIOS.values()], ids=SCENARIOS)
def test_policy_does_not_depend_on_order_of_verdicts(events: list[Event]) -> None:
    verdicts = [event for event in events if event.topic == "drift"]
    others = [event for event in events if event.topic != "drift"]
    assert decision_on([*reversed(verdicts), *others]) == decision_on(events)


def test_policy_repeats_lost_decision_with_same_event() -> None:
    once, again = decision_on([*WITH_OUTCOMES, *windows("aaaa")]), decision_on([*WITH_OUTCOMES, *windows("aaaa")])
    assert once.retrain == again.retrain
    later = decision_on([*WITH_OUTCOMES, *windows("aaaaa")])
    assert once.retrain is not None
    assert later.retrain is not None
    assert later.retrain.id != once.retrain.id


def test_policy_retrain_has_reason_window_and_data_selection() -> None:
    policy = POLICY.model_copy(update={"data": DataSelection(base_end=date(2013, 4, 1))})
    retrain = decision_on([*WITH_OUTCOMES, *windows("aaaa")], policy).retrain
    assert retrain is not None
    assert (retrain.model, retrain.trigger, retrain.requested_by) == ("m", "drift", "policy")
    assert (retrain.window_end, retrain.time) == (on(4), judged_at(4))
    assert retrain.data.base_end == date(2013, 4, 1)
    assert retrain.reason == (
        "4 of the last 4 windows of version 1 alarm, most often temp; since the first alarm, on 2013-04-01 04:00, "
        "there are 19.3 days of outcomes, and 4,000 rows were predicted"
    )


WAITING = POLICY.model_copy(update={"min_days_since_alarm": 7})
SINCE_ALARM: dict[str, tuple[list[Event], str, int]] = {
    "a day and a half of the change": (
        [*FIRST_VERSION, *windows("q" * 12 + "aaaa"), quality(14)],
        "insufficient_outcomes: 4 of the last 10 windows of version 1 alarm, most often temp; but a version could "
        "learn little of the change yet: since the first alarm, on 2013-04-13 04:00, there are 1.3 days of outcomes, "
        "and 4,000 rows were predicted; a retrain waits for 7 days of them (DRIFTLOOP_POLICY__MIN_DAYS_SINCE_ALARM)",
        6,
    ),
    "outcomes end before the change": (
        [*FIRST_VERSION, *windows("q" * 15 + "aaaa"), quality(14)],
        "insufficient_outcomes: ",
        7,
    ),
    "enough days of the change": ([*FIRST_VERSION, *windows("q" * 12 + "a" * 9), quality(20)], "retrain: ", 0),
    "the first alarm is before the lookback windows": (
        [*FIRST_VERSION, *windows("aaaaqaaqaaaqaaaaq"), quality(15)],
        "retrain: ",
        0,
    ),
    "an earlier change, which ended": (
        [*FIRST_VERSION, *windows("aaaa" + "q" * 10 + "aaaa"), quality(18)],
        "insufficient_outcomes: ",
        4,
    ),
    "no outcome is known": ([change("first", "promoted", "1"), *windows("aaaa")], "insufficient_outcomes: ", 7),
    "alarms are not the only reason": (
        [*FIRST_VERSION, *windows("q" * 12 + "aaaa"), quality(14, "degraded")],
        "retrain: ",
        0,
    ),
}


@pytest.mark.parametrize(("events", "said", "missing_days"), SINCE_ALARM.values(), ids=SINCE_ALARM)
def test_policy_waits_for_days_of_outcomes_since_the_first_alarm(
    events: list[Event], said: str, missing_days: int
) -> None:
    decision = decision_on(events, WAITING)
    assert f"{decision.kind}: {decision.explanation}".startswith(said)
    assert decision.missing_days == missing_days


def test_policy_without_max_stale_days_never_retrains_for_staleness() -> None:
    assert (
        decision_on([*FIRST_VERSION, quality(300)], POLICY.model_copy(update={"max_stale_days": 0})).kind == "nothing"
    )


def test_policy_that_is_disabled_decides_off() -> None:
    off = decision_on([*WITH_OUTCOMES, *windows("aaaa")], POLICY.model_copy(update={"enabled": False}))
    assert off == Decision("off", "the policy is off (DRIFTLOOP_POLICY__ENABLED)")


def test_policy_reports_missing_outcome_days() -> None:
    assert decision_on([*FIRST_VERSION, *windows("aaaa"), quality(4)]).missing_days == 10


def test_model_history_keeps_latest_windows_of_each_version() -> None:
    history = ModelHistory("m")
    for event in [*windows("a" * 5, first=0), *windows("q" * MAX_WINDOWS, first=5), *windows("a" * 5, first=0)]:
        history.add(event)
    assert len(history.windows["1"]) == MAX_WINDOWS
    assert not any(window.alarm for window in history.windows["1"].values())


def test_rollback_counts_although_the_promotion_is_published_after_it() -> None:
    history = ModelHistory("m")
    for event in (
        change("first", "promoted", "1", day=0),
        change("back", "rolled_back", "1", day=3),
        change("second", "promoted", "2", day=2),
    ):
        history.add(event)
    assert history.in_service is not None
    assert (history.in_service.state, history.in_service.version) == ("rolled_back", "1")
