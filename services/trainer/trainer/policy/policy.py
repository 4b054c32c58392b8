"""The policy: when to retrain, decided only from the events on the topics. Pure.

Three reasons lead to a retrain: repeated drift alarms, outcomes that show the version in service to be clearly worse
than at its gate, and many days of outcomes that no version has been trained on. Three blockers prevent it: a pending
retrain, the cooldown, and too few days of new outcomes. All times except the order of events are times of predictions,
so a replay of a year is decided like the year itself.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import chain
from typing import Literal, NamedTuple
from uuid import UUID, uuid5

from driftloop.events import DriftVerdict, Event, ModelStateChanged, QualityVerdict, RetrainRequested
from trainer.policy.settings import PolicySettings

REQUESTED_BY = "policy"
MAX_WINDOWS = 1_000  # kept for each version; the largest value of the setting LOOKBACK_WINDOWS
MAX_NAMED_COLUMNS = 3  # in the reason of a retrain
NAMESPACE = UUID("6f2b1d0e-5c0a-4f5e-9b6e-0d9c5b0b7a11")
MAX_DOUBLINGS = 16  # of the cooldown; its maximum by the settings is reached long before

LocalDate = Callable[[datetime], date]
"""Returns the date of a time in the use case's time zone."""


class WindowVerdict(NamedTuple):
    """The part of a verdict on a window that the policy needs. Sorts by the time of judgement."""

    judged_at: datetime
    name: str
    alarm: bool
    window_end: datetime
    drifted_columns: tuple[str, ...]


@dataclass
class ModelHistory:
    """The events about one model. Adding an event again changes nothing.

    Events of the topics of models and of retrains have to be added in the order of their topic, others in any order.
    """

    model: str
    windows: dict[str, dict[str, WindowVerdict]] = field(default_factory=dict)
    """By version and window name; inconclusive verdicts are left out."""
    latest_quality: dict[str, QualityVerdict] = field(default_factory=dict)
    """The latest quality verdict of each version."""
    latest_labelled: QualityVerdict | None = None
    """The quality verdict with the latest prediction whose outcome is known, of any version."""
    retrains: dict[str, RetrainRequested] = field(default_factory=dict)
    changes: dict[str, ModelStateChanged] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Add an event. Events of other models, and those that the policy does not need, are ignored."""
        match event:
            case DriftVerdict(model=self.model, replayed=False, verdict="drift" | "no_drift"):
                self._add_window(event)
            case QualityVerdict(model=self.model):
                self._add_quality(event)
            case RetrainRequested(model=self.model):
                self.retrains.setdefault(event.id, event)
            case ModelStateChanged(model=self.model):
                self.changes.setdefault(event.id, event)

    def _add_window(self, verdict: DriftVerdict) -> None:
        window = WindowVerdict(
            verdict.time,
            verdict.window.name,
            verdict.verdict == "drift",
            verdict.last_prediction_at,
            tuple(verdict.drifted_columns),
        )
        windows = self.windows.setdefault(verdict.version, {})
        windows.setdefault(window.name, window)
        if len(windows) > MAX_WINDOWS:
            del windows[min(windows.values()).name]

    def _add_quality(self, quality: QualityVerdict) -> None:
        previous = self.latest_quality.get(quality.version)
        if previous is None or (previous.time, previous.id) < (quality.time, quality.id):
            self.latest_quality[quality.version] = quality
        if self.latest_labelled is None or _labelled_order(self.latest_labelled) < _labelled_order(quality):
            self.latest_labelled = quality

    @property
    def in_service(self) -> ModelStateChanged | None:
        """The promotion or rollback that put the current version into service."""
        moves = [change for change in self.changes.values() if change.state in ("promoted", "rolled_back")]
        return next((change for change in reversed(moves) if change.version is not None), None)

    @property
    def final_states(self) -> dict[str, ModelStateChanged]:
        """The latest final state of each finished retrain, by its id, in the order of their ends."""
        return {change.retrain_id: change for change in self.changes.values() if change.is_final}

    @property
    def pending(self) -> list[RetrainRequested]:
        """Retrains without a final state. They run in order, so every retrain before a finished one is finished too."""
        final_states = self.final_states
        pending: list[RetrainRequested] = []
        for retrain in self.retrains.values():
            pending = [] if retrain.id in final_states else [*pending, retrain]
        return pending

    @property
    def policy_retrains(self) -> dict[str, datetime]:
        """The end of the window that caused each of the policy's own retrains, by the retrain's id."""
        return {
            retrain.id: retrain.window_end
            for retrain in self.retrains.values()
            if retrain.requested_by == REQUESTED_BY and retrain.window_end
        }

    @property
    def consecutive_failures(self) -> int:
        """How many of the policy's own retrains in a row have not led to a version that stayed in service."""
        policy_retrains, count = self.policy_retrains, 0
        for change in reversed(self.final_states.values()):
            if change.state == "promoted":
                break
            count += change.retrain_id in policy_retrains
        return count

    def trained_through(self, version: str) -> datetime | None:
        """Return the time of the latest row that a version was trained on; None if no event says it."""
        times = [
            change.trained_through
            for change in self.changes.values()
            if change.version == version and change.trained_through
        ]
        return times[-1] if times else None

    @property
    def last_trained_through(self) -> datetime | None:
        """The time of the latest row that any version was trained on, including rejected and rolled-back versions."""
        return max((change.trained_through for change in self.changes.values() if change.trained_through), default=None)


