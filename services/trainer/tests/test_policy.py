"""When a retrain is asked for: a table of scenarios."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from driftloop.events import DataSelection, Drift, Event, Figure, Finding, Measurement, ModelChange, Quality, Retrain
from driftloop.events import Window as Slice
from trainer.policy.policy import MOST_WINDOWS, Decision, State, decide
from trainer.settings import Policy

HELD_OUT_DAYS = 14
LEARNED = datetime(2013, 3, 31, 23, tzinfo=UTC)
WALL = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = Policy(windows=10, alarms=4, unlearned_days=28, cooldown_days=7, longest_cooldown_days=28)


def on(day: int) -> datetime:
    """Noon of a day after those that version 1 has learned from."""
    return datetime(2013, 3, 31, 12, tzinfo=UTC) + timedelta(days=day)


def given(day: int) -> datetime:
    """When a day's verdicts were given: the year is replayed a day a minute."""
    return WALL + timedelta(minutes=day)


def windows(verdicts: str, first: int = 1, version: str = "1", **changes: Any) -> list[Event]:
    """A window a day: ``a`` alarms, ``q`` is quiet, ``u`` could not be judged."""
    return [
        Drift(
            id=f"w{day}/{version}",
            time=given(day),
            window=Slice(topic="predictions", partition=0, first_offset=day * 10, last_offset=day * 10 + 9),
            model="m",
            version=version,
            rows=1000,
            starts=on(day) - timedelta(hours=8),
            ends=on(day),
            verdict={"a": "alarm", "q": "quiet", "u": "unjudged"}[verdict],
            why="",
            findings=[Finding(column="temp", method="wasserstein", value=2, threshold=1, drifted=verdict == "a")],
            archive="gs://b/x",
        ).model_copy(update=changes)
        for day, verdict in enumerate(verdicts, first)
    ]


def quality(day: int, verdict: str = "as measured", version: str = "1", drawn: str = "days") -> Quality:
    """What the outcomes say that are known up to a day."""
    found = {"rows": 7000, "days": 7, "drawn": drawn, "figures": {"roc_auc": Figure(value=0.6, low=0.58, high=0.62)}}
    return Quality.model_validate(
        {
            **{"id": f"q{day}/{version}", "time": given(day), "windows": 7, "model": "m", "version": version},
            **{"window": {"topic": "outcomes", "partition": 0, "first_offset": day, "last_offset": day}},
            **{"rows": 7000, "unmatched": 0, "starts": on(day - 6), "ends": on(day), "verdict": verdict},
            **{"why": "ROC AUC 0.600 in service, 0.700 at the gate", "found": Measurement.model_validate(found)},
        }
    )


def asked(name: str, day: int | None = None) -> Retrain:
    """By the policy on a day, or by a person."""
    by = (
        {"trigger": "drift", "asked_by": "policy", "as_of": on(day)} if day else {"trigger": "manual", "asked_by": "me"}
    )
    return Retrain.model_validate({"id": name, "model": "m", "reason": "", "time": WALL, **by})


def change(name: str, state: str, version: str | None = None, day: int = 0, learned: int | None = None) -> ModelChange:
    """A retrain's state."""
    learned_until = None if learned is None else on(learned)
    return ModelChange.model_validate(
        {
            **{"id": f"{name}/{state}/{version}", "retrain_id": name, "model": "m", "version": version},
            **{"state": state, "why": "", "time": given(day), "learned_until": learned_until},
        }
    )


ONE = [asked("first"), change("first", "promoted", "1", learned=0)]
ENOUGH = [*ONE, quality(20)]
"""Version 1 is in service, and outcomes of 20 later days are known."""


def decided(events: Sequence[Event], policy: Policy = POLICY) -> Decision:
    state = State("m")
    for event in events:
        state.add(event)
    return decide(state, policy, HELD_OUT_DAYS, datetime.date)


