"""The training set of a retrain: base dataset and archive, checked, written as a new dataset version.

The rows are never in memory together: DuckDB reads files and writes one file. Its bytes depend only on the base
dataset, the archive and the event, so the same rows are the same dataset version.
"""

# ruff: noqa: S608  # see driftloop.storage.duckdb_sql

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import duckdb
import pandas as pd

from driftloop.errors import ArchiveUnreadable, InvalidInput
from driftloop.events import DataSelection
from driftloop.settings import StorageSettings, TopicsSettings
from driftloop.storage import dvc, labelled_archive
from driftloop.storage.duckdb_sql import (
    NUMBERS,
    ROW_NUMBER_COLUMN,
    TIMESTAMP_TYPE,
    Connection,
    column_types,
    connect,
    copy_to_parquet,
    fetch_row,
    find_cast_failures,
    quote_identifier,
    scan_parquet_sql,
    struct_sql,
    tail_by_label_sql,
    try_cast_sql,
)
from driftloop.storage.dvc import DatasetVersionNotFound
from driftloop.storage.labelled_archive import (
    FEATURE_TYPES,
    ArchiveAnomalies,
    ArchiveQuery,
    start_of_day,
    where_clause,
)
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.outcome_sql import is_class_sql, outcome_type
from driftloop.usecase import UseCase
from trainer.retrain.missing_rates import MissingRates
from trainer.settings import TrainingDataSettings

ORDER = ("time", "source", "n")
BASE, ARCHIVE = 0, 1  # values of the column ``source``
DAY = timedelta(days=1)
MAX_LISTED_LABELS = 5


class InvalidTrainingData(InvalidInput):
    """The rows cannot be trained on; the message lists the failed checks with their numbers."""


class TrainingSetCounts(NamedTuple):
    """The numbers of rows that a training set is made of."""

    rows: int
    labelled: int
    archived: int
    """Rows that come from the archive."""
    archived_labelled: int
    outcomes: int
    """Rows of the archive whose outcome was reported; the following three count deviations."""
    unmatched: int
    """Outcomes without an archived prediction."""
    corrected: int
    """Outcomes that were reported more than once."""
    repeated: int
    """Additional copies of archived rows."""
    unknown_labels: int = 0
    """Archived outcomes that are not one of the use case's classes; their rows count as unlabelled."""

    def __str__(self) -> str:
        """Return a sentence for people."""
        total = f"{self.labelled:,} labelled rows of {self.rows:,}, {self.archived_labelled:,} of them from the archive"
        anomalies = {
            "outcomes have no archived prediction": self.unmatched,
            "outcomes were reported more than once": self.corrected,
            "rows were archived twice": self.repeated,
            "outcomes are not one of the classes": self.unknown_labels,
        }
        return "; ".join([total, *(f"{count:,} {anomaly}" for anomaly, count in anomalies.items() if count)])


class TrainingSet(NamedTuple):
    """A file with the rows for training, ordered by time; the target is missing where the outcome is unknown."""

    path: Path
    counts: TrainingSetCounts
    optional_features: frozenset[str] = frozenset()
    """Features that may be missing, in requests as well."""
    archived_through: datetime | None = None
    """The time of the archive's latest selected row; ``None`` if there is none."""

    @property
    def artifact(self) -> str:
        """The path of the dataset's DVC pointer among the artifacts of its MLflow run."""
        return dvc.artifact_path(self.path)


