"""Judge one version's rows of a window against the version's reference."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import pandas as pd
import structlog

from drift_worker.verdicts.comparable_reference import load_comparable_reference
from drift_worker.verdicts.scored_rows import comparable_rows
from driftloop.drift.comparable_columns import ComparableRows
from driftloop.drift.cumulated import CumulatedScore, CumulatedState, cumulate
from driftloop.drift.data_checks import check_data
from driftloop.drift.prepared_profile import PreparedProfile
from driftloop.drift.scoring import StatisticValues, WindowScore, score_window
from driftloop.drift.settings import WindowSettings
from driftloop.drift.window_length import MIN_INDEPENDENT_WINDOWS
from driftloop.errors import ERRORS_OF_VALUES, InvalidInput
from driftloop.events import (
    TIME_COLUMN,
    CumulatedChange,
    DataQualityIssue,
    DriftReason,
    DriftVerdict,
    Window,
    verdict_id,
)
from driftloop.privacy import ALL_KEPT, FeaturePolicy
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import Reference, ReferenceMissing, ReferenceUnavailable
from driftloop.telemetry import tracing
from driftloop.telemetry.health import Health

log = structlog.get_logger(__name__)

MAX_REFERENCES_MB = 256  # six of the largest, of 16 columns
PROFILE_BYTES_PER_JSON_BYTE = 4  # of a profile as objects


class LoadedReference(NamedTuple):
    """A version's reference, prepared for windows."""

    reference: Reference
    """Without rows, which take as much memory again: windows need the types of its columns."""
    prepared: PreparedProfile
    nbytes: int
    """The memory that it takes, in bytes."""
    privacy_note: str = ""
    """Which columns are not compared because of privacy settings, and why."""


class Inconclusive(InvalidInput):
    """The rows cannot be judged; the message says why."""

    def __init__(self, reason: DriftReason, message: str) -> None:
        """Create the error with its reason as a code and in words."""
        super().__init__(message)
        self.reason = reason


