"""Render evidently's report of a window as HTML in the store.

``python -m drift_worker.web.report MODEL VERSION WINDOW [RUN]`` renders one report. It runs in a process of its own,
because evidently takes ten seconds to import and as long to render.
"""

import argparse
import html
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import pandas as pd
import pyarrow as pa

from drift_worker.settings import DriftWorkerSettings
from drift_worker.verdicts.comparable_reference import load_comparable_reference
from drift_worker.verdicts.scored_rows import comparable_rows
from drift_worker.windows import archive
from driftloop.archive.erasing import POSITION_COLUMNS, erased_mask
from driftloop.archive.erasures import Erasure, Tombstones
from driftloop.command_line import load_settings_or_exit
from driftloop.drift.distances import DISTANCES
from driftloop.drift.prepared_profile import PreparedProfile, stretch_rows
from driftloop.drift.profile import DriftProfile
from driftloop.drift.scoring import score_window
from driftloop.drift.statistics import distance_for
from driftloop.errors import ArchiveUnreadable, InvalidInput, StorageUnavailable
from driftloop.events import DriftVerdict, Window
from driftloop.exit_codes import ExitCode
from driftloop.privacy import ALL_KEPT, FeaturePolicy
from driftloop.storage import reference_store
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import Reference, ReferenceUnavailable

MAX_REFERENCE_ROWS = 5_000  # evidently plots each row, and comparing takes no longer than plotting
NICENESS = 10  # judging windows goes first; with 19, busy processors leave a report no time at all


class ReportKey(NamedTuple):
    """Identifies a report: a version's rows of a window."""

    model: str
    version: str
    window: str
    """The window's name."""
    run_id: str = ""
    """The run of the version; empty if it is not known."""

    @classmethod
    def for_verdict(cls, verdict: DriftVerdict) -> Self:
        """Return the key of the report on a verdict's window."""
        return cls(verdict.model, verdict.version, verdict.window.name, verdict.run_id or "")

    @property
    def path(self) -> str:
        """The report's path in the store."""
        return f"reports/{self.model}/{self.version}/{self.window}.html"


class WindowNotArchived(InvalidInput):
    """The archive has no rows of the version in the window; they may have been deleted."""


def load_rows(
    store: ObjectStore, key: ReportKey, policy: FeaturePolicy = ALL_KEPT, erased: Sequence[Erasure] = ()
) -> tuple[Reference, pd.DataFrame]:
    """Return the version's reference and its rows of the window, both with the reference's columns and types.

    Of the reference, only the rows of the stretch that the window is judged by are returned. A column that the window
    does not have is empty, and one that ``policy`` does not allow to compare is left out, like rows that are erased.

    Raises:
        ReferenceUnavailable: The version has no reference that can be read.
        WindowNotArchived: The archive has no rows of the version in the window.
        StorageUnavailable: The store does not answer.
    """
    reference = load_comparable_reference(store, key.model, key.version, key.run_id, policy).reference
    try:
        version_rows = archive.read_window(store, Window.parse(key.window), *key[:2], key.run_id)
    except FileNotFoundError as error:
        raise WindowNotArchived(
            f"the archive has no window {key.window}: its rows are older than the archive keeps them "
            "(DRIFTLOOP_ARCHIVE__PREDICTION_RETENTION_DAYS), or were deleted"
        ) from error
    if erased:  # and perhaps still in the files
        positions = pa.Table.from_pandas(version_rows[list(POSITION_COLUMNS)], preserve_index=False)
        version_rows = version_rows[~erased_mask(positions, Window.parse(key.window), erased)]
    if version_rows.empty:
        raise WindowNotArchived(f"window {key.window} has no rows of version {key.version} of {key.model}")
    kinds = reference.profile.kinds
    comparable = comparable_rows(version_rows, reference).rows
    numbers = [name for name, column_type in reference.profile.column_types.items() if column_type == "number"]
    # As floats on both sides: evidently bins integers differently.
    floats = {name: pd.to_numeric(reference.rows[name], errors="coerce").astype("float64") for name in numbers}
    reference_rows, window_rows = (
        rows.reindex(columns=list(kinds)).reset_index(drop=True)
        for rows in (reference.rows.assign(**floats), comparable)
    )
    return reference._replace(rows=_nearest_stretch(reference.profile, reference_rows, window_rows)), window_rows


