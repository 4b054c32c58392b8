"""Properties of the policy: each decision is taken once, whatever is killed, repeated or read in another order."""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.events import DriftVerdict, Event, ModelStateChanged, QualityVerdict, RetrainRequested
from tests.support.policy_process import Broker, Process
from tests.support.synthetic_usecase import make_use_case
from trainer.policy.model_history import ModelHistory
from trainer.policy.policy import decide
from trainer.policy.settings import PolicySettings

POLICY = PolicySettings(
    lookback_windows=5, min_alarms=2, min_days_since_alarm=1, max_stale_days=20, cooldown_days=3, max_cooldown_days=12
)
HOLDOUT_DAYS = 2
MAX_DAYS = 40
MAX_KILLED_STEP = 600
BEGIN = datetime(2013, 4, 1, 16, tzinfo=UTC)


class Day(NamedTuple):
    """What happens on a day."""

    drift: str
    quality: str
    resampling_unit: str
    later: bool
    """Whether what is known of outcomes lags by five days."""
    repeated: int
    """How often the day's events are published."""
    result: str
    """How a retrain ends that is requested on this day."""
    takes: int
    """Days that it takes."""


DAY = st.builds(
    Day,
    st.sampled_from(["drift", "drift", "no_drift", "inconclusive"]),
    st.sampled_from(["consistent", "degraded", "inconclusive"]),
    st.sampled_from(["days", "days", "rows"]),
    st.booleans(),
    st.sampled_from([1, 1, 1, 2]),
    st.sampled_from(["promoted", "promoted", "rejected", "failed", "rolled_back"]),
    st.integers(0, 3),
)
DAYS = st.lists(DAY, max_size=MAX_DAYS) | st.lists(DAY, min_size=MAX_DAYS // 2, max_size=MAX_DAYS)
KILLS = st.sets(st.integers(1, MAX_KILLED_STEP)) | st.integers(3, 30).map(
    lambda each: set(range(each, MAX_KILLED_STEP, each))
)


def window_event(name: str, number: int, version: str, day: int, last_prediction: datetime) -> dict[str, Any]:
    return {
        "id": f"{name}{number}/{version}",
        "time": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number),
        "window": {"topic": "predictions", "partition": 0, "first_offset": number, "last_offset": number},
        "model": "m",
        "version": version,
        "rows": 1000,
        "first_prediction_at": last_prediction - timedelta(hours=8),
        "last_prediction_at": last_prediction,
        "explanation": f"day {day}",
    }


def verdicts_of(number: int, day: Day, version: str) -> list[Event]:
    """Return the events of a day about the version in service."""
    at = BEGIN + timedelta(days=number)
    known = at - timedelta(days=5 if day.later else 0)
    found = {"rows": 1000, "days": 7, "resampling_unit": day.resampling_unit, "metrics": {}}
    drift = {**window_event("w", number, version, number, at), "verdict": day.drift, "archive": []}
    quality = {**window_event("q", number, version, number, known), "verdict": day.quality, "in_service": found}
    return [
        DriftVerdict.model_validate(drift),
        QualityVerdict.model_validate({**quality, "windows": 1, "unmatched": 0}),
    ]


def state(retrain_id: str, name: str, version: str | None, number: int) -> ModelStateChanged:
    at = BEGIN + timedelta(days=number)
    return ModelStateChanged(
        id=f"{retrain_id}/{name}",
        time=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number),
        retrain_id=retrain_id,
        model="m",
        version=version,
        state=name,
        explanation="",
        trained_through=at if name in ("promoted", "rejected") else None,
    )


def run(days: Iterable[Day], kills: Collection[int] = (), *, at_once: bool = False) -> Broker:
    """Let days pass; the policy reads each event as it comes, or all of a day ``at_once``."""
    broker = Broker(kills)
    process = Process(broker, make_use_case(), POLICY, HOLDOUT_DAYS)
    versions = ["1"]
    ends: dict[str, tuple[int, str]] = {}

    def publish(topic: str, event: Event) -> None:
        broker.topics[topic].append(event)
        if not at_once:
            process.catch_up()

    publish("models", state("0", "promoted", "1", 0))
    for number, day in enumerate(days, 1):
        for event in verdicts_of(number, day, versions[-1]) * day.repeated:
            publish("drift", event)
        process.catch_up()
        for retrain in list(broker.topics["retrain"]):
            if retrain.id not in ends:
                ends[retrain.id] = (number + day.takes, day.result)
                publish("models", state(retrain.id, "training", None, number))
            at, result = ends[retrain.id]
            if at == number and result == "rolled_back":
                publish("models", state(retrain.id, "promoted", str(len(ends) + 1), number))
                publish("models", state(retrain.id, "rolled_back", versions[-1], number))
            elif at == number:
                versions += [str(len(ends) + 1)] if result == "promoted" else []
                publish("models", state(retrain.id, result, versions[-1] if result == "promoted" else None, number))
        process.catch_up()
    return broker


@settings(max_examples=60)
@given(days=DAYS, kills=KILLS)
def test_decisions_are_the_same_wherever_the_policy_is_killed(days: list[Day], kills: set[int]) -> None:
    undisturbed, killed = run(days), run(days, kills)
    assert killed.topics == undisturbed.topics


@settings(max_examples=60)
@given(days=DAYS, kills=KILLS)
def test_no_decision_is_taken_twice_or_within_the_cooldown_while_the_policy_lags(
    days: list[Day], kills: set[int]
) -> None:
    retrains = run(days, kills, at_once=True).topics["retrain"]
    assert len({retrain.id for retrain in retrains}) == len(retrains)
    ends = [retrain.window_end for retrain in retrains if isinstance(retrain, RetrainRequested) and retrain.window_end]
    assert len(ends) == len(retrains)
    assert all(after - before >= timedelta(days=POLICY.cooldown_days) for before, after in pairwise(ends))


@settings(max_examples=60)
@given(days=DAYS, data=st.data())
def test_decision_depends_on_no_order_between_topics_nor_on_repetition(days: list[Day], data: st.DataObject) -> None:
    topics = run(days).topics
    in_order = ModelHistory("m")
    for event in [*topics["models"], *topics["retrain"], *topics["drift"]]:
        in_order.add(event)
    verdicts = topics["drift"]
    again = data.draw(st.lists(st.sampled_from(verdicts), max_size=5)) if verdicts else []
    mixed = ModelHistory("m")
    for topic in data.draw(st.permutations([topics["models"], topics["retrain"], [*verdicts, *again]])):
        repeated = data.draw(st.integers(1, 2))
        for event in (data.draw(st.permutations(topic)) if topic and topic[0] in verdicts else topic) * repeated:
            mixed.add(event)
    assert decide(mixed, POLICY, HOLDOUT_DAYS, datetime.date) == decide(in_order, POLICY, HOLDOUT_DAYS, datetime.date)
