"""The status of a version: its last real verdict, since when it holds, and since when no window could be judged. Pure.

A verdict that is inconclusive never takes the place of a real one: it is shown beside it. After a model was deleted and
made again, a version is another one than that of the same number and another run, and its status says nothing of it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import takewhile
from typing import Literal, NamedTuple, Protocol, Self

from driftloop.events import REASON_TEXTS, DriftReason, DriftVerdict, QualityVerdict, Window
from driftloop.events.base import EventTime, FrozenModel
from driftloop.times import format_utc

Verdict = Literal["no_drift", "drift", "inconclusive"]
VERDICT_ORDER: tuple[Verdict, ...] = ("drift", "inconclusive", "no_drift")
"""The most important first."""


class OfRun(Protocol):
    """Something about a version."""

    @property
    def run_id(self) -> str | None:
        """The run that logged the version; ``None`` if it is not known."""


class JudgedWindow(NamedTuple):
    """What the status of a version needs of a verdict on a window."""

    window: Window
    verdict: Verdict
    reason: DriftReason | None
    explanation: str
    """Why it is inconclusive; empty for another verdict, whose explanation takes kilobytes."""
    published_at: datetime
    first_prediction_at: datetime
    last_prediction_at: datetime
    run_id: str | None = None
    """The run that logged the version; ``None`` if it is not known."""

    @classmethod
    def of(cls, verdict: DriftVerdict) -> Self:
        """Return what is needed of a verdict."""
        return cls(
            verdict.window,
            verdict.verdict,
            verdict.reason,
            verdict.explanation if verdict.verdict == "inconclusive" else "",
            verdict.time,
            verdict.first_prediction_at,
            verdict.last_prediction_at,
            verdict.run_id,
        )


class VersionStatus(FrozenModel):
    """A version in one line."""

    model: str
    """Name of the registered model."""
    version: str
    """Version of the model."""
    run_id: str | None
    """Id of the run that logged the version; null if no verdict has it."""
    in_service: str | None
    """How it is known that the version is in service; null if it is not."""
    verdict: Verdict
    """The last conclusive verdict; ``inconclusive`` if there is none."""
    since: EventTime | None
    """Time of the first prediction in the first of the latest windows with this verdict, without inconclusive ones."""
    since_or_before: bool
    """Whether no other verdict is known before ``since``."""
    streak: int
    """Number of windows with this verdict since then."""
    windows: int
    """Number of windows that are known, judged or not."""
    unjudged: dict[str, int]
    """Number of windows after the last conclusive one, by the reason in words."""
    unjudged_since: EventTime | None
    """Time of the first prediction in the first of these windows; null if there are none."""
    latest_verdict_at: EventTime | None
    """When the latest verdict was published, conclusive or not; null without a window."""
    quality: QualityVerdict | None
    """The last conclusive verdict on quality; if there is none, the last one."""
    later_quality: QualityVerdict | None
    """The latest verdict on quality, if it came after ``quality`` and is inconclusive."""

    @property
    def text(self) -> str:
        """The verdict in words, and since when it holds."""
        words = self.verdict.replace("_", " ")
        return self.since_text if self.since is None else f"{words} {self.since_text}"

    @property
    def since_text(self) -> str:
        """Since when the verdict holds, and since when and why no window could be judged."""
        parts = []
        if self.since is not None:
            since = f"{'at least ' if self.since_or_before else ''}{format_utc(self.since)}"
            parts.append(f"since {since}, in {_window_count(self.streak)}")
        if self.unjudged_since is not None:
            count = _window_count(sum(self.unjudged.values()))
            parts.append(f"not judged since {format_utc(self.unjudged_since)}: {count} ({self.unjudged_reasons})")
        return "; ".join(parts) or "no window has been judged yet"

    @property
    def unjudged_reasons(self) -> str:
        """The reasons why the latest windows could not be judged, with how many if there are several reasons."""
        if len(self.unjudged) == 1:
            return next(iter(self.unjudged))
        return ", ".join(f"{count}: {reason}" for reason, count in Counter(self.unjudged).most_common())


def version_status(
    model: str,
    version: str,
    windows: Sequence[JudgedWindow],
    qualities: Sequence[QualityVerdict] = (),
    in_service: str | None = None,
) -> VersionStatus:
    """Return a version's status.

    Args:
        model: Name of the registered model.
        version: Version of the model. If verdicts have several runs, it is the one of the latest window's run; verdicts
            without a run are taken as its own.
        windows: Its windows, in the order of their publication.
        qualities: Verdicts on its quality, in the order of their publication.
        in_service: How it is known that the version is in service; ``None`` if it is not.
    """
    run_id = latest_run(windows) or latest_run(qualities)
    windows = [window for window in windows if is_of_run(window, run_id)]
    qualities = [quality for quality in qualities if is_of_run(quality, run_id)]
    conclusive = [window for window in windows if window.verdict != "inconclusive"]
    verdict: Verdict = conclusive[-1].verdict if conclusive else "inconclusive"
    streak = list(takewhile(lambda window: window.verdict == verdict, reversed(conclusive)))
    unjudged = list(takewhile(lambda window: window.verdict == "inconclusive", reversed(windows)))
    compared = [quality for quality in qualities if quality.verdict != "inconclusive"]
    latest_quality = qualities[-1] if qualities else None
    quality = compared[-1] if compared else latest_quality
    return VersionStatus(
        model=model,
        version=version,
        run_id=run_id,
        in_service=in_service,
        verdict=verdict,
        since=streak[-1].first_prediction_at if streak else None,
        since_or_before=len(streak) == len(conclusive),
        streak=len(streak),
        windows=len(windows),
        unjudged=Counter(REASON_TEXTS[window.reason] if window.reason else window.explanation for window in unjudged),
        unjudged_since=unjudged[-1].first_prediction_at if unjudged else None,
        latest_verdict_at=windows[-1].published_at if windows else None,
        quality=quality,
        later_quality=None if latest_quality is quality else latest_quality,
    )


def latest_run(judged: Sequence[OfRun]) -> str | None:
    """Return the run of the last one that has one; ``None`` if none has."""
    return next((each.run_id for each in reversed(judged) if each.run_id), None)


def is_of_run(judged: OfRun, run_id: str | None) -> bool:
    """Return whether something can be about the version of a run; what has no run can be about any."""
    return run_id is None or judged.run_id in (None, run_id)


def most_important_first(statuses: Iterable[VersionStatus]) -> list[VersionStatus]:
    """Return versions in service before the others.

    Among both, those with drift come first, then those that could not be judged, then those without drift; of equal
    ones the one with the later verdict.
    """
    return sorted(
        statuses,
        key=lambda status: (
            status.in_service is None,
            VERDICT_ORDER.index(status.verdict),
            -status.latest_verdict_at.timestamp() if status.latest_verdict_at else 0.0,
        ),
    )


def _window_count(count: int) -> str:
    return f"{count} window{'' if count == 1 else 's'}"