SCENARIOS: dict[str, tuple[list[Event], str]] = {
    "nothing has been said": ([], "nothing: no version is in service"),
    "alarms before any version": (windows("aaaa"), "nothing: no version is in service"),
    "quiet windows": ([*ENOUGH, *windows("qqqqqqqqqq")], "nothing: 0 of the last 10 windows of version 1 alarm"),
    "one odd day, which makes a run of three": (
        [*ENOUGH, *windows("qqqqaaaqqq")],
        "nothing: 3 of the last 10 windows of version 1 alarm, and 4 are needed",
    ),
    "alarms again and again": (
        [*ENOUGH, *windows("qqaaaqqqqa")],
        "retrain: 4 of the last 10 windows of version 1 alarm, most often temp",
    ),
    "the first windows of all": ([*ENOUGH, *windows("aaaa")], "retrain: 4 of the last 4 windows"),
    "alarms that are long ago": ([*ENOUGH, *windows("aaaaqqqqqqqqqq")], "nothing: 0 of the last 10"),
    "windows that could not be judged are none": ([*ENOUGH, *windows("aauuuuuuuuaa")], "retrain: 4 of the last 4"),
    "windows of another version": (
        [*ENOUGH, *windows("aaaaaa", version="2")],
        "nothing: 0 of the last 0 windows of version 1",
    ),
    "windows of another model": ([*ENOUGH, *windows("aaaaaa", model="other")], "nothing: 0 of the last 0"),
    "verdicts that were given again": ([*ENOUGH, *windows("aaaaaa", replayed=True)], "nothing: 0 of the last 0"),
    "worse than measured": (
        [*ONE, quality(20, "worse")],
        "retrain: version 1 is worse than its gate measured: ROC AUC 0.600 in service, 0.700 at the gate",
    ),
    "worse, by rows of too few days": ([*ONE, quality(20, "worse", drawn="rows")], "nothing: "),
    "worse a while ago": ([*ONE, quality(19, "worse"), quality(20)], "nothing: "),
    "a version before was worse": (
        [*ONE, quality(20, "worse"), change("second", "promoted", "2", learned=20)],
        "nothing: 0 of the last 0 windows of version 2",
    ),
    "alarms and worse": ([*ONE, *windows("aaaa"), quality(20, "worse")], "retrain: 4 of the last 4 windows of"),
    "a training is under way": (
        [*ENOUGH, *windows("aaaa"), asked("by-hand")],
        "training: 4 of the last 4 windows of version 1 alarm, most often temp; but retrain by-hand is under way",
    ),
    "a training has begun": (
        [*ENOUGH, *windows("aaaa"), asked("by-hand"), change("by-hand", "training")],
        "training: ",
    ),
    "a person's training came to nothing": (
        [*ENOUGH, *windows("aaaa"), asked("by-hand"), change("by-hand", "rejected", "2")],
        "retrain: ",
    ),
    "one that nothing is known of, before one that is over": (
        [*ENOUGH, *windows("aaaa"), asked("lost"), asked("by-hand"), change("by-hand", "failed")],
        "retrain: ",
    ),
    "a cooldown": (
        [*ENOUGH, *windows("aaaa"), asked("p", 1), change("p", "promoted", "1", learned=0)],
        "cooldown: 4 of the last 4 windows of version 1 alarm, most often temp; but no retrain is asked for before "
        "2013-04-08 12:00",
    ),
    "after a cooldown": (
        [*ENOUGH, *windows("aaaa", first=5), asked("p", 1), change("p", "promoted", "1", learned=0)],
        "retrain: ",
    ),
    "rejected once: the cooldown is doubled": (
        [*ENOUGH, *windows("aaaa", first=11), asked("p", 1), change("p", "rejected", "2")],
        "cooldown: 4 of the last 4 windows of version 1 alarm, most often temp; but no retrain is asked for before "
        "2013-04-15 12:00",
    ),
    "rejected once, later": (
        [*ENOUGH, *windows("aaaa", first=12), asked("p", 1), change("p", "rejected", "2")],
        "retrain: ",
    ),
    "failed and rejected: doubled twice": (
        [
            *[*ENOUGH, *windows("aaaa", first=30), asked("p", 1), change("p", "failed")],
            *[asked("r", 16), change("r", "rejected", "2")],
        ],
        "cooldown: 4 of the last 4 windows of version 1 alarm, most often temp; but no retrain is asked for before "
        "2013-05-14 12:00",
    ),
    "rejected often: not longer than the longest": (
        [
            *[*ENOUGH, *windows("aaaa", first=86)],
            *[event for n in range(1, 60) for event in (asked(f"p{n}", n), change(f"p{n}", "rejected", "2"))],
        ],
        "retrain: ",
    ),
    "a promotion ends the doubling": (
        [
            *[*ENOUGH, *windows("aaaa", first=20), asked("p", 1), change("p", "rejected", "2")],
            *[asked("by-hand"), change("by-hand", "promoted", "1", learned=0)],
        ],
        "retrain: ",
    ),
    "its version did not stay: doubled": (
        [
            *[*ENOUGH, asked("p", 1), change("p", "promoted", "2", day=1, learned=1)],
            *[change("p", "rolled_back", "1", day=3), *windows("aaaa", first=4)],
        ],
        "cooldown: 4 of the last 4 windows of version 1 alarm, most often temp; but no retrain is asked for before "
        "2013-04-15 12:00",
    ),
    "back in service: what was said before is no reason any more": (
        [
            *[*ENOUGH, *windows("aaaa"), quality(20, "worse"), asked("by-hand")],
            *[change("by-hand", "promoted", "2", day=21), change("by-hand", "rolled_back", "1", day=22)],
        ],
        "nothing: 0 of the last 0 windows of version 1",
    ),
    "too few days of outcomes": (
        [*ONE, *windows("aaaa", first=12), quality(13)],
        "too few outcomes: 4 of the last 4 windows of version 1 alarm, most often temp; but a retrain could not help "
        "yet: version 1 has learned from rows up to 2013-03-31, outcomes are known up to 2013-04-13, and the gate "
        "needs 14 days of later ones: 1 more (DRIFTLOOP_GATE__HELD_OUT_DAYS)",
    ),
    "just enough days of outcomes": ([*ONE, *windows("aaaa", first=12), quality(14)], "retrain: "),
    "no outcome at all": (
        [*ONE, *windows("aaaa")],
        "too few outcomes: 4 of the last 4 windows of version 1 alarm, most often temp; but a retrain could not help "
        "yet: version 1 has learned from rows up to 2013-03-31, outcomes are known of no prediction, and the gate "
        "needs 14 days of later ones: 14 more (DRIFTLOOP_GATE__HELD_OUT_DAYS)",
    ),
    "outcomes of the version before count": (
        [*ONE, change("second", "promoted", "2", learned=3), quality(17), *windows("aaaa", first=18, version="2")],
        "retrain: 4 of the last 4 windows of version 2",
    ),
    "many days of outcomes that nothing has learned from": (
        [*ONE, *windows("qqqq"), quality(28)],
        "retrain: no version has learned from the outcomes after 2013-03-31, 28 days of them or more",
    ),
    "not quite as many": ([*ONE, *windows("qqqq"), quality(27)], "nothing: 0 of the last 4 windows of version 1 alarm"),
    "alarms, and many days": (
        [*ONE, *windows("aaaa"), quality(28)],
        "retrain: 4 of the last 4 windows of version 1 alarm, most often temp; no version has learned from",
    ),
    "many days, and a training is under way": (
        [*ONE, quality(28), asked("by-hand")],
        "training: no version has learned from the outcomes after 2013-03-31, 28 days of them or more; but retrain "
        "by-hand is under way",
    ),
    "many days, after a training that failed": (
        [*ONE, asked("p", 28), change("p", "failed"), quality(29)],
        "cooldown: no version has learned from the outcomes after 2013-03-31, 28 days of them or more; but no retrain "
        "is asked for before 2013-05-12 12:00",
    ),
    "days that a version has learned from, though it was rejected": (
        [*ONE, asked("p", 28), change("p", "rejected", "2", learned=14), quality(41)],
        "nothing: ",
    ),
    "as many days again after a version that was rejected": (
        [*ONE, asked("p", 28), change("p", "rejected", "2", learned=14), quality(42)],
        "retrain: no version has learned from the outcomes after 2013-04-14, 28 days of them or more",
    ),
    "days that a version has learned from, though somebody went back": (
        [
            *[*ONE, asked("by-hand"), change("by-hand", "promoted", "2", day=28, learned=28)],
            *[quality(55), change("by-hand", "rolled_back", "1", day=55)],
        ],
        "nothing: ",
    ),
    "many days, and an older word comes late": ([*ONE, quality(28), quality(3, version="0")], "retrain: "),
    "a version that learned until nobody knows when": (
        [asked("first"), change("first", "promoted", "1"), *windows("aaaa")],
        "retrain: ",
    ),
}


