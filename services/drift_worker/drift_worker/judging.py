"""From a slice's rows of one version to its verdict."""

import pandas as pd

from driftloop.drift.judging import judge
from driftloop.drift.statistics import statistics
from driftloop.events import Drift, Window
from driftloop.reference import NoReference, Reference, read
from driftloop.settings import WindowSettings
from driftloop.storage import Bucket


class Judging:
    """Judges rows against the reference of their version; references are read once."""

    def __init__(self, bucket: Bucket, window: WindowSettings) -> None:
        """No reference is read yet."""
        self._bucket = bucket
        self._window = window
        self._references: dict[tuple[str, str], Reference] = {}

    def verdict(self, window: Window, model: str, version: str, rows: pd.DataFrame, archive: str) -> Drift:
        """The verdict on a version's rows of a window: the same for the same window, whenever it is given.

        Rows that cannot be judged get a verdict that says why.
        """
        base = Drift(
            id=f"{window.name}/{model}/{version}",
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
        fewest = int(self._window.rows * self._window.fewest_share)
        if len(rows) < fewest:
            return base.model_copy(update={"why": f"too few rows: {len(rows)}, and {fewest} are needed"})
        try:
            reference = self._reference(model, version)
        except NoReference as error:
            return base.model_copy(update={"why": str(error)})
        profile = reference.profile
        absent = [column for column in profile.kinds if column not in rows.columns]
        if absent:
            return base.model_copy(update={"why": f"the window lacks {', '.join(absent)}, which the reference has"})
        if profile.rows != self._window.rows:
            return base.model_copy(
                update={
                    "why": f"windows here have {self._window.rows} rows (DRIFTLOOP_WINDOW__ROWS), but version "
                    f"{version} was calibrated for {profile.rows}"
                }
            )
        judgement = judge(profile, statistics(profile.kinds, reference.sample, rows))
        return base.model_copy(
            update={
                "verdict": "alarm" if judgement.alarm else "quiet",
                "why": f"score {judgement.score:.1f}, limit {profile.limit:.1f}"
                + "".join(f"; {f.column}: {f.method} {f.value:.3g} > {f.threshold:.3g}" for f in judgement.drifted),
                "score": judgement.score,
                "limit": profile.limit,
                "findings": judgement.findings,
            }
        )

    def _reference(self, model: str, version: str) -> Reference:
        if (model, version) not in self._references:
            self._references[model, version] = read(self._bucket, model, version)
        return self._references[model, version]
