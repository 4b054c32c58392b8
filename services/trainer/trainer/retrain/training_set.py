"""What a retrain learns from: a base dataset and what the archive has, as a new dataset version, checked before.

The rows never meet in memory: DuckDB reads files and writes one. Its bytes depend on the base dataset, the archive and
the event alone: the same rows are the same version.
"""

# ruff: noqa: S608  # see driftloop.storage.duckdb_sql

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import duckdb
import pandas as pd

from driftloop.events import DataSelection
from driftloop.settings import Storage, Topics
from driftloop.storage import dvc, labelled_archive
from driftloop.storage.bucket import Bucket
from driftloop.storage.duckdb_sql import (
    NUMBERS,
    TIME,
    Connection,
    cast,
    columns,
    connected,
    copy,
    last,
    one,
    quoted,
    scan,
    struct,
    text,
    unfit,
)
from driftloop.storage.dvc import Lost
from driftloop.storage.labelled_archive import Broken, Oddities, Selection, condition, midnight
from driftloop.usecase import UseCase
from trainer.settings import Data

ORDER = ("time", "source", "n")
BASE, ARCHIVE = 0, 1  # sources
DAY = timedelta(days=1)


class UnfitData(ValueError):
    """The rows cannot be trained on; says which checks failed and by how much."""


class Counts(NamedTuple):
    """What a training set is made of."""

    rows: int
    labelled: int
    archived: int
    """Rows that come from the archive."""
    archived_labelled: int
    outcomes: int
    """Rows in the archive whose outcome was reported, and of them:"""
    unmatched: int
    corrected: int
    repeated: int
    """Archived rows that are there once more."""

    def __str__(self) -> str:
        """In words."""
        found = f"{self.labelled:,} labelled rows of {self.rows:,}, of which the archive has {self.archived_labelled:,}"
        odd = {
            "outcomes have no archived prediction": self.unmatched,
            "outcomes were reported more than once": self.corrected,
            "rows were archived twice": self.repeated,
        }
        return "; ".join([found, *(f"{count:,} {what}" for what, count in odd.items() if count)])


class TrainingSet(NamedTuple):
    """What a version may learn from: rows in order of time, their outcome missing where not known."""

    path: Path
    counts: Counts

    @property
    def artifact(self) -> str:
        """Where the run of what is trained on it keeps the pointer."""
        return dvc.artifact(self.path)


def build(
    storage: Storage,
    bucket: Bucket,
    topics: Topics,
    use_case: UseCase,
    data: DataSelection,
    settings: Data,
    folder: Path,
) -> TrainingSet:
    """Fetches the base dataset, adds the archive's rows, writes what the event selects, and checks it.

    Rows whose outcome is not known belong to it: windows will be compared with all that was asked. Raises
    :class:`UnfitData` with all that is wrong, and :class:`Away`. ``folder`` is the caller's to delete.
    """
    path = folder / f"{use_case.name}.parquet"
    base = _base(storage, use_case, folder / "base")
    with connected(folder, settings.memory_mb) as connection, _readable(settings):
        found = columns(connection, scan([base]))
        kinds = _kinds(use_case, found)
        problems = _misfits(connection, use_case, base, found, kinds)
        days = _times(use_case, data)
        connection.execute(f"CREATE VIEW base AS {_typed(use_case, base, found, kinds, BASE)}")
        rows = f"SELECT * FROM base WHERE {condition(days)}"
        oddities = Oddities(0, 0, 0, 0)
        if data.archive:
            archive = folder / "archive" / "rows.parquet"
            archive.parent.mkdir(exist_ok=True)
            oddities, more = _archive(bucket, topics, use_case, replace(days, until=None), kinds, settings, archive)
            problems += more
            rows += f" UNION ALL {_typed(use_case, archive, columns(connection, scan([archive])), kinds, ARCHIVE)}"
        if data.last_rows is not None:
            rows = last(rows, ORDER, data.last_rows)
        connection.execute(f"CREATE VIEW chosen AS {rows}")
        names = f"time AS {quoted(use_case.time)}, features.*, outcome AS {quoted(use_case.outcome)}"
        copy(connection, f"SELECT {names} FROM chosen ORDER BY {', '.join(ORDER)}", path)
        counts = _counts(connection, oddities)
        problems += _lacks(connection, use_case, counts, settings)
        problems += _gaps(connection, [name for name in use_case.features if name in found], counts, settings)
    if problems:
        raise UnfitData("; ".join(problems))
    return TrainingSet(path, counts)


