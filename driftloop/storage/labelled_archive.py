"""Archived predictions of a model beside what became of them: what later versions learn from and are judged by.

DuckDB joins them over the archive's Parquet files within a limit of memory; what does not fit goes to disk. The files
are fetched first: a year of flights, 674 files, took 0.5 s to fetch and 0.8 s to join, and 24 s where DuckDB itself
read them in the bucket.

A row of a prediction counts once, however often it was archived. Of its outcomes the one that was known last counts:
they may come late, twice, out of order, or as a correction. Those known at the same time count in the archive's order.
"""

# ruff: noqa: S608  # see driftloop.storage.duckdb_sql

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from zoneinfo import ZoneInfo

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from driftloop.events import Window
from driftloop.settings import Topics
from driftloop.storage.bucket import Bucket
from driftloop.storage.duckdb_sql import (
    PLACE,
    TIME,
    Connection,
    columns,
    connected,
    copy,
    frame,
    last,
    one,
    quoted,
    scan,
    struct,
    text,
    unfit,
)
from driftloop.usecase import UseCase

log = structlog.get_logger(__name__)

MEMORY_MB = 512  # three million rows of 15 features took five seconds with it, in a process of 740 MB
READERS = 8  # files at once
PLACED = ", ".join(PLACE)
ORDER = ("time", *PLACE)
ORDERED = ", ".join(ORDER)
NOTHING = f"SELECT '' AS id, 0 AS row, now()::{TIME} AS time, 0 AS __file, 0 AS __row"
NO_PREDICTIONS = f"{NOTHING}, '' AS model, '' AS version, 0.0 AS prediction LIMIT 0"
NO_OUTCOMES = f"{NOTHING}, 0.0 AS outcome LIMIT 0"


class Broken(Exception):
    """The archive cannot be read; says what of it."""


@dataclass(frozen=True)
class Selection:
    """Which of the archive's rows, by the time at which they were asked for: by default all."""

    since: datetime | None = None
    until: datetime | None = None
    """Not included."""
    without: tuple[tuple[datetime, datetime], ...] = ()
    """Spans that are left out, from a time up to another, which is not left out."""
    last_rows: int | None = None
    """Of these only what follows from the so-manieth last labelled row on."""
    versions: tuple[str, ...] = ()
    """Only what these versions answered; of all versions where none is named."""


ALL = Selection()


class Counts(NamedTuple):
    """How many rows a selection has."""

    rows: int
    """Whether their outcome is known or not."""
    labelled: int
    days: int
    """Days, as the use case counts them, with labelled rows."""


class Oddities(NamedTuple):
    """What of the whole archive is not one prediction with one outcome."""

    outcomes: int
    """Rows, of whatever model, whose outcome was reported."""
    unmatched: int
    """Those of them whose prediction is not in the archive, or not yet."""
    corrected: int
    """Those of them that were reported more than once."""
    repeated: int
    """Rows of this model that are there once more."""


@contextmanager
def opened(
    bucket: Bucket,
    topics: Topics,
    use_case: UseCase,
    *,
    types: Mapping[str, str] | None = None,
    folder: Path | None = None,
    memory_mb: int = MEMORY_MB,
) -> Iterator["Labelled"]:
    """The archive of the use case's model, as it is now. Whatever asks it may raise :class:`Broken`.

    ``types`` are those of DuckDB that features are to have; without one a number is a DOUBLE, and a category is what
    the archive has. In ``folder``, where one is given, fetched files stay for the next time.
    """
    with tempfile.TemporaryDirectory(prefix="driftloop-archive-") as scratch:
        files = folder or Path(scratch)
        # In this order: whatever is archived in between is no outcome without its prediction.
        outcomes = fetched(bucket, topics.outcomes, files / topics.outcomes)
        predictions = fetched(bucket, topics.predictions, files / topics.predictions)
        with connected(Path(scratch), memory_mb) as connection:
            yield Labelled(connection, use_case, types or {}, predictions, outcomes)