def build(
    storage: StorageSettings,
    store: ObjectStore,
    topics: TopicsSettings,
    use_case: UseCase,
    data: DataSelection,
    settings: TrainingDataSettings,
    folder: Path,
    unquoted: Collection[str] = (),
) -> TrainingSet:
    """Fetch base dataset and archive, write the rows that the event selects, and check them.

    Rows without a known outcome are included: windows are compared with everything that was predicted.

    Args:
        storage: Where the base dataset is.
        store: Where the archive is.
        topics: The names of the archived topics.
        use_case: Columns, types and time zone.
        data: Which rows to use.
        settings: What to check, and the memory limit.
        folder: An existing folder for all files; the caller deletes it.
        unquoted: Columns whose values no message may quote.

    Raises:
        InvalidTrainingData: Checks failed; the message lists all of them.
        StorageUnavailable: The store does not answer.
    """
    path = folder / f"{use_case.name}.parquet"
    base = _pull_base(storage, use_case, folder / "base")
    with connect(folder, settings.duckdb_memory_mb) as connection, _translate_errors(settings):
        base_types = column_types(connection, scan_parquet_sql([base]))
        feature_types = _feature_types(use_case, base_types)
        problems = _schema_problems(connection, use_case, base, base_types, feature_types, unquoted)
        days = _day_selection(use_case, data)
        connection.execute(f"CREATE VIEW base AS {_typed_rows_sql(use_case, base, base_types, feature_types, BASE)}")
        rows = f"SELECT * FROM base WHERE {where_clause(days)}"
        anomalies = ArchiveAnomalies(0, 0, 0, 0, 0)
        if data.archive:
            archive = folder / "archive" / "rows.parquet"
            archive.parent.mkdir(exist_ok=True)
            query = replace(days, until=None, last_rows=data.last_rows)
            anomalies, archive_problems = _export_archive(
                store, topics, use_case, query, feature_types, settings, archive, unquoted
            )
            problems += archive_problems
            archive_types = column_types(connection, scan_parquet_sql([archive]))
            rows += f" UNION ALL {_typed_rows_sql(use_case, archive, archive_types, feature_types, ARCHIVE)}"
        if data.last_rows is not None:
            rows = tail_by_label_sql(rows, ORDER, data.last_rows)
        connection.execute(f"CREATE VIEW chosen AS {rows}")
        timestamp, target = quote_identifier(use_case.timestamp), quote_identifier(use_case.target)
        columns = f"time AS {timestamp}, features.*, outcome AS {target}"
        copy_to_parquet(connection, f"SELECT {columns} FROM chosen ORDER BY {', '.join(ORDER)}", path)
        counts = _count(connection, anomalies)
        latest = connection.execute(f"SELECT max(time) FROM chosen WHERE source = {ARCHIVE}").fetchone()
        archived_through = latest[0] if latest else None
        problems += _label_problems(connection, use_case, counts, settings)
        features = [name for name in use_case.features if name in base_types]
        rates = MissingRates.read(connection, features, "base", "chosen", f"chosen WHERE source = {ARCHIVE}")
        problems += rates.problems(counts.rows, counts.archived, settings)
        problems += rates.required_feature_problems(use_case, counts.rows)
    if problems:
        raise InvalidTrainingData("; ".join(problems))
    return TrainingSet(path, counts, rates.optional_features(use_case), archived_through)


def read(path: Path, optional_features: Collection[str] = ()) -> pd.DataFrame:
    """Return a training set's rows.

    Whole numbers of a feature that may be missing become floats, as they do where one is missing: the type of a column
    must not depend on the selection of rows.
    """
    rows = pd.read_parquet(path)
    widened = [name for name in optional_features if name in rows and rows[name].dtype.kind in "iu"]
    return rows.astype(dict.fromkeys(widened, "float64"))


def _pull_base(storage: StorageSettings, use_case: UseCase, folder: Path) -> Path:
    try:
        return dvc.pull(storage, use_case.dvc_file.read_text(), folder)
    except (DatasetVersionNotFound, FileNotFoundError) as error:
        raise InvalidTrainingData(f"base dataset: {error}") from error


@contextmanager
def _translate_errors(settings: TrainingDataSettings) -> Iterator[None]:
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise InvalidTrainingData(
            f"more than {settings.duckdb_memory_mb} MB are needed (DRIFTLOOP_DATA__DUCKDB_MEMORY_MB): {error}"
        ) from error
    except duckdb.Error as error:
        raise InvalidTrainingData(f"base dataset: it cannot be read: {error}") from error


def _feature_types(use_case: UseCase, base_types: Mapping[str, str]) -> dict[str, str]:
    """Return the DuckDB type of each feature, and of each column of subgroups that is no feature.

    Numbers and categories have the base dataset's type; a number whose type there is no number becomes DOUBLE.
    """
    types = {}
    for name, kind in use_case.feature_kinds.items():
        base_type = base_types.get(name, "VARCHAR")
        has_base_type = kind == "category" or (kind == "number" and base_type in NUMBERS)
        types[name] = base_type if has_base_type else FEATURE_TYPES[kind]
    return types | dict.fromkeys(use_case.context_columns, "VARCHAR")


def _typed_rows_sql(
    use_case: UseCase, file: Path, file_types: Mapping[str, str], feature_types: Mapping[str, str], source: int
) -> str:
    """Build the SQL of a file's rows: ``time``, ``outcome``, ``features``, and where each row comes from."""
    time = try_cast_sql(use_case.timestamp, file_types, TIMESTAMP_TYPE)
    outcome = try_cast_sql(use_case.target, file_types, outcome_type(use_case))
    return (
        f"SELECT {time} AS time, {outcome} AS outcome, {struct_sql(file_types, feature_types)} AS features, "
        f"{source} AS source, {ROW_NUMBER_COLUMN} AS n FROM ({scan_parquet_sql([file])})"
    )


def _day_selection(use_case: UseCase, data: DataSelection) -> ArchiveQuery:
    """Return the range of time that an event selects."""
    return ArchiveQuery(
        since=None if data.start is None else start_of_day(use_case, data.start),
        until=None if data.base_end is None else start_of_day(use_case, data.base_end),
        excluded_ranges=tuple(
            (start_of_day(use_case, day), start_of_day(use_case, day + DAY)) for day in data.exclude_days
        ),
    )