class WindowJudge:
    """Judges rows against the reference of their version.

    The references of the versions that were judged last stay in memory, up to a limit.
    """

    def __init__(
        self,
        store: ObjectStore,
        settings: WindowSettings,
        max_references_mb: float = MAX_REFERENCES_MB,
        policy: FeaturePolicy = ALL_KEPT,
        health: Health | None = None,
    ) -> None:
        """Start without references.

        Args:
            store: Where the references are.
            settings: How many rows a window needs.
            max_references_mb: The memory of references in MB (2^20 bytes). Beyond it those that were not used for the
                longest time are dropped, and loaded again when they are needed. The last one always stays.
            policy: How features of events are treated.
            health: Gets a warning while windows of a version are judged whose reference was made otherwise, and after a
                window that could not be judged because of an error.
        """
        self._store = store
        self._settings = settings
        self._policy = policy
        self._health = health
        self._max_bytes = max_references_mb * 2**20
        # The one that was used last is the last one.
        self._references: dict[tuple[str, str, str | None], LoadedReference] = {}

    def window_length(self, model: str, version: str, run_id: str | None = None) -> int:
        """Return how many rows a version's window has: what its reference was calibrated for, or the setting.

        Raises:
            StorageUnavailable: The store does not answer.
        """
        try:
            return self._load_reference(model, version, run_id).reference.profile.window_rows
        except Inconclusive:  # as its verdicts will be
            return self._settings.slice_rows

    def cumulate(
        self,
        model: str,
        version: str,
        rows: pd.DataFrame,
        state: CumulatedState | None,
        run_id: str | None = None,
    ) -> CumulatedScore | None:
        """Return a version's sums with a window added.

        Args:
            model: The model's name.
            version: The version that has predicted the rows.
            rows: The window's rows.
            state: The sums after the version's window before it, if they are known; else the sums begin here.
            run_id: The run that logged the version, if it is known.

        Returns:
            The sums; ``None`` if the window cannot be judged, or the version has no calibration of sums.
        """
        try:
            reference = self._load_reference(model, version, run_id).reference
            if (calibration := reference.profile.cumulated) is None:
                return None
            return cumulate(calibration, state or CumulatedState(), self._to_comparable(reference, rows).rows)
        except Inconclusive:
            return None
        except ERRORS_OF_VALUES:
            log.exception("drift.cumulation_failed", model=model, version=version)
            return None

    def judge(
        self,
        window: Window,
        model: str,
        version: str,
        rows: pd.DataFrame,
        preceding: Sequence[pd.DataFrame],
        archive: Sequence[str],
        cumulated: CumulatedScore | None = None,
        run_id: str | None = None,
    ) -> DriftVerdict:
        """Return the verdict on a version's window; it is the same whenever the window is judged.

        Rows that cannot be judged get the verdict ``inconclusive`` with the reason, also where their values make the
        judging itself fail: a worker that ended then would end at every start, for all versions of the partition.

        Args:
            window: The window's offsets.
            model: The model's name.
            version: The version that has predicted the rows.
            rows: The window's rows, at least one.
            preceding: The rows of each of the version's windows before it, the oldest first.
            archive: The URLs of the files with the window's rows.
            cumulated: The version's sums with this window, from :meth:`cumulate`.
            run_id: The run that logged the version, if it is known.
        """
        verdict_of = partial(
            DriftVerdict,
            id=verdict_id(window, model, version, run_id),
            window=window,
            model=model,
            version=version,
            run_id=run_id,
            rows=len(rows),
            first_prediction_at=rows[TIME_COLUMN].min().to_pydatetime(),
            last_prediction_at=rows[TIME_COLUMN].max().to_pydatetime(),
            archive=list(archive),
            traceparent=tracing.current_traceparent(),
        )
        try:
            loaded = self._load_reference(model, version, run_id)
            comparable = self._to_comparable(loaded.reference, rows)
            verdict = self._compare(loaded, comparable, preceding, cumulated, verdict_of)
        except Inconclusive as error:
            return verdict_of(verdict="inconclusive", reason=error.reason, explanation=str(error))
        except ERRORS_OF_VALUES as error:
            log.exception("drift.judging_failed", window=window.name, model=model, version=version)
            self._report("judging", model, version, f"{describe_failure(error)} (window {window.name})")
            return verdict_of(verdict="inconclusive", reason="failed", explanation=describe_failure(error))
        self._report("judging", model, version, "")
        self._report("privacy", model, version, loaded.privacy_note)
        return verdict

    def _compare(
        self,
        loaded: LoadedReference,
        comparable: ComparableRows,
        preceding: Sequence[pd.DataFrame],
        cumulated: CumulatedScore | None,
        verdict_of: Callable[..., DriftVerdict],
    ) -> DriftVerdict:
        """Return the verdict on a window compared with the reference.

        Args:
            loaded: The version's reference.
            comparable: The window's rows as the reference has them.
            preceding: The rows of each of the version's windows before it, the oldest first.
            cumulated: The version's sums with this window.
            verdict_of: Makes a verdict about the window.
        """
        profile = loaded.reference.profile
        issues = [
            *type_issues(comparable.unreadable),
            *check_data(loaded.prepared.whole, comparable.rows, profile.normally_constant_columns),
        ]
        if not profile.spans:
            return verdict_of(
                verdict="inconclusive",
                reason="small_reference",
                explanation=f"data quality only: the reference has {profile.reference_rows:,} rows, and "
                f"{MIN_INDEPENDENT_WINDOWS * profile.window_rows:,} are needed to calibrate windows of "
                f"{profile.window_rows:,}",
                data_quality_issues=issues,
            )
        score = score_window(profile, self._statistics(loaded, comparable.rows, preceding))
        single, *multiwindow = score.spans
        changes = cumulated.changes if cumulated else []
        return verdict_of(
            verdict="drift" if score.alarm or changes else "no_drift",
            explanation="; ".join(filter(None, [explain(score), *map(explain_change, changes), loaded.privacy_note])),
            score=single.score,
            score_threshold=single.threshold,
            multiwindow_score=multiwindow[0].score if multiwindow else None,
            multiwindow_score_threshold=multiwindow[0].threshold if multiwindow else None,
            cumulated_score=cumulated.score if cumulated else None,
            cumulated_changes=changes,
            findings=score.findings,
            data_quality_issues=issues,
        )

    def _report(self, component: str, model: str, version: str, note: str) -> None:
        """Warn in readiness of what is wrong with the window that is judged now; clear the warning without a note."""
        if self._health is None:
            return
        if note:
            self._health.add_warning(component, f"version {version} of {model}: {note}")
        else:
            self._health.clear_warning(component)

    def _statistics(
        self, loaded: LoadedReference, rows: pd.DataFrame, preceding: Sequence[pd.DataFrame]
    ) -> dict[int, Sequence[StatisticValues]]:
        """Return the statistics of the window, and of it with the windows before it, by the number of windows."""
        reference = loaded.reference
        values: dict[int, Sequence[StatisticValues]] = {1: loaded.prepared.statistics(rows)}
        for span in reference.profile.spans[1:]:
            earlier = preceding[-(span.windows - 1) :]
            if len(earlier) < span.windows - 1:
                continue
            with suppress(Inconclusive):  # a window that cannot be judged alone is not judged with others either
                frames = [self._to_comparable(reference, each).rows for each in earlier]
                columns = list(reference.profile.kinds)
                pooled = pd.concat([frame[columns] for frame in (*frames, rows)], ignore_index=True)
                values[span.windows] = loaded.prepared.statistics(pooled)
        return values

    def _load_reference(self, model: str, version: str, run_id: str | None) -> LoadedReference:
        """Return the version's reference. Raises :class:`Inconclusive` if windows cannot be judged by it."""
        key = (model, version, run_id)
        loaded = self._references.pop(key, None) or self._read_reference(*key)
        self._references[key] = loaded
        while len(self._references) > 1 and sum(each.nbytes for each in self._references.values()) > self._max_bytes:
            del self._references[next(iter(self._references))]
        return loaded

    def _read_reference(self, model: str, version: str, run_id: str | None) -> LoadedReference:
        try:
            comparable = load_comparable_reference(self._store, model, version, run_id or "", self._policy)
            reference = comparable.reference
            profile = reference.profile
            prepared = PreparedProfile.prepare(profile, reference.rows)
            if profile.spans:
                # Scored as a window will be, so that a profile that does not fit its rows is found here.
                score_window(profile, {1: prepared.statistics(reference.rows)}).spans[0]
            if profile.cumulated:
                cumulate(profile.cumulated, CumulatedState(), reference.rows.head(profile.window_rows))
        except ReferenceUnavailable as error:
            reason: DriftReason = "no_reference" if isinstance(error, ReferenceMissing) else "unreadable_reference"
            raise Inconclusive(reason, str(error)) from error
        except (LookupError, TypeError, ValueError) as error:
            raise Inconclusive(
                "unreadable_reference",
                f"the reference of version {version} of {model} has another schema than its profile: {error!r}",
            ) from error
        without_rows = reference._replace(rows=reference.rows.head(0).copy())  # a slice would keep all rows in memory
        nbytes = prepared.nbytes + PROFILE_BYTES_PER_JSON_BYTE * len(profile.model_dump_json())
        if note := comparable.privacy_note:
            log.warning("reference.privacy_differs", model=model, version=version, reason=note)
        return LoadedReference(without_rows, prepared, nbytes, note)

    def _to_comparable(self, reference: Reference, rows: pd.DataFrame) -> ComparableRows:
        """Return the rows as the reference has them. Raises :class:`Inconclusive` if they cannot be compared."""
        profile = reference.profile
        min_rows = self._settings.min_rows(profile.window_rows)
        if len(rows) < min_rows:
            raise Inconclusive("too_few_rows", f"too few rows: {len(rows)} of at least {min_rows}")
        if missing := [column for column in profile.kinds if column not in rows.columns]:
            raise Inconclusive(
                "missing_columns", f"the window has no column {', '.join(missing)}, which the reference has"
            )
        return comparable_rows(rows, reference)


