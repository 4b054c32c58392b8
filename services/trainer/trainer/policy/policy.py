"""When to retrain: decided from what the topics say, and from nothing else. Pure.

Three things are reasons: alarms that come again and again, outcomes that show the version in service to be clearly
worse than its gate measured, and many days of outcomes that nothing has learned from yet. Three things are in the way:
a training, a cooldown, and too few days of new outcomes. All time but the order of events is the time of the
predictions, so that a replayed year is decided on as a lived one.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import chain
from typing import Literal, NamedTuple
from uuid import UUID, uuid5

from driftloop.events import Drift, Event, ModelChange, Quality, Retrain
from trainer.settings import Policy

ASKED_BY = "policy"
MOST_WINDOWS = 1_000  # of a version that are kept: no setting asks for more
NAMED = 3  # columns that a reason names
NAMESPACE = UUID("6f2b1d0e-5c0a-4f5e-9b6e-0d9c5b0b7a11")
LONGEST_BACKOFF = 16  # doublings; the setting's limit is reached long before

Day = Callable[[datetime], date]
"""The day that a time belongs to, as the use case counts days."""


class Judged(NamedTuple):
    """What the policy needs of a verdict on a window. In order of when it was given."""

    given: datetime
    name: str
    alarm: bool
    ends: datetime
    drifted: tuple[str, ...]


@dataclass
class State:
    """What has been said of one model. An event that is added twice changes nothing.

    Events of the topics of models and of retrains are to be added in the order of their topic, others in any.
    """

    model: str
    windows: dict[str, dict[str, Judged]] = field(default_factory=dict)
    """By version and name; those that could not be judged are no windows here."""
    qualities: dict[str, Quality] = field(default_factory=dict)
    """The latest of each version."""
    labelled: Quality | None = None
    """The one that told of the latest prediction whose outcome is known."""
    retrains: dict[str, Retrain] = field(default_factory=dict)
    changes: dict[str, ModelChange] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Takes an event; what is of another model, or says nothing to the policy, is let go."""
        match event:
            case Drift(model=self.model, replayed=False, verdict="alarm" | "quiet"):
                self._add_window(event)
            case Quality(model=self.model):
                self._add_quality(event)
            case Retrain(model=self.model):
                self.retrains.setdefault(event.id, event)
            case ModelChange(model=self.model):
                self.changes.setdefault(event.id, event)

    def _add_window(self, verdict: Drift) -> None:
        alarm = verdict.verdict == "alarm"
        judged = Judged(verdict.time, verdict.window.name, alarm, verdict.ends, tuple(verdict.drifted))
        windows = self.windows.setdefault(verdict.version, {})
        windows.setdefault(judged.name, judged)
        if len(windows) > MOST_WINDOWS:
            del windows[min(windows.values()).name]

    def _add_quality(self, quality: Quality) -> None:
        known = self.qualities.get(quality.version)
        if known is None or (known.time, known.id) < (quality.time, quality.id):
            self.qualities[quality.version] = quality
        if self.labelled is None or _latest(self.labelled) < _latest(quality):
            self.labelled = quality

    @property
    def in_service(self) -> ModelChange | None:
        """What brought the version that serves into service."""
        moves = [change for change in self.changes.values() if change.state in ("promoted", "rolled_back")]
        return next((change for change in reversed(moves) if change.version is not None), None)

    @property
    def ended(self) -> dict[str, ModelChange]:
        """The last word on each retrain that is over, by its id, in the order of their ends."""
        return {change.retrain_id: change for change in self.changes.values() if change.final}

    @property
    def under_way(self) -> list[Retrain]:
        """Those that nothing is known of: they are taken in order, so what came before one that is over is over."""
        ended = self.ended
        waiting: list[Retrain] = []
        for retrain in self.retrains.values():
            waiting = [] if retrain.id in ended else [*waiting, retrain]
        return waiting

    @property
    def decided(self) -> dict[str, datetime]:
        """The policy's own retrains, and the time that each was decided at."""
        return {one.id: one.as_of for one in self.retrains.values() if one.asked_by == ASKED_BY and one.as_of}

    @property
    def fruitless(self) -> int:
        """How many of the policy's own retrains in a row have not brought a version that stayed."""
        decided, count = self.decided, 0
        for change in reversed(self.ended.values()):
            if change.state == "promoted":
                break
            count += change.retrain_id in decided
        return count

    def learned_until(self, version: str) -> datetime | None:
        """The time of the latest row that a version has learned from, where that was said."""
        said = [c.learned_until for c in self.changes.values() if c.version == version and c.learned_until]
        return said[-1] if said else None

    @property
    def last_learned(self) -> datetime | None:
        """The time of the latest row that any version has learned from, also one that was rejected or rolled back."""
        return max((change.learned_until for change in self.changes.values() if change.learned_until), default=None)


def _latest(quality: Quality) -> tuple[datetime, datetime, str]:
    return quality.ends, quality.time, quality.id


class Decision(NamedTuple):
    """What is to be done, and why, in words."""

    what: Literal["retrain", "nothing", "training", "cooldown", "too few outcomes", "off"]
    why: str
    retrain: Retrain | None = None
    lacking_days: int = 0
    """Days of outcomes that are missing before a retrain can help."""


