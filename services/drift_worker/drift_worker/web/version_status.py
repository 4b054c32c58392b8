"""The status of all versions on the topics, and which versions are in service."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from drift_worker.web.verdict_cache import ServiceChange, VerdictCache
from driftloop.events import QualityVerdict
from driftloop.times import format_utc
from driftloop.version_status import JudgedWindow, VersionStatus, latest_run, most_important_first, version_status

CHANGE_TEXTS: Mapping[str, str] = {"promoted": "promoted", "rolled_back": "restored by a rollback"}


class InService(NamedTuple):
    """Which version of a model serves, as far as the topics say."""

    version: str
    explanation: str
    """How that is known."""


def version_statuses(cache: VerdictCache) -> list[VersionStatus]:
    """Return the status of all versions, the most important first."""
    windows = cache.windows_by_version()
    in_service = versions_in_service(windows, cache.service_changes())
    keys = [*windows, *((model, found.version) for model, found in in_service.items())]
    statuses = []
    for model, version in dict.fromkeys(keys):
        serving = in_service.get(model)
        judged = windows.get((model, version), [])
        run_id = latest_run(judged)
        compared = cache.latest_conclusive(QualityVerdict, model, version, 1, run_id)
        latest = cache.latest(QualityVerdict, model, version, 1, run_id)
        statuses.append(
            version_status(
                model,
                version,
                judged,
                [*compared, *(quality for quality in latest if quality not in compared)],
                serving.explanation if serving and serving.version == version else None,
            )
        )
    return most_important_first(statuses)


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
