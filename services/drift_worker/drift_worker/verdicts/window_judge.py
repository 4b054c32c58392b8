"""From a slice's rows of one version to its verdict."""

import re
from contextlib import suppress
from hashlib import sha256
from typing import Any, NamedTuple

import pandas as pd

from drift_worker.windows.recent_windows import RecentWindows
from driftloop.drift.data_checks import check_data
from driftloop.drift.scoring import score_window
from driftloop.drift.statistics import PreparedReference, prepare_reference, window_statistics
from driftloop.events import DriftVerdict, DataQualityIssue, Window
from driftloop.settings import WindowSettings
from driftloop.storage.bucket import Bucket
from driftloop.storage.reference_store import NoReference, Reference, read

PLAIN = re.compile(r"[a-zA-Z0-9_./:-]+")
LONGEST_NAME = 128  # half of an event's id; the other half is the window's


class LoadedReference(NamedTuple):
    """A version's reference, ready for windows."""

    reference: Reference
    prepared: PreparedReference


class WindowJudge:
    """Judges rows against the reference of their version; references are read once."""

    def __init__(self, bucket: Bucket, window: WindowSettings, history: RecentWindows) -> None:
        """No reference is read yet."""
        self._bucket = bucket
        self._window = window
        self._history = history
        self._known: dict[tuple[str, str], LoadedReference] = {}

    def judge(self, window: Window, model: str, version: str, rows: pd.DataFrame, archive: str) -> DriftVerdict:
        """The verdict on a version's rows of a window: the same for the same window, whenever it is given.

        Rows that cannot be judged get a verdict that says why.
        """
        base = DriftVerdict(
            id=verdict_id(window, model, version),
            window=window,
            model=model,
            version=version,
            rows=len(rows),
            first_prediction_at=rows["time"].min().to_pydatetime(),
            last_prediction_at=rows["time"].max().to_pydatetime(),
            verdict="inconclusive",
            explanation="",
            archive=archive,
        )
        try:
            known = self._reference(model, version)
            rows, odd = self._fitting(known, version, rows)
        except Inconclusive as reason:
            return base.model_copy(update={"why": str(reason)})
        profile = known.reference.profile
        columns = list(profile.column_types)
        values = {1: window_statistics(known.prepared, rows)}
        for span in profile.spans[1:]:
            before = self._history.preceding_rows(window, model, version, span.windows - 1)
            with suppress(Inconclusive):  # a window that has no verdict by itself has none together with others
                if before is not None:
                    fitting = [self._fitting(known, version, one)[0] for one in before]
                    together = pd.concat([one[columns] for one in (*fitting, rows)], ignore_index=True)
                    values[span.windows] = window_statistics(known.prepared, together)
        judgement = score_window(profile, values)
        single, *rolling = judgement.spans
        return base.model_copy(
            update={
                "verdict": "drift" if judgement.alarm else "no_drift",
                "why": "; ".join(
                    [f"score {single.score:.1f}, limit {single.threshold:.1f}"]
                    + [f"with the {j.windows - 1} before it {j.score:.1f}, limit {j.threshold:.1f}" for j in rolling]
                    + [f"{f.column}: {f.method} {f.value:.3g} > {f.threshold:.3g}" for f in judgement.drifted_findings]
                ),
                "score": single.score,
                "limit": single.threshold,
                "rolling_score": rolling[0].score if rolling else None,
                "rolling_limit": rolling[0].threshold if rolling else None,
                "findings": judgement.findings,
                "facts": [*odd, *check_data(known.prepared, rows, profile.normally_constant_columns)],
            }
        )

    def _reference(self, model: str, version: str) -> LoadedReference:
        if (model, version) not in self._known:
            try:
                reference = read(self._bucket, model, version)
                known = LoadedReference(
                    reference,
                    prepare_reference(reference.profile.column_types, reference.rows, reference.profile.distances),
                )
                score_window(reference.profile, {1: window_statistics(known.prepared, reference.rows)}).spans[
                    0
                ]  # as windows will be
            except NoReference as error:
                raise Inconclusive(str(error)) from error
            except (LookupError, TypeError, ValueError) as error:
                raise Inconclusive(
                    f"the reference of version {version} of {model} is of another schema than its profile: {error!r}"
                ) from error
            self._known[model, version] = known
        return self._known[model, version]

    def _fitting(
        self, known: LoadedReference, version: str, rows: pd.DataFrame
    ) -> tuple[pd.DataFrame, list[DataQualityIssue]]:
        """The rows in the reference's types, and the columns whose type had to be changed for that."""
        profile = known.reference.profile
        fewest = self._window.min_rows
        if len(rows) < fewest:
            raise Inconclusive(f"too few rows: {len(rows)}, and {fewest} are needed")
        if absent := [column for column in profile.column_types if column not in rows.columns]:
            raise Inconclusive(f"the window lacks {', '.join(absent)}, which the reference has")
        if profile.window_rows != self._window.rows:
            raise Inconclusive(
                f"windows here have {self._window.rows} rows (DRIFTLOOP_WINDOW__ROWS), but version {version} was "
                f"calibrated for {profile.window_rows}"
            )
        fitting: dict[str, Any] = {}
        odd = []
        for column, kind in profile.column_types.items():
            cells = rows[column]
            if kind == "number" and not pd.api.types.is_numeric_dtype(cells):
                fitting[column] = pd.to_numeric(cells, errors="coerce").astype("float64")
                if share := float((fitting[column].isna() & cells.notna()).mean()):
                    odd.append(DataQualityIssue(column=column, kind="another_type", fraction=share))
        return rows.assign(**fitting), odd


class Inconclusive(Exception):
    """The rows cannot be judged; says why."""


def verdict_id(window: Window, model: str, version: str) -> str:
    """The id of the verdict; names that an id cannot hold stand there as their digest."""
    name = f"{model}/{version}"
    if len(name) > LONGEST_NAME or not PLAIN.fullmatch(name):
        name = sha256(name.encode()).hexdigest()
    return f"{window.name}/{name}"