def describe_failure(error: Exception) -> str:
    """Return why judging has failed, without the error's message, which may quote a value."""
    return f"judging has failed: {type(error).__name__}, see the log"


def explain(score: WindowScore) -> str:
    """Return a verdict's explanation: the scores and the statistics above their threshold, separated by semicolons."""
    single, *multiwindow = score.spans
    parts = [f"score {single.score:.1f}, threshold {single.threshold:.1f}"]
    parts += [
        f"with the {span.windows - 1} windows before it {span.score:.1f}, threshold {span.threshold:.1f}"
        for span in multiwindow
    ]
    parts += [
        f"{finding.column}: {finding.method} {finding.value:.3g} > {finding.threshold:.3g}"
        for finding in score.drifted_findings
    ]
    return "; ".join(parts)


def explain_change(change: CumulatedChange) -> str:
    """Return a small change that has lasted in words."""
    level = "" if change.level is None else f" of {change.level}"
    return (
        f"cumulated over {change.windows} windows: {change.column}: {change.statistic.replace('_', ' ')}{level} "
        f"{'higher' if change.direction == 'up' else 'lower'} than in the reference, sum {change.score:.1f} × its limit"
    )


def type_issues(unreadable: Mapping[str, float]) -> list[DataQualityIssue]:
    """Return an issue for each column with values of another kind, with their fraction of the rows."""
    return [DataQualityIssue(column=column, kind="type_mismatch", fraction=unreadable[column]) for column in unreadable]