def read(path: Path) -> pd.DataFrame:
    """A training set's rows."""
    return pd.read_parquet(path)


def split(use_case: UseCase, rows: pd.DataFrame, held_out_days: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to learn from, and the labelled rows of the latest ``held_out_days`` days to be judged on.

    Rows that came after the last outcome belong to neither. Raises :class:`UnfitData` where nothing would be left.
    """
    days = use_case.days(rows[use_case.time])
    labelled = rows[use_case.outcome].notna()
    with_outcomes = sorted(days[labelled].unique())
    if len(with_outcomes) <= held_out_days:
        raise UnfitData(
            f"{len(with_outcomes)} days have outcomes, and {held_out_days} of them are to be held out: at least "
            f"{held_out_days + 1 - len(with_outcomes)} more days are needed (DRIFTLOOP_GATE__HELD_OUT_DAYS)"
        )
    if held_out_days == 0:
        return rows[days <= with_outcomes[-1]], rows[:0]
    first = with_outcomes[-held_out_days]
    return rows[days < first], rows[(days >= first) & labelled]


def check(use_case: UseCase, rows: pd.DataFrame) -> None:
    """Raises :class:`UnfitData` where the rows have one outcome only: neither training nor a figure comes of them."""
    outcomes = rows[use_case.outcome].dropna()
    if outcomes.nunique() < 2:
        raise UnfitData(
            f"{use_case.outcome} has {outcomes.nunique()} different values in {len(outcomes)} labelled rows; "
            "two are needed"
        )


def check_unseen(use_case: UseCase, held_out: pd.DataFrame, learned_until: pd.Timestamp) -> None:
    """Raises :class:`UnfitData` where the champion has learned from rows of the time that both are to be judged on."""
    seen = int((held_out[use_case.time] <= learned_until).sum())
    if seen:
        raise UnfitData(
            f"the champion has learned from rows up to {learned_until:%Y-%m-%d %H:%M}, and {seen} of {len(held_out)} "
            "held-out rows are not later: outcomes of later days are needed, or fewer held-out days "
            "(DRIFTLOOP_GATE__HELD_OUT_DAYS)"
        )


def _base(storage: Storage, use_case: UseCase, folder: Path) -> Path:
    try:
        return dvc.pull(storage, use_case.pointer.read_text(), folder)
    except (Lost, FileNotFoundError) as error:
        raise UnfitData(f"base dataset: {error}") from error


@contextmanager
def _readable(settings: Data) -> Iterator[None]:
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise UnfitData(f"more than {settings.memory_mb} MB are needed (DRIFTLOOP_DATA__MEMORY_MB): {error}") from error
    except duckdb.Error as error:
        raise UnfitData(f"base dataset: it cannot be read: {error}") from error


def _kinds(use_case: UseCase, found: Mapping[str, str]) -> dict[str, str]:
    """The types of features: the base dataset's, where a number's is one of numbers."""
    kinds = {name: found.get(name, "VARCHAR") for name in use_case.features}
    return kinds | {name: "DOUBLE" for name in use_case.numbers if kinds[name] not in NUMBERS}


def _typed(use_case: UseCase, file: Path, found: Mapping[str, str], kinds: Mapping[str, str], source: int) -> str:
    """A file's rows: ``time``, ``outcome``, ``features``, and where each comes from."""
    return (
        f"SELECT {cast(use_case.time, found, TIME)} AS time, {cast(use_case.outcome, found, 'DOUBLE')} AS outcome, "
        f"{struct(found, kinds)} AS features, {source} AS source, __row AS n FROM ({scan([file])})"
    )


def _times(use_case: UseCase, data: DataSelection) -> Selection:
    """The days of an event."""
    return Selection(
        since=None if data.start is None else midnight(use_case, data.start),
        until=None if data.end is None else midnight(use_case, data.end),
        without=tuple((midnight(use_case, day), midnight(use_case, day + DAY)) for day in data.without_days),
    )


def _archive(
    bucket: Bucket,
    topics: Topics,
    use_case: UseCase,
    selection: Selection,
    kinds: Mapping[str, str],
    settings: Data,
    path: Path,
) -> tuple[Oddities, list[str]]:
    """Writes the archive's rows; returns what is odd about it, and what is wrong."""
    try:
        with labelled_archive.opened(
            bucket, topics, use_case, types=kinds, folder=settings.folder, memory_mb=settings.memory_mb
        ) as archive:
            archive.write(path, selection)
            wrong = [
                f"schema: {count:,} archived values of {name} are no {kinds[name]}"
                for name, count in archive.unfit().items()
            ]
            return archive.oddities(), wrong
    except Broken as error:
        raise UnfitData(str(error)) from error


def _misfits(
    connection: Connection, use_case: UseCase, base: Path, found: Mapping[str, str], kinds: Mapping[str, str]
) -> list[str]:
    """What of the base dataset's schema is not what the use case says."""
    wanted = {use_case.time: TIME, **kinds, use_case.outcome: "DOUBLE"}
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    problems = []
    if missing:
        problems.append(f"schema: the base dataset has no {', '.join(missing)}")
    if extra:
        problems.append(f"schema: the use case does not know {', '.join(extra)}, which the base dataset has")
    for name, count in unfit(connection, f"({scan([base])})", found, wanted).items():
        problems.append(f"schema: {count:,} values of {name} in the base dataset are no {wanted[name]}")
    return problems


def _counts(connection: Connection, oddities: Oddities) -> Counts:
    archived = f"FILTER (WHERE source = {ARCHIVE})"
    found = one(
        connection,
        f"SELECT count(*), count(outcome), count(*) {archived}, count(outcome) {archived} FROM chosen",
    )
    return Counts._make([*found, *oddities])


def _lacks(connection: Connection, use_case: UseCase, counts: Counts, settings: Data) -> list[str]:
    """What of times and outcomes cannot be learned from."""
    timeless, different, others = one(
        connection,
        "SELECT count(*) FILTER (WHERE time IS NULL), count(DISTINCT outcome), "
        "count(*) FILTER (WHERE outcome NOT IN (0, 1)) FROM chosen",
    )
    problems = []
    if timeless:
        problems.append(f"schema: {timeless:,} rows have no {use_case.time}")
    if counts.labelled < settings.fewest_rows:
        problems.append(
            f"labelled rows: {counts.labelled:,} of {counts.rows:,}, and {settings.fewest_rows:,} are needed "
            "(DRIFTLOOP_DATA__FEWEST_ROWS)"
        )
    if counts.labelled and different < 2:
        problems.append(f"classes: {use_case.outcome} is the same in all {counts.labelled:,} labelled rows")
    if use_case.metric != "rmse" and others:
        problems.append(f"classes: {use_case.outcome} is neither 0 nor 1 in {others:,} rows")
    if counts.outcomes >= settings.fewest_rows and counts.unmatched > settings.unmatched_share * counts.outcomes:
        problems.append(
            f"outcomes: {counts.unmatched:,} of {counts.outcomes:,} have no prediction in the archive, and "
            f"{settings.unmatched_share:.0%} of them may (DRIFTLOOP_DATA__UNMATCHED_SHARE)"
        )
    return problems


def _gaps(connection: Connection, features: Sequence[str], counts: Counts, settings: Data) -> list[str]:
    """Which columns have too few values."""

    def filled(rows: str) -> list[int]:
        cells = ", ".join(f"count(features[{text(name)}])" for name in features)
        return list(one(connection, f"SELECT count(*), {cells} FROM {rows}"))

    def missing(filled: list[int]) -> dict[str, float]:
        rows, *values = filled
        return {name: 1 - count / rows if rows else 0.0 for name, count in zip(features, values, strict=True)}

    everywhere = missing(filled("chosen"))
    usual, lately = missing(filled("base")), missing(filled(f"chosen WHERE source = {ARCHIVE}"))
    problems = [
        f"missing values: {name} has no value in any of {counts.rows:,} rows"
        for name in features
        if everywhere[name] == 1
    ]
    if counts.archived >= settings.fewest_rows:
        problems += [
            f"missing values: {name} is missing in {lately[name]:.0%} of the archive's {counts.archived:,} rows and in "
            f"{usual[name]:.0%} of the base dataset's, and {settings.missing_share:.0%} more may be "
            "(DRIFTLOOP_DATA__MISSING_SHARE)"
            for name in features
            if lately[name] - usual[name] > settings.missing_share
        ]
    return problems
