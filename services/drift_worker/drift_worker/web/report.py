"""evidently's own report of a window, as HTML in the bucket.

``python -m drift_worker.web.report MODEL VERSION WINDOW`` makes one, in a process of its own:
evidently takes ten seconds to import, and as long to draw.
"""

import argparse
import html
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import pandas as pd

from drift_worker.settings import DriftWorkerSettings
from drift_worker.windows import archive
from driftloop.drift.calibration import DriftProfile
from driftloop.drift.distances import DISTANCES, ColumnType
from driftloop.drift.statistics import distance_for
from driftloop.events import DriftVerdict, Window
from driftloop.settings import load
from driftloop.storage import reference_store
from driftloop.storage.bucket import Away, Bucket
from driftloop.storage.reference_store import NoReference, Reference

MOST_ROWS = 5_000  # of the reference: evidently draws each of them, and compares no faster than it draws
NICENESS = 19  # windows come first


class ReportKey(NamedTuple):
    """What a report is of: a version's rows of a window."""

    model: str
    version: str
    window: str
    """The window's name."""

    @classmethod
    def for_verdict(cls, verdict: DriftVerdict) -> Self:
        """What a verdict is on."""
        return cls(verdict.model, verdict.version, verdict.window.name)

    @property
    def path(self) -> str:
        """Where its report lies in the bucket."""
        return f"reports/{self.model}/{self.version}/{self.window}.html"


class WindowNotArchived(Exception):
    """The archive has no row of the version in the window."""


def load_rows(bucket: Bucket, subject: ReportKey) -> tuple[Reference, pd.DataFrame]:
    """The version's reference, and the window's rows of the version with the columns and types of the reference.

    A column that the window lacks has no values. Raises :class:`NoReference` and :class:`NoRows`.
    """
    known = reference_store.read(bucket, subject.model, subject.version)
    try:
        found = archive.read_slice(bucket, Window.parse(subject.window))
    except FileNotFoundError as error:
        raise WindowNotArchived(f"the archive has no window {subject.window}") from error
    found = found[(found["model"] == subject.model) & (found["version"] == subject.version)]
    if found.empty:
        raise WindowNotArchived(f"window {subject.window} has no row of version {subject.version} of {subject.model}")
    kinds = known.profile.column_types
    return known._replace(rows=_fitting(known.rows, kinds)), _fitting(found, kinds)


def _fitting(frame: pd.DataFrame, kinds: Mapping[str, ColumnType]) -> pd.DataFrame:
    """The compared columns; a number is a float, as where verdicts are made."""
    fitting: dict[str, pd.Series] = {
        name: pd.to_numeric(frame[name], errors="coerce").astype("float64") if kind == "number" else frame[name]
        for name, kind in kinds.items()
        if name in frame
    }
    return pd.DataFrame(fitting).reindex(columns=list(kinds)).reset_index(drop=True)


def render_and_store(bucket: Bucket, subject: ReportKey) -> str:
    """Writes the report unless it is there; returns its path. Raises what :func:`rows` raises."""
    if not bucket.exists(subject.path):
        known, window = load_rows(bucket, subject)
        bucket.write(subject.path, render_html(known, window, subject).encode())
    return subject.path


def render_html(known: Reference, window: pd.DataFrame, subject: ReportKey) -> str:
    """The report as one HTML file that loads nothing: the window's distances against our thresholds.

    evidently refuses a report with a column that has no value on one side: such columns are left out, and named.
    """
    # Ten seconds, which only who draws should pay.
    from evidently import DataDefinition, Dataset, Report  # noqa: PLC0415
    from evidently.presets import DataDriftPreset  # noqa: PLC0415

    sample = reference_store.thinned(known.rows, MOST_ROWS)
    kinds = known.profile.column_types
    empty = [name for name in kinds if window[name].isna().all() or sample[name].isna().all()]
    columns = [name for name in kinds if name not in empty]
    limits = {name: limit for name, limit in thresholds(known.profile).items() if name in columns}
    note = _note(subject, len(window), len(sample), len(known.rows), limits, empty)
    if not columns:
        return f"<!doctype html><meta charset=utf-8><title>{html.escape(subject.window)}</title><body>{note}"
    definition = DataDefinition(
        numerical_columns=[name for name in columns if kinds[name] == "number"],
        categorical_columns=[name for name in columns if kinds[name] == "category"],
    )
    preset = DataDriftPreset(
        columns=columns,
        num_method=DISTANCES["number"][0],  # named, since evidently's choice changes with rows and values
        cat_method=DISTANCES["category"][0],
        per_column_method={
            column: known.profile.distances[column] for column in columns if column in known.profile.distances
        },
        per_column_threshold=limits,
        drift_share=1 / len(columns),  # one column is enough for an alarm
        include_tests=False,  # they say the same once more
    )
    snapshot = Report([preset]).run(
        Dataset.from_pandas(window[columns], data_definition=definition),
        Dataset.from_pandas(sample[columns].reset_index(drop=True), data_definition=definition),
    )
    page: str = snapshot.get_html_str(as_iframe=False)
    title = f"<title>{html.escape(f'{subject.model} {subject.version}: {subject.window}')}</title>"
    return page.replace("<head>", f"<head>{title}", 1).replace("<body>", f"<body>{note}", 1)


def thresholds(profile: DriftProfile) -> dict[str, float]:
    """By column, the distance above which a single window alarms."""
    single = profile.spans[0]
    return {
        normal.column: normal.location + single.score_threshold * normal.scale
        for normal in single.null_distributions
        if normal.statistic == distance_for(normal.column, profile.column_types, profile.distances)
    }


def _note(
    subject: ReportKey, window: int, sample: int, known: int, limits: Mapping[str, float], empty: Sequence[str]
) -> str:
    """What the report shows and what it does not, above it; evidently itself does not name a column's threshold."""
    parts = [
        f"{subject.model}, version {subject.version}, window {subject.window}: {window:,} rows against {sample:,}"
        f" of the reference's {known:,}. The verdict compares with all of the reference, and also looks at missing and"
        " repeated values and at the windows before this one.",
    ]
    if limits:
        named = ", ".join(f"{name} {limit:.3g}" for name, limit in limits.items())
        parts.append(f"Distances above which a single window alarms: {named}.")
    if empty:
        parts.append(f"Left out, since they have no values: {', '.join(empty)}.")
    paragraphs = "".join(f"<p>{html.escape(part)}</p>" for part in parts)
    return f'<div style="font: 14px/1.5 sans-serif; color: #444; padding: 8px 32px">{paragraphs}</div>'


def main() -> None:
    """Makes one report, while nothing else needs the processor; the exit code is 1 where there can be none."""
    os.nice(NICENESS)
    parser = argparse.ArgumentParser(prog="python -m drift_worker.web.report", description=__doc__)
    for name in ReportKey._fields:
        parser.add_argument(name)
    subject = ReportKey(**vars(parser.parse_args()))
    try:
        print(render_and_store(Bucket(load(DriftWorkerSettings).storage), subject))
    except (NoReference, WindowNotArchived, Away) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