def _nearest_stretch(profile: DriftProfile, reference: pd.DataFrame, window: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the stretch that a window is judged by."""
    if len(profile.stretches) == 1:
        return reference
    score = score_window(profile, {1: PreparedProfile.prepare(profile, reference).statistics(window)})
    return stretch_rows(profile, reference)[score.spans[0].stretch].reset_index(drop=True)


def _erasures_in(tombstones: Tombstones, key: ReportKey) -> dict[str, Erasure]:
    """Return the erasures, by id, that have something in a report's window."""
    window = Window.parse(key.window)
    return {erasure.id: erasure for erasure in tombstones.current() if erasure.in_window(window)}


def render_and_store(store: ObjectStore, key: ReportKey, policy: FeaturePolicy = ALL_KEPT) -> str:
    """Render and store a report unless the store has it; return its path. Raises what :func:`load_rows` raises."""
    if store.exists(key.path):
        return key.path
    tombstones = Tombstones(store, max_age_seconds=0)
    present = _erasures_in(tombstones, key)
    while True:
        reference, window = load_rows(store, key, policy, list(present.values()))
        page = render_html(reference, window, key).encode()
        before, present = present, _erasures_in(tombstones, key)
        if present.keys() == before.keys():
            break
    store.write(key.path, page)
    return key.path


def render_html(reference: Reference, window: pd.DataFrame, key: ReportKey) -> str:
    """Render a report as one HTML file that loads nothing, with the window's distances and our thresholds.

    evidently rejects a column without values on one side, so such columns are left out and listed in the header.
    """
    # Ten seconds, only for processes that render.
    from evidently import DataDefinition, Dataset, Report  # noqa: PLC0415
    from evidently.presets import DataDriftPreset  # noqa: PLC0415

    profile = reference.profile
    sample = reference_store.subsample_evenly(reference.rows, MAX_REFERENCE_ROWS)
    column_types = profile.column_types
    empty_columns = [name for name in column_types if window[name].isna().all() or sample[name].isna().all()]
    columns = [name for name in column_types if name not in empty_columns]
    distance_thresholds = {name: value for name, value in thresholds(profile).items() if name in columns}
    row_counts = RowCounts(len(window), len(sample), len(reference.rows))
    header = _header_html(key, row_counts, distance_thresholds, empty_columns)
    if not columns:
        return f"<!doctype html><meta charset=utf-8><title>{html.escape(key.window)}</title><body>{header}"
    definition = DataDefinition(
        numerical_columns=[name for name in columns if column_types[name] == "number"],
        categorical_columns=[name for name in columns if column_types[name] == "category"],
    )
    preset = DataDriftPreset(
        columns=columns,
        num_method=DISTANCES["number"][0],  # explicit: evidently's own choice depends on rows and values
        cat_method=DISTANCES["category"][0],
        per_column_method={column: profile.distances[column] for column in columns if column in profile.distances},
        per_column_threshold=distance_thresholds,
        drift_share=1 / len(columns),  # one column is enough, as for our verdict
        include_tests=False,  # they repeat the result
    )
    snapshot = Report([preset]).run(
        Dataset.from_pandas(window[columns], data_definition=definition),
        Dataset.from_pandas(sample[columns].reset_index(drop=True), data_definition=definition),
    )
    page: str = snapshot.get_html_str(as_iframe=False)
    title = f"<title>{html.escape(f'{key.model} {key.version}: {key.window}')}</title>"
    return page.replace("<head>", f"<head>{title}", 1).replace("<body>", f"<body>{header}", 1)


def thresholds(profile: DriftProfile) -> dict[str, float]:
    """Return the distance above which a single window is an alarm, by column."""
    return {
        null.column: single.threshold(null)
        for single in profile.spans[:1]
        for null in single.null_distributions
        if null.statistic == distance_for(null.column, profile.column_types, profile.distances)
    }


class RowCounts(NamedTuple):
    """Numbers of rows that a report compares."""

    window: int
    sample: int
    reference: int


def _header_html(
    key: ReportKey, rows: RowCounts, distance_thresholds: Mapping[str, float], empty_columns: Sequence[str]
) -> str:
    """Return what the report compares and leaves out; evidently itself does not show a column's threshold."""
    paragraphs = [
        f"{key.model}, version {key.version}, window {key.window}: {rows.window:,} rows, compared with {rows.sample:,} "
        f"of the reference's {rows.reference:,}. The verdict compares with all of these, and also checks missing and "
        "repeated values and the windows before this one.",
    ]
    if distance_thresholds:
        listed = ", ".join(f"{name} {value:.3g}" for name, value in distance_thresholds.items())
        paragraphs.append(f"Distances above which a single window is an alarm: {listed}.")
    if empty_columns:
        paragraphs.append(f"Left out because they have no values: {', '.join(empty_columns)}.")
    body = "".join(f"<p>{html.escape(paragraph)}</p>" for paragraph in paragraphs)
    return f'<div style="font: 14px/1.5 sans-serif; color: #444; padding: 8px 32px">{body}</div>'


def main() -> None:
    """Render one report with a low priority; exit with the reason if it cannot be rendered.

    The exit code is 7 if the archive does not have the window's rows, and else 1.
    """
    os.nice(NICENESS)
    parser = argparse.ArgumentParser(prog="python -m drift_worker.web.report", description=__doc__)
    for name in ReportKey._fields:
        default = ReportKey._field_defaults.get(name)
        parser.add_argument(name, nargs=None if default is None else "?", default=default)
    key = ReportKey(**vars(parser.parse_args()))
    try:
        settings = load_settings_or_exit(DriftWorkerSettings)
        print(render_and_store(ObjectStore(settings.storage), key, settings.privacy.privacy.feature_policy))
    except WindowNotArchived as error:
        print(error, file=sys.stderr)
        sys.exit(ExitCode.REFUSED)
    except (ReferenceUnavailable, ArchiveUnreadable, StorageUnavailable) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