def _labelled_order(quality: QualityVerdict) -> tuple[datetime, datetime, str]:
    return quality.last_prediction_at, quality.time, quality.id


class Decision(NamedTuple):
    """The policy's decision and its explanation."""

    kind: Literal["retrain", "nothing", "training", "cooldown", "insufficient_outcomes", "off"]
    explanation: str
    retrain: RetrainRequested | None = None
    missing_days: int = 0
    """Days of outcomes that are missing before a retrain can help."""


class Reason(NamedTuple):
    """A reason for a retrain, and the window that showed it."""

    window: str
    window_end: datetime
    judged_at: datetime
    explanation: str


def decide(history: ModelHistory, settings: PolicySettings, holdout_days: int, local_date: LocalDate) -> Decision:
    """Decide whether to retrain now.

    The same history always gives the same decision: one that was lost is taken again, with the same event.

    Args:
        history: The events so far.
        settings: When to retrain.
        holdout_days: Days of outcomes that the gate needs after the champion's training rows.
        local_date: Returns the date of a time.
    """
    serving = history.in_service
    if not settings.enabled:
        return Decision("off", "the policy is off (DRIFTLOOP_POLICY__ENABLED)")
    if serving is None or serving.version is None:
        return Decision("nothing", "no version is in service")
    version = serving.version
    reasons, explanation = _reasons(history, settings, serving, version, local_date)
    if not reasons:
        return Decision("nothing", explanation)
    latest = max(reasons, key=lambda reason: reason.window_end)
    if (blocker := _blocker(history, settings, version, latest, holdout_days, local_date)) is not None:
        return blocker._replace(explanation=f"{explanation}; but {blocker.explanation}")
    retrain = RetrainRequested(
        id=str(uuid5(NAMESPACE, f"{history.model}/{version}/{latest.window}")),
        time=latest.judged_at,
        model=history.model,
        trigger="drift",
        reason=explanation,
        requested_by=REQUESTED_BY,
        data=settings.data,
        window_end=latest.window_end,
    )
    return Decision("retrain", explanation, retrain)