class Reason(NamedTuple):
    """Something that a retrain may help against."""

    window: str
    """That showed it."""
    as_of: datetime
    given: datetime
    why: str


def decide(state: State, policy: Policy, held_out_days: int, day: Day) -> Decision:
    """Whether to retrain now. ``held_out_days`` are what the gate needs of outcomes that the champion has not seen.

    The same state is decided on in the same way: a decision that was taken and got lost is taken again, as the same
    event.
    """
    serving = state.in_service
    if not policy.enabled:
        return Decision("off", "the policy is off (DRIFTLOOP_POLICY__ENABLED)")
    if serving is None or serving.version is None:
        return Decision("nothing", "no version is in service")
    version = serving.version
    reasons, why = _reasons(state, policy, serving, version, day)
    if not reasons:
        return Decision("nothing", why)
    latest = max(reasons, key=lambda reason: reason.as_of)
    if (obstacle := _obstacle(state, policy, version, latest, held_out_days, day)) is not None:
        return obstacle._replace(why=f"{why}; but {obstacle.why}")
    retrain = Retrain(
        id=str(uuid5(NAMESPACE, f"{state.model}/{version}/{latest.window}")),
        time=latest.given,
        model=state.model,
        trigger="drift",
        reason=why,
        asked_by=ASKED_BY,
        data=policy.data,
        as_of=latest.as_of,
    )
    return Decision("retrain", why, retrain)


def _reasons(state: State, policy: Policy, serving: ModelChange, version: str, day: Day) -> tuple[list[Reason], str]:
    """What speaks for a retrain of the version in service, and all of it in words."""
    windows = sorted(state.windows.get(version, {}).values())
    quality = state.qualities.get(version)
    if serving.state == "rolled_back":  # what led to its replacement, once, is no reason any more
        windows = [window for window in windows if window.given > serving.time]
        quality = quality if quality is not None and quality.time > serving.time else None
    last = windows[-policy.windows :]
    alarms = [window for window in last if window.alarm]
    counted = f"{len(alarms)} of the last {len(last)} windows of version {version} alarm"
    reasons = []
    if len(alarms) >= policy.alarms:
        columns = Counter(chain.from_iterable(window.drifted for window in alarms)).most_common(NAMED)
        named = f", most often {', '.join(column for column, _ in columns)}" if columns else ""
        reasons.append(Reason(last[-1].name, last[-1].ends, last[-1].given, f"{counted}{named}"))
    if quality is not None and quality.verdict == "worse" and quality.found and quality.found.drawn == "days":
        why = f"version {version} is worse than its gate measured: {quality.why}"
        reasons.append(Reason(quality.window.name, quality.ends, quality.time, why))
    if (news := _news(state, policy, day)) is not None:
        reasons.append(news)
    return reasons, "; ".join(reason.why for reason in reasons) or f"{counted}, and {policy.alarms} are needed"


def _news(state: State, policy: Policy, day: Day) -> Reason | None:
    """Days of outcomes that nothing has learned from, if they are many.

    They count from what any version has learned, not only the one in service: a challenger that lost, or came and went,
    was a try with the days that it knew, and the next try waits for as many others.
    """
    latest, learned = state.labelled, state.last_learned
    if latest is None or learned is None or not policy.unlearned_days:
        return None
    if (day(latest.ends) - day(learned)).days < policy.unlearned_days:
        return None
    why = f"no version has learned from the outcomes after {day(learned)}, {policy.unlearned_days} days of them or more"
    return Reason(latest.window.name, latest.ends, latest.time, why)


def _obstacle(
    state: State, policy: Policy, version: str, latest: Reason, held_out_days: int, day: Day
) -> Decision | None:
    """What is in the way of a retrain that there is a reason for."""
    if waiting := state.under_way:
        return Decision("training", f"retrain {waiting[0].id} is under way")
    if (until := _cooldown(state, policy)) is not None and latest.as_of < until:
        return Decision("cooldown", f"no retrain is asked for before {until:%Y-%m-%d %H:%M}")
    lacking, why = _lacking(state, version, held_out_days, day)
    return Decision("too few outcomes", why, lacking_days=lacking) if lacking else None


def _cooldown(state: State, policy: Policy) -> datetime | None:
    """Until when nothing is asked for after the policy's last retrain; it doubles with each that brought nothing."""
    if not (decided := state.decided):
        return None
    doubled = policy.cooldown_days * 2 ** min(state.fruitless, LONGEST_BACKOFF)
    return max(decided.values()) + timedelta(days=min(doubled, policy.longest_cooldown_days))


def _lacking(state: State, version: str, held_out_days: int, day: Day) -> tuple[int, str]:
    """How many days of outcomes the gate lacks, and that in words; 0 where nobody knows how far a version learned."""
    learned = state.learned_until(version)
    if learned is None:
        return 0, ""
    until = state.labelled.ends if state.labelled is not None else None
    known = max(0, (day(until) - day(learned)).days) if until is not None else 0
    lacking = max(0, held_out_days - known)
    return lacking, (
        f"a retrain could not help yet: version {version} has learned from rows up to {day(learned)}, outcomes are "
        f"known {f'up to {day(until)}' if until else 'of no prediction'}, and the gate needs {held_out_days} days of "
        f"later ones: {lacking} more (DRIFTLOOP_GATE__HELD_OUT_DAYS)"
    )