@pytest.mark.parametrize(("events", "said"), SCENARIOS.values(), ids=SCENARIOS)
def test_what_the_policy_says(events: list[Event], said: str) -> None:
    decision = decided(events)
    assert f"{decision.what}: {decision.why}".startswith(said)
    assert (decision.retrain is not None) == (decision.what == "retrain")


@pytest.mark.parametrize("events", [events for events, _ in SCENARIOS.values()], ids=SCENARIOS)
def test_events_that_come_again_change_nothing(events: list[Event]) -> None:
    for again in range(len(events)):
        assert decided([*events, *events[again:]]) == decided(events)


@pytest.mark.parametrize("events", [events for events, _ in SCENARIOS.values()], ids=SCENARIOS)
def test_verdicts_may_come_in_any_order(events: list[Event]) -> None:
    verdicts = [event for event in events if event.topic == "drift"]
    others = [event for event in events if event.topic != "drift"]
    assert decided([*reversed(verdicts), *others]) == decided(events)


def test_a_decision_that_is_taken_again_is_the_same_event() -> None:
    once, again = decided([*ENOUGH, *windows("aaaa")]), decided([*ENOUGH, *windows("aaaa")])
    assert once.retrain == again.retrain
    later = decided([*ENOUGH, *windows("aaaaa")])
    assert once.retrain is not None
    assert later.retrain is not None
    assert later.retrain.id != once.retrain.id