def _reasons(
    history: ModelHistory, settings: PolicySettings, serving: ModelStateChanged, version: str, local_date: LocalDate
) -> tuple[list[Reason], str]:
    """Return the reasons for a retrain of the version in service, and an explanation, also without a reason."""
    windows = sorted(history.windows.get(version, {}).values())
    quality = history.latest_quality.get(version)
    if serving.state == "rolled_back":  # verdicts from before its replacement are no reason any more
        windows = [window for window in windows if window.judged_at > serving.time]
        quality = quality if quality is not None and quality.time > serving.time else None
    recent = windows[-settings.lookback_windows :]
    alarms = [window for window in recent if window.alarm]
    count = f"{len(alarms)} of the last {len(recent)} windows of version {version} alarm"
    reasons = []
    if len(alarms) >= settings.min_alarms:
        columns = Counter(chain.from_iterable(window.drifted_columns for window in alarms))
        frequent = ", ".join(column for column, _ in columns.most_common(MAX_NAMED_COLUMNS))
        named = f", most often {frequent}" if frequent else ""
        reasons.append(Reason(recent[-1].name, recent[-1].window_end, recent[-1].judged_at, f"{count}{named}"))
    if (
        quality is not None
        and quality.verdict == "degraded"
        and quality.in_service
        and quality.in_service.resampling_unit == "days"
    ):
        explanation = f"version {version} is worse than at its gate: {quality.explanation}"
        reasons.append(Reason(quality.window.name, quality.last_prediction_at, quality.time, explanation))
    if (staleness := _staleness_reason(history, settings, local_date)) is not None:
        reasons.append(staleness)
    explanation = "; ".join(reason.explanation for reason in reasons)
    return reasons, explanation or f"{count}, and {settings.min_alarms} are needed"


def _staleness_reason(history: ModelHistory, settings: PolicySettings, local_date: LocalDate) -> Reason | None:
    """Return a reason if there are many days of outcomes that no version has been trained on.

    Days count from the last training row of any version, not only the one in service: a version that was rejected or
    rolled back was an attempt with the days it had, and the next attempt waits for as many others.
    """
    latest, trained_through = history.latest_labelled, history.last_trained_through
    if latest is None or trained_through is None or not settings.max_stale_days:
        return None
    if (local_date(latest.last_prediction_at) - local_date(trained_through)).days < settings.max_stale_days:
        return None
    explanation = (
        f"no version has been trained on the outcomes after {local_date(trained_through)}, which are "
        f"{settings.max_stale_days} days or more"
    )
    return Reason(latest.window.name, latest.last_prediction_at, latest.time, explanation)


def _blocker(
    history: ModelHistory,
    settings: PolicySettings,
    version: str,
    latest: Reason,
    holdout_days: int,
    local_date: LocalDate,
) -> Decision | None:
    """Return what prevents a retrain although there is a reason for it."""
    if pending := history.pending:
        return Decision("training", f"retrain {pending[0].id} is pending")
    if (end := _cooldown_end(history, settings)) is not None and latest.window_end < end:
        return Decision("cooldown", f"the cooldown lasts until {end:%Y-%m-%d %H:%M}")
    missing, explanation = _missing_outcome_days(history, version, holdout_days, local_date)
    return Decision("insufficient_outcomes", explanation, missing_days=missing) if missing else None


def _cooldown_end(history: ModelHistory, settings: PolicySettings) -> datetime | None:
    """Return the end of the cooldown after the policy's last retrain; it doubles with each consecutive failure."""
    if not (policy_retrains := history.policy_retrains):
        return None
    doubled = settings.cooldown_days * 2 ** min(history.consecutive_failures, MAX_DOUBLINGS)
    return max(policy_retrains.values()) + timedelta(days=min(doubled, settings.max_cooldown_days))


def _missing_outcome_days(
    history: ModelHistory, version: str, holdout_days: int, local_date: LocalDate
) -> tuple[int, str]:
    """Return how many days of outcomes the gate lacks, and an explanation.

    0 if no event says what the version was trained on.
    """
    trained_through = history.trained_through(version)
    if trained_through is None:
        return 0, ""
    labelled_until = history.latest_labelled.last_prediction_at if history.latest_labelled is not None else None
    new_days = 0
    if labelled_until is not None:
        new_days = max(0, (local_date(labelled_until) - local_date(trained_through)).days)
    missing = max(0, holdout_days - new_days)
    return missing, (
        f"a retrain could not help yet: version {version} was trained on rows up to {local_date(trained_through)}, "
        f"outcomes are known {f'up to {local_date(labelled_until)}' if labelled_until else 'of no prediction'}, and "
        f"the gate needs {holdout_days} days of later ones: {missing} more (DRIFTLOOP_GATE__HOLDOUT_DAYS)"
    )