def _export_archive(
    store: ObjectStore,
    topics: TopicsSettings,
    use_case: UseCase,
    query: ArchiveQuery,
    feature_types: Mapping[str, str],
    settings: TrainingDataSettings,
    path: Path,
    unquoted: Collection[str],
) -> tuple[ArchiveAnomalies, list[str]]:
    """Write the archive's rows to a file; return its anomalies and the problems of its schema."""
    try:
        with labelled_archive.open_archive(
            store,
            topics,
            use_case,
            types=feature_types,
            folder=settings.cache_dir,
            memory_mb=settings.duckdb_memory_mb,
            query=query,
        ) as archive:
            archive.write(path, query)
            problems = [
                f"schema: {failures.describe(name, 'the archive', quote=name not in unquoted)}"
                for name, failures in archive.type_mismatches().items()
            ]
            return archive.anomalies(), problems
    except ArchiveUnreadable as error:
        raise InvalidTrainingData(str(error)) from error


def _schema_problems(
    connection: Connection,
    use_case: UseCase,
    base: Path,
    base_types: Mapping[str, str],
    feature_types: Mapping[str, str],
    unquoted: Collection[str],
) -> list[str]:
    """Return where the base dataset does not have what the use case names. It may have more columns.

    It need not have the columns of subgroups that are no features: requests may have begun to send them later.
    """
    required = {name: feature_types[name] for name in use_case.features}
    expected = {use_case.timestamp: TIMESTAMP_TYPE, **required, use_case.target: outcome_type(use_case)}
    missing = sorted(expected.keys() - base_types.keys())
    unknown = sorted(base_types.keys() - expected.keys())
    problems = []
    if missing:
        renamed = f" (and the use case does not name its {', '.join(unknown)})" if unknown else ""
        problems.append(f"schema: the base dataset has no {', '.join(missing)}{renamed}")
    found = find_cast_failures(connection, f"({scan_parquet_sql([base])})", base_types, expected)
    problems += [
        f"schema: {failures.describe(name, 'the base dataset', quote=name not in unquoted)}"
        for name, failures in found.items()
    ]
    return problems


def _count(connection: Connection, anomalies: ArchiveAnomalies) -> TrainingSetCounts:
    archived = f"FILTER (WHERE source = {ARCHIVE})"
    counts = fetch_row(
        connection,
        f"SELECT count(*), count(outcome), count(*) {archived}, count(outcome) {archived} FROM chosen",
    )
    return TrainingSetCounts._make([*counts, *anomalies])


def _label_problems(
    connection: Connection, use_case: UseCase, counts: TrainingSetCounts, settings: TrainingDataSettings
) -> list[str]:
    """Return problems of times, labels and outcomes."""
    without_time, distinct_labels = fetch_row(
        connection, "SELECT count(*) FILTER (WHERE time IS NULL), count(DISTINCT outcome) FROM chosen"
    )
    problems = []
    if without_time:
        problems.append(f"schema: {without_time:,} rows have no {use_case.timestamp}")
    if counts.labelled < settings.min_labelled_rows:
        problems.append(
            f"labelled rows: {counts.labelled:,} of {counts.rows:,}, and {settings.min_labelled_rows:,} are needed "
            "(DRIFTLOOP_DATA__MIN_LABELLED_ROWS)"
        )
    if counts.labelled and distinct_labels < 2:
        problems.append(f"classes: {use_case.target} is the same in all {counts.labelled:,} labelled rows")
    problems += _unknown_label_problems(connection, use_case)
    max_unmatched = settings.max_unmatched_ratio * counts.outcomes
    if counts.outcomes >= settings.min_labelled_rows and counts.unmatched > max_unmatched:
        problems.append(
            f"outcomes: {counts.unmatched:,} of {counts.outcomes:,} have no prediction in the archive, and at most "
            f"{settings.max_unmatched_ratio:.0%} may have none (DRIFTLOOP_DATA__MAX_UNMATCHED_RATIO)"
        )
    return problems


def _unknown_label_problems(connection: Connection, use_case: UseCase) -> list[str]:
    """Return a problem if rows of the base dataset have a label that is not one of the use case's classes."""
    if use_case.classes is None:
        return []
    unknown = connection.execute(
        f"SELECT outcome, count(*) FROM chosen WHERE outcome IS NOT NULL AND NOT {is_class_sql(use_case, 'outcome')} "
        "GROUP BY outcome ORDER BY count(*) DESC, outcome"
    ).fetchall()
    if not unknown:
        return []
    classes = ", ".join(map(repr, use_case.classes))
    listed = ", ".join(f"{label!r} in {count:,} rows" for label, count in unknown[:MAX_LISTED_LABELS])
    return [
        f"classes: {use_case.target} is {listed}{', …' if len(unknown) > MAX_LISTED_LABELS else ''}, and the classes "
        f"of the use case are {classes}: correct the rows, or add the class to the use case"
    ]