def test_a_decision_says_what_decided_it_and_which_rows_to_use() -> None:
    policy = POLICY.model_copy(update={"data": DataSelection(end=date(2013, 4, 1))})
    retrain = decided([*ENOUGH, *windows("aaaa")], policy).retrain
    assert retrain is not None
    assert (retrain.model, retrain.trigger, retrain.asked_by) == ("m", "drift", "policy")
    assert (retrain.as_of, retrain.time) == (on(4), given(4))
    assert retrain.data.end == date(2013, 4, 1)
    assert retrain.reason == "4 of the last 4 windows of version 1 alarm, most often temp"


def test_without_a_number_of_days_no_days_are_too_many() -> None:
    assert decided([*ONE, quality(300)], POLICY.model_copy(update={"unlearned_days": 0})).what == "nothing"


def test_a_policy_that_is_off_says_so() -> None:
    off = decided([*ENOUGH, *windows("aaaa")], POLICY.model_copy(update={"enabled": False}))
    assert off == Decision("off", "the policy is off (DRIFTLOOP_POLICY__ENABLED)")


def test_what_is_missing_is_a_number_too() -> None:
    assert decided([*ONE, *windows("aaaa"), quality(4)]).lacking_days == 10


def test_a_version_is_kept_so_many_windows_of_and_the_latest() -> None:
    state = State("m")
    for event in [*windows("a" * 5, first=0), *windows("q" * MOST_WINDOWS, first=5), *windows("a" * 5, first=0)]:
        state.add(event)
    assert len(state.windows["1"]) == MOST_WINDOWS
    assert not any(window.alarm for window in state.windows["1"].values())
