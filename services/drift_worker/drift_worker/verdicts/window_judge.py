"""From a slice's rows of one version to its verdict."""

import re
from contextlib import suppress
from hashlib import sha256
from typing import Any, NamedTuple

import pandas as pd

from drift_worker.windows.recent_windows import History
from driftloop.drift.data_checks import facts
from driftloop.drift.scoring import judge
from driftloop.drift.statistics import Prepared, prepared, statistics
from driftloop.events import Drift, Fact, Window
from driftloop.settings import WindowSettings
from driftloop.storage.bucket import Bucket
from driftloop.storage.reference_store import NoReference, Reference, read

PLAIN = re.compile(r"[a-zA-Z0-9_./:-]+")
LONGEST_NAME = 128  # half of an event's id; the other half is the window's


class Known(NamedTuple):
    """A version's reference, ready for windows."""

    reference: Reference
    prepared: Prepared


class Judging:
    """Judges rows against the reference of their version; references are read once."""

    def __init__(self, bucket: Bucket, window: WindowSettings, history: History) -> None:
        """No reference is read yet."""
        self._bucket = bucket
        self._window = window
        self._history = history
        self._known: dict[tuple[str, str], Known] = {}

    def verdict(self, window: Window, model: str, version: str, rows: pd.DataFrame, archive: str) -> Drift:
        """The verdict on a version's rows of a window: the same for the same window, whenever it is given.

        Rows that cannot be judged get a verdict that says why.
        """
        base = Drift(
            id=identity(window, model, version),
            window=window,
            model=model,
            version=version,
            rows=len(rows),
            starts=rows["time"].min().to_pydatetime(),
            ends=rows["time"].max().to_pydatetime(),
            verdict="unjudged",
            why="",
            archive=archive,
        )
        try:
            known = self._reference(model, version)
            rows, odd = self._fitting(known, version, rows)
        except Unjudged as reason:
            return base.model_copy(update={"why": str(reason)})
        profile = known.reference.profile
        columns = list(profile.kinds)
        values = {1: statistics(known.prepared, rows)}
        for span in profile.spans[1:]:
            before = self._history.before(window, model, version, span.windows - 1)
            with suppress(Unjudged):  # a window that has no verdict by itself has none together with others
                if before is not None:
                    fitting = [self._fitting(known, version, one)[0] for one in before]
                    together = pd.concat([one[columns] for one in (*fitting, rows)], ignore_index=True)
                    values[span.windows] = statistics(known.prepared, together)
        judgement = judge(profile, values)
        single, *rolling = judgement.spans
        return base.model_copy(
            update={
                "verdict": "alarm" if judgement.alarm else "quiet",
                "why": "; ".join(
                    [f"score {single.score:.1f}, limit {single.limit:.1f}"]
                    + [f"with the {j.windows - 1} before it {j.score:.1f}, limit {j.limit:.1f}" for j in rolling]
                    + [f"{f.column}: {f.method} {f.value:.3g} > {f.threshold:.3g}" for f in judgement.drifted]
                ),
                "score": single.score,
                "limit": single.limit,
                "rolling_score": rolling[0].score if rolling else None,
                "rolling_limit": rolling[0].limit if rolling else None,
                "findings": judgement.findings,
                "facts": [*odd, *facts(known.prepared, rows, profile.usually_constant)],
            }
        )

    def _reference(self, model: str, version: str) -> Known:
        if (model, version) not in self._known:
            try:
                reference = read(self._bucket, model, version)
                known = Known(reference, prepared(reference.profile.kinds, reference.rows, reference.profile.methods))
                judge(reference.profile, {1: statistics(known.prepared, reference.rows)}).spans[0]  # as windows will be
            except NoReference as error:
                raise Unjudged(str(error)) from error
            except (LookupError, TypeError, ValueError) as error:
                raise Unjudged(
                    f"the reference of version {version} of {model} is of another schema than its profile: {error!r}"
                ) from error
            self._known[model, version] = known
        return self._known[model, version]

    def _fitting(self, known: Known, version: str, rows: pd.DataFrame) -> tuple[pd.DataFrame, list[Fact]]:
        """The rows in the reference's types, and the columns whose type had to be changed for that."""
        profile = known.reference.profile
        fewest = self._window.fewest
        if len(rows) < fewest:
            raise Unjudged(f"too few rows: {len(rows)}, and {fewest} are needed")
        if absent := [column for column in profile.kinds if column not in rows.columns]:
            raise Unjudged(f"the window lacks {', '.join(absent)}, which the reference has")
        if profile.rows != self._window.rows:
            raise Unjudged(
                f"windows here have {self._window.rows} rows (DRIFTLOOP_WINDOW__ROWS), but version {version} was "
                f"calibrated for {profile.rows}"
            )
        fitting: dict[str, Any] = {}
        odd = []
        for column, kind in profile.kinds.items():
            cells = rows[column]
            if kind == "number" and not pd.api.types.is_numeric_dtype(cells):
                fitting[column] = pd.to_numeric(cells, errors="coerce").astype("float64")
                if share := float((fitting[column].isna() & cells.notna()).mean()):
                    odd.append(Fact(column=column, kind="another_type", share=share))
        return rows.assign(**fitting), odd


class Unjudged(Exception):
    """The rows cannot be judged; says why."""


def identity(window: Window, model: str, version: str) -> str:
    """The id of the verdict; names that an id cannot hold stand there as their digest."""
    name = f"{model}/{version}"
    if len(name) > LONGEST_NAME or not PLAIN.fullmatch(name):
        name = sha256(name.encode()).hexdigest()
    return f"{window.name}/{name}"