@contextmanager
def _readable() -> Iterator[None]:
    """What DuckDB cannot read in the files, it says of the file, and often of the column."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        raise Broken(f"the archive cannot be read: {error}") from error


class Labelled:
    """The archive of one model, open for questions."""

    @_readable()
    def __init__(
        self,
        connection: Connection,
        use_case: UseCase,
        types: Mapping[str, str],
        predictions: Sequence[Path],
        outcomes: Sequence[Path],
    ) -> None:
        """Joins two topics' slices, see :func:`opened`."""
        self._connection = connection
        self._use_case = use_case
        self._model = text(use_case.name)
        connection.execute(f"CREATE VIEW predictions AS {scan(predictions) if predictions else NO_PREDICTIONS}")
        connection.execute(f"CREATE VIEW outcomes AS {scan(outcomes) if outcomes else NO_OUTCOMES}")
        self._found = columns(connection, "predictions")
        self._types = {
            name: types.get(name) or ("DOUBLE" if name in use_case.numbers else self._found.get(name, "VARCHAR"))
            for name in use_case.features
        }
        self._join()

    @_readable()
    def counts(self, selection: Selection = ALL) -> Counts:
        """How many rows there are."""
        day = f"CAST(timezone({text(self._use_case.timezone)}, time::TIMESTAMPTZ) AS DATE)"
        labelled = "FILTER (WHERE outcome IS NOT NULL)"
        found = one(
            self._connection,
            f"SELECT count(*), count(outcome), count(DISTINCT {day}) {labelled} FROM ({_chosen(selection)})",
        )
        return Counts(*found)

    @_readable()
    def oddities(self) -> Oddities:
        """What of the archive is not one prediction with one outcome."""
        outcomes, corrected = one(self._connection, "SELECT count(*), count(*) FILTER (WHERE told > 1) FROM known")
        (unmatched,) = one(self._connection, "SELECT count(*) FROM known ANTI JOIN predictions USING (id, row)")
        (repeated,) = one(self._connection, "SELECT count(*) FROM again")
        return Oddities(outcomes, unmatched, corrected, repeated)

    @_readable()
    def unfit(self) -> dict[str, int]:
        """How many values of a feature do not fit its type, by feature. Rows have them as missing, or rounded."""
        return unfit(self._connection, f"predictions WHERE model = {self._model}", self._found, self._types)

    @_readable()
    def read(self, selection: Selection = ALL) -> pd.DataFrame:
        """The labelled rows in order of time, as a dataset has them, with ``id``, ``row``, ``version``, ``prediction``.

        A prediction is missing where it is not one number.
        """
        labelled = f"FROM ({_chosen(selection)}) WHERE outcome IS NOT NULL ORDER BY {ORDERED}"
        return frame(self._connection, f"SELECT {self._columns}, id, row, version, prediction {labelled}")

    @_readable()
    def write(self, path: Path, selection: Selection = ALL) -> None:
        """Writes rows in order of time as a Parquet file: time, features, and the outcome, missing where not known."""
        copy(self._connection, f"SELECT {self._columns} FROM ({_chosen(selection)}) ORDER BY {ORDERED}", path)

    @property
    def _columns(self) -> str:
        return f"time AS {quoted(self._use_case.time)}, features.*, outcome AS {quoted(self._use_case.outcome)}"

    def _join(self) -> None:
        """Makes the view ``archive``: the model's rows, each once, with their last outcome, ``known``."""
        # Only of keys: whole rows, three million of them, did not fit into a gigabyte.
        self._connection.execute(
            f"CREATE TEMP TABLE again AS SELECT {PLACED} FROM predictions WHERE model = {self._model} "
            f"QUALIFY row_number() OVER (PARTITION BY id, row ORDER BY {PLACED}) > 1"
        )
        latest = ", ".join(f"{column} DESC" for column in ORDER)
        self._connection.execute(
            "CREATE VIEW known AS SELECT id, row, outcome, count(*) OVER (PARTITION BY id, row) AS told FROM outcomes "
            f"QUALIFY row_number() OVER (PARTITION BY id, row ORDER BY {latest}) = 1"
        )
        self._connection.execute(
            "CREATE VIEW asked AS SELECT id, row, version, TRY_CAST(prediction AS DOUBLE) AS prediction, "
            f"time::{TIME} AS time, {struct(self._found, self._types)} AS features, {PLACED} "
            f"FROM predictions ANTI JOIN again USING ({PLACED}) WHERE model = {self._model}"
        )
        self._connection.execute(
            "CREATE VIEW archive AS "
            "SELECT asked.*, outcome::DOUBLE AS outcome FROM asked LEFT JOIN known USING (id, row)"
        )


def midnight(use_case: UseCase, day: date) -> datetime:
    """When a day of the use case begins."""
    return datetime.combine(day, time.min, tzinfo=ZoneInfo(use_case.timezone))


def fetched(bucket: Bucket, topic: str, folder: Path) -> list[Path]:
    """A topic's slices that have rows, in the archive's order, as files in a folder, where they stay.

    Those that are there already are not fetched again: a slice's name says what is in it. Raises :class:`Broken`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = {PurePosixPath(path).name: path for path in bucket.names(f"events/{topic}/") if _is_slice(path)}
    for gone in {file.name for file in folder.iterdir()} - names.keys():
        (folder / gone).unlink(missing_ok=True)

    def fetch(name: str) -> None:
        try:
            content = bucket.read(names[name])
        except FileNotFoundError:  # one that never became final was deleted since: its rows are in others
            log.warning("archived slice left out: it is gone", window=PurePosixPath(name).stem)
            return
        unfinished = folder / f"{name}.unfinished"
        unfinished.write_bytes(content)
        unfinished.replace(folder / name)

    with ThreadPoolExecutor(READERS) as readers:
        for _ in readers.map(fetch, [name for name in names if not (folder / name).exists()]):
            pass
    return [
        folder / name
        for name in names
        if (folder / name).exists() and _has_rows(folder / name, bucket.url(names[name]))
    ]


def _is_slice(path: str) -> bool:
    try:
        Window.named(path)
    except ValueError:
        log.warning("left out: no archived slice", file=path)
        return False
    return True


def _has_rows(file: Path, url: str) -> bool:
    try:
        return bool(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError) as error:
        file.unlink()
        raise Broken(f"{url} is no Parquet file; put it right, or delete it: {error}") from error


def condition(selection: Selection) -> str:
    """The selection's times and versions, as what a ``time`` and a ``version`` have to fulfil."""
    conditions = ["true"]
    if selection.since is not None:
        conditions.append(f"time >= {_at(selection.since)}")
    if selection.until is not None:
        conditions.append(f"time < {_at(selection.until)}")
    conditions += [f"NOT (time >= {_at(start)} AND time < {_at(end)})" for start, end in selection.without]
    if selection.versions:
        conditions.append(f"version IN ({', '.join(map(text, selection.versions))})")
    return " AND ".join(conditions)


def _chosen(selection: Selection) -> str:
    """The archive's rows of a selection."""
    rows = f"SELECT * FROM archive WHERE {condition(selection)}"
    return rows if selection.last_rows is None else last(rows, ORDER, selection.last_rows)


def _at(when: datetime) -> str:
    return f"{text(when.isoformat())}::{TIME}"
