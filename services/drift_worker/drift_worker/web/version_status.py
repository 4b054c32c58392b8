"""The status of each version: its last real verdict and since when it holds, and whether the version is in service."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import takewhile
from typing import NamedTuple

from drift_worker.web.templating import as_words, format_utc
from drift_worker.web.verdict_cache import JudgedWindow, ServiceChange, Verdict, VerdictCache
from driftloop.events import REASON_TEXTS, QualityVerdict

VERDICT_ORDER: Mapping[Verdict, int] = {"drift": 0, "inconclusive": 1, "no_drift": 2}
CHANGE_TEXTS: Mapping[str, str] = {"promoted": "promoted", "rolled_back": "restored by a rollback"}


class InService(NamedTuple):
    """Which version of a model serves, as far as the topics say."""

    version: str
    explanation: str
    """How that is known."""


class VersionStatus(NamedTuple):
    """A version in one line."""

    model: str
    version: str
    verdict: Verdict
    """The last conclusive verdict; ``inconclusive`` if there is none."""
    windows: int
    """The number of windows, judged or not."""
    since: datetime | None
    """Time of the first prediction in the first of the latest windows with this verdict, without inconclusive ones."""
    since_or_before: bool
    """Whether no other verdict is known before ``since``."""
    streak: int
    """The number of windows with this verdict since then."""
    unjudged: Counter[str]
    """The windows after the last conclusive one, by the reason in words."""
    in_service: str | None
    """How it is known that the version is in service; ``None`` if it is not."""
    quality: QualityVerdict | None
    """The latest verdict on quality."""

    @property
    def text(self) -> str:
        """The verdict and since when it holds, and how many later windows could not be judged."""
        if not self.windows:
            return "no window has been judged yet"
        if self.since is None:
            text = f"not judged yet: {_window_count(self.unjudged.total())} could not be judged"
        else:
            since = f"{'at least ' if self.since_or_before else ''}{format_utc(self.since)}"
            text = f"{as_words(self.verdict)} since {since}, in {_window_count(self.streak)}"
            if self.unjudged:
                text += f"; {_window_count(self.unjudged.total(), 'later ')} could not be judged"
        return f"{text} ({self.unjudged_reasons})" if self.unjudged else text

    @property
    def unjudged_reasons(self) -> str:
        """The reasons why the latest windows could not be judged, with how many if there are several reasons."""
        if len(self.unjudged) == 1:
            return next(iter(self.unjudged))
        return ", ".join(f"{count}: {reason}" for reason, count in self.unjudged.most_common())


def version_statuses(cache: VerdictCache) -> list[VersionStatus]:
    """Return the status of all versions, the most important first.

    Versions in service come before the others, and among both those with drift, then those that could not be judged,
    then those without drift; of equal ones the one with the later window first.
    """
    windows = cache.windows_by_version()
    in_service = versions_in_service(windows, cache.service_changes())
    keys = [*windows, *((model, found.version) for model, found in in_service.items())]
    statuses = []
    for model, version in dict.fromkeys(keys):
        serving = in_service.get(model)
        qualities = cache.latest(QualityVerdict, model, version, 1)
        statuses.append(
            version_status(
                model,
                version,
                windows.get((model, version), []),
                in_service=serving.explanation if serving and serving.version == version else None,
                quality=qualities[-1] if qualities else None,
            )
        )
    published = {key: found[-1].published_at.timestamp() for key, found in windows.items()}
    return sorted(
        statuses,
        key=lambda status: (
            status.in_service is None,
            VERDICT_ORDER[status.verdict],
            -published.get((status.model, status.version), 0),
        ),
    )


def version_status(
    model: str,
    version: str,
    windows: Sequence[JudgedWindow],
    in_service: str | None = None,
    quality: QualityVerdict | None = None,
) -> VersionStatus:
    """Return a version's status, from its windows in the order of their publication."""
    conclusive = [window for window in windows if window.verdict != "inconclusive"]
    verdict: Verdict = conclusive[-1].verdict if conclusive else "inconclusive"
    streak = list(takewhile(lambda window: window.verdict == verdict, reversed(conclusive)))
    unjudged = takewhile(lambda window: window.verdict == "inconclusive", reversed(windows))
    return VersionStatus(
        model=model,
        version=version,
        verdict=verdict,
        windows=len(windows),
        since=streak[-1].first_prediction_at if streak else None,
        since_or_before=len(streak) == len(conclusive),
        streak=len(streak),
        unjudged=Counter(REASON_TEXTS[window.reason] if window.reason else window.explanation for window in unjudged),
        in_service=in_service,
        quality=quality,
    )


def versions_in_service(
    windows: Mapping[tuple[str, str], Sequence[JudgedWindow]], changes: Mapping[str, Mapping[str, ServiceChange]]
) -> dict[str, InService]:
    """Return the version in service of each model.

    It is the version of the latest promotion or rollback. A version that was never promoted, and has had its first
    window since then, has come into service by an alias that somebody moved. Of a model without any promotion it is the
    version of the latest predictions.
    """
    latest_changes = {model: max(by_version.values(), key=lambda c: c.at) for model, by_version in changes.items()}
    found = {
        model: InService(change.version, f"{CHANGE_TEXTS[change.state]} on {format_utc(change.at)}")
        for model, change in latest_changes.items()
    }
    by_model: dict[str, dict[str, Sequence[JudgedWindow]]] = {}
    for (model, version), judged in windows.items():
        by_model.setdefault(model, {})[version] = judged
    for model, by_version in by_model.items():
        version = _latest_to_answer(by_version)
        change = latest_changes.get(model)
        is_new = version not in changes.get(model, {})
        if change is None or (is_new and by_version[version][0].published_at > change.at):
            found[model] = InService(version, "it gave the latest predictions that were judged")
    return found


def _latest_to_answer(windows: Mapping[str, Sequence[JudgedWindow]]) -> str:
    """Return the version that gave the latest predictions, as far as their windows say.

    A window with the last rows of a replaced version can be judged a week after them. So among the versions with
    windows in the partition of the latest verdict it is the one whose rows are the last ones there; of versions whose
    rows end in the same slice, the one with the later prediction.
    """
    latest = max((judged[-1] for judged in windows.values()), key=lambda judged: judged.published_at).window

    def last_answer(version: str) -> tuple[int, datetime]:
        offsets = [
            judged.window.last_offset
            for judged in windows[version]
            if (judged.window.topic, judged.window.partition) == (latest.topic, latest.partition)
        ]
        return max(offsets, default=-1), windows[version][-1].last_prediction_at

    return max(windows, key=last_answer)


def _window_count(count: int, kind: str = "") -> str:
    return f"{count} {kind}window{'' if count == 1 else 's'}"
