"""The policy: when to retrain, decided only from the events on the topics. Pure.

Three reasons lead to a retrain: repeated drift alarms, outcomes that show the version in service to be clearly worse
than at its gate, and many days of outcomes that no version has been trained on. Four blockers prevent it: a pending
retrain, the cooldown, too few days of new outcomes, and, if only alarms ask for it, too few days of outcomes since the
first alarm. All times except the order of events are times of predictions, so a replay of a year is decided like the
year itself.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from itertools import chain
from math import ceil
from typing import Literal, NamedTuple
from uuid import UUID, uuid5

from driftloop.events import DataSelection, ModelStateChanged, RetrainRequested
from trainer.policy.model_history import REQUESTED_BY, ModelHistory, WindowVerdict
from trainer.policy.settings import PolicySettings

MAX_NAMED_COLUMNS = 3  # in the reason of a retrain
NAMESPACE = UUID("6f2b1d0e-5c0a-4f5e-9b6e-0d9c5b0b7a11")
MAX_DOUBLINGS = 16  # of the cooldown; its maximum by the settings is reached long before

LocalDate = Callable[[datetime], date]
"""Returns the date of a time in the use case's time zone."""


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
    change: "Change | None" = None
    """Of alarms: what has been seen since the first of them."""


class Change(NamedTuple):
    """How much is known of the time since the first of the alarms that lead to a retrain."""

    first_alarm: datetime
    """Time of the first prediction of the first window that alarmed."""
    labelled_days: float
    """Days from then to the last prediction whose outcome is known: what a new version can learn from."""
    rows: int
    """Predicted rows of the windows since then, with or without outcomes."""

    def __str__(self) -> str:
        """Return it in words."""
        return (
            f"since the first alarm, on {self.first_alarm:%Y-%m-%d %H:%M}, there are {self.labelled_days:.1f} days of "
            f"outcomes, and {self.rows:,} rows were predicted"
        )


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
    if (blocker := _blocker(history, settings, version, reasons, holdout_days, local_date)) is not None:
        return blocker._replace(explanation=f"{explanation}; but {blocker.explanation}")
    latest = _latest(reasons)
    if (change := next((reason.change for reason in reasons if reason.change), None)) is not None:
        explanation = f"{explanation}; {change}"
    retrain = RetrainRequested(
        id=str(uuid5(NAMESPACE, f"{history.model}/{version}/{latest.window}")),
        time=latest.judged_at,
        model=history.model,
        trigger="drift",
        reason=explanation,
        requested_by=REQUESTED_BY,
        data=settings.data or DataSelection(),
        window_end=latest.window_end,
    )
    return Decision("retrain", explanation, retrain)


def _reasons(
    history: ModelHistory, settings: PolicySettings, serving: ModelStateChanged, version: str, local_date: LocalDate
) -> tuple[list[Reason], str]:
    """Return the reasons for a retrain of the version in service, and an explanation, also without a reason."""
    windows = sorted(history.windows.get(version, {}).values())
    quality = history.latest_quality.get(version)
    # Verdicts from before it came into service are no reason any more: they are from before its replacement, or of
    # another version of its number, from before the model was deleted and made again.
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
        change = _change_since_first_alarm(history, windows, settings.lookback_windows)
        latest = recent[-1]
        reasons.append(Reason(latest.name, latest.window_end, latest.judged_at, f"{count}{named}", change))
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


def _change_since_first_alarm(history: ModelHistory, windows: Sequence[WindowVerdict], lookback_windows: int) -> Change:
    """Return what has been seen of the change that the last alarms show.

    It began with the first alarm that is followed by others without a gap of as many windows as are looked back on.
    """
    first = last_alarm = max(position for position, window in enumerate(windows) if window.alarm)
    for position in range(last_alarm, -1, -1):
        if windows[position].alarm:
            first = position
        elif first - position >= lookback_windows:
            break
    start = windows[first].window_start
    labelled = history.latest_labelled
    labelled_days = 0.0 if labelled is None else (labelled.last_prediction_at - start) / timedelta(days=1)
    return Change(start, max(0.0, labelled_days), sum(window.rows for window in windows[first:]))


def _latest(reasons: Sequence[Reason]) -> Reason:
    return max(reasons, key=lambda reason: reason.window_end)


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
        f"{settings.max_stale_days} days or more of outcomes, those after {local_date(trained_through)}, have been in "
        "no training (DRIFTLOOP_POLICY__MAX_STALE_DAYS)"
    )
    return Reason(latest.window.name, latest.last_prediction_at, latest.time, explanation)


def _blocker(
    history: ModelHistory,
    settings: PolicySettings,
    version: str,
    reasons: Sequence[Reason],
    holdout_days: int,
    local_date: LocalDate,
) -> Decision | None:
    """Return what prevents a retrain although there are reasons for it."""
    if pending := history.pending:
        return Decision("training", f"retrain {pending[0].id} is pending")
    if (end := _cooldown_end(history, settings)) is not None and _latest(reasons).window_end < end:
        return Decision("cooldown", f"the cooldown lasts until {end:%Y-%m-%d %H:%M}")
    missing, explanation = _missing_outcome_days(history, version, holdout_days, local_date)
    if missing:
        return Decision("insufficient_outcomes", explanation, missing_days=missing)
    changes = [reason.change for reason in reasons if reason.change is not None]
    if len(changes) < len(reasons) or changes[0].labelled_days >= settings.min_days_since_alarm:
        return None  # there is a reason besides alarms, or enough has been seen of the change
    return Decision(
        "insufficient_outcomes",
        f"a version could learn little of the change yet: {changes[0]}; a retrain waits for "
        f"{settings.min_days_since_alarm:g} days of them (DRIFTLOOP_POLICY__MIN_DAYS_SINCE_ALARM)",
        missing_days=ceil(settings.min_days_since_alarm - changes[0].labelled_days),
    )


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
