"""Find copies of archived rows outside of the archive: in dataset versions, in references and in reports."""

# ruff: noqa: S608  # all names are quoted

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from driftloop.archive.erasures import (
    DatasetWithErasedRows,
    ErasedPartition,
    ReferenceWithErasedRows,
)
from driftloop.errors import Rejected
from driftloop.events import RESERVED_COLUMNS, TIME_COLUMN, FrozenModel, Window
from driftloop.registry.model_registry import ModelRegistry
from driftloop.settings import RegistrySettings
from driftloop.storage.duckdb_sql import connect, quote_identifier
from driftloop.storage.dvc import REMOTE_PREFIX
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.parquet_files import PARQUET_MAGIC, name_unreadable

MEMORY_MB = 512
DATASETS = f"{REMOTE_PREFIX}/files/md5/"
REMOVALS_KEY = b"driftloop.removals"
TIME = "__time"
POSITION = "__position"


def find_datasets(
    store: ObjectStore, erased: pa.Table, on_progress: Callable[[int, int], None]
) -> list[DatasetWithErasedRows]:
    """Return the dataset versions that have rows with the time and the features of erased ones.

    All files of DVC's remote are looked at, also those of models that were deleted. Of a file whose times are others,
    only the footer or the column of times is read.

    Args:
        store: Where the datasets are.
        erased: The erased rows, with the archive's columns.
        on_progress: Is called with the number of files.

    Raises:
        StorageUnavailable: The store does not answer.
    """
    objects = store.list_objects(DATASETS) if len(erased) else []
    found = []
    for number, each in enumerate(objects, 1):
        md5 = "".join(PurePosixPath(each.path).parts[-2:])
        if rows := _count_copies(store, each.path, erased):
            found.append(DatasetWithErasedRows(md5=md5, rows=rows))
        on_progress(number, len(objects))
    return found


def _count_copies(store: ObjectStore, path: str, erased: pa.Table) -> int:
    """Return how many rows of a dataset are copies of erased ones; none of a file that is no dataset of driftloop.

    Raises:
        ArchiveUnreadable: It is damaged: nobody can tell which rows it has.
    """
    times = _nanoseconds(erased[TIME_COLUMN])
    try:
        with store.open(path) as opened, name_unreadable(store.url(path)):
            if opened.read(len(PARQUET_MAGIC)) != PARQUET_MAGIC:  # of another kind, such as a CSV file
                return 0
            parquet = pq.ParquetFile(opened)
            schema = parquet.schema_arrow
            name = next((column.name for column in schema if pa.types.is_timestamp(column.type)), None)
            if name is None:
                return 0
            features = _shared_features(erased, schema.names)
            parts = []
            for group in range(parquet.num_row_groups):
                own = _nanoseconds(parquet.read_row_group(group, columns=[name])[name])
                if (is_same := np.isin(own, times)).any():
                    rows = parquet.read_row_group(group, columns=features).filter(pa.array(is_same))
                    parts.append(rows.append_column(TIME, pa.array(own[is_same])))
    except FileNotFoundError:
        return 0
    if not parts:
        return 0
    timed = erased.select(features).append_column(TIME, pa.array(times))
    return len(_matching(pa.concat_tables(parts), timed, [*features, TIME], once=False))


def trained_versions(settings: RegistrySettings, models: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """Return model and version by the checksum of the dataset that the version was trained on.

    Raises:
        RegistryUnavailable: MLflow does not answer.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for model in models:
        registry = ModelRegistry(settings.model_copy(update={"model": model}))
        for version, md5 in registry.dataset_checksums().items():
            found.setdefault(md5, []).append((model, version))
    return found


def find_references(
    store: ObjectStore, erased: pa.Table, versions: Collection[tuple[str, str]]
) -> list[ReferenceWithErasedRows]:
    """Return the references of versions, with those of their rows that have the features of erased ones.

    Rows of a reference have no id and no time. So of rows with equal features as many are taken as were erased.

    Args:
        store: Where the references are.
        erased: The erased rows.
        versions: The model versions that were trained on datasets with erased rows.

    Raises:
        StorageUnavailable: The store does not answer.
    """
    found = []
    for model, version in versions:
        for path in store.list_paths(f"references/{model}/{version}/"):
            if not path.endswith("/rows.parquet"):
                continue
            rows = store.read_table(path)
            features = _shared_features(erased, rows.column_names)
            positions: Sequence[int] = []
            if features:
                positions = _matching(rows.select(features), erased.select(features), features, once=True)
            found.append(ReferenceWithErasedRows(path=path, rows_before=len(rows), positions=list(positions)))
    return found


class Removal(FrozenModel):
    """What an erasure has removed from a reference; the reference's metadata have these, in their order."""

    erasure: str
    """The erasure's id."""
    rows_before: int
    """The number of the reference's rows before."""
    positions: list[int]
    """Ascending positions of the removed rows among these."""


_REMOVALS = TypeAdapter(list[Removal])


def erase_from_reference(store: ObjectStore, reference: ReferenceWithErasedRows, erasure: str) -> bool:
    """Delete an erasure's rows of a reference; return whether there were some.

    Raises:
        Rejected: The reference was replaced since they were found, so that nobody can tell which rows they are.
        StorageUnavailable: The store does not answer.
    """
    if not reference.positions:
        return False
    try:
        rows = store.read_table(reference.path)
    except FileNotFoundError:
        return False
    removals = _REMOVALS.validate_json((rows.schema.metadata or {}).get(REMOVALS_KEY, b"[]"))
    if any(each.erasure == erasure for each in removals):
        return False
    positions = _positions_after(removals, reference, len(rows))
    if positions is None:
        raise Rejected(f"{store.url(reference.path)} was replaced while rows were erased: delete it, and run it again")
    if not positions:
        return False
    keeps = np.ones(len(rows), bool)
    keeps[positions] = False
    removals.append(Removal(erasure=erasure, rows_before=len(rows), positions=positions))
    metadata = {**(rows.schema.metadata or {}), REMOVALS_KEY: _REMOVALS.dump_json(removals)}
    store.write_parquet(reference.path, rows.filter(pa.array(keeps)).replace_schema_metadata(metadata))
    return True


def _positions_after(removals: Iterable[Removal], reference: ReferenceWithErasedRows, rows: int) -> list[int] | None:
    """Return where rows that were found are after other erasures; ``None`` if these do not explain the number of rows.

    Args:
        removals: What other erasures have removed, also before these rows were found.
        reference: Where the rows were.
        rows: The number of rows that the reference has now.
    """
    positions, expected = reference.positions, reference.rows_before
    for each in removals:
        if each.rows_before <= reference.rows_before:
            gone = set(each.positions)
            positions = [at - bisect_left(each.positions, at) for at in positions if at not in gone]
            expected -= len(each.positions)
    return positions if expected == rows else None


def find_reports(store: ObjectStore, partitions: Collection[ErasedPartition]) -> list[str]:
    """Return the paths of the reports on windows in which something was erased."""
    found = []
    for path in store.list_paths("reports/"):
        try:
            window = Window.parse(path)
        except ValueError:
            continue
        if any(part.overlaps(window) for part in partitions):
            found.append(path)
    return found


def _shared_features(erased: pa.Table, names: Collection[str]) -> list[str]:
    return [name for name in erased.column_names if name in names and name not in RESERVED_COLUMNS]


def _nanoseconds(column: pa.ChunkedArray) -> np.ndarray:
    """Return times in nanoseconds since 1970; one without a zone is taken as UTC, a missing one is before 1970."""
    unit = pa.timestamp("ns", column.type.tz)
    return np.asarray(column.cast(unit, safe=False).cast(pa.int64()).fill_null(-1))


def _matching(rows: pa.Table, erased: pa.Table, columns: Sequence[str], *, once: bool) -> list[int]:
    """Return the positions of rows that are equal to an erased one in some columns, whatever their types.

    Args:
        rows: The rows.
        erased: The erased rows.
        columns: The columns, which both have.
        once: Whether of equal rows only as many are meant as were erased.
    """
    with TemporaryDirectory(prefix="driftloop-erase-") as scratch, connect(Path(scratch), MEMORY_MB) as connection:
        connection.register("given", rows.append_column(POSITION, pa.array(range(len(rows)), pa.int64())))
        connection.register("erased", erased)
        types = {name: kind for name, kind, *_ in connection.execute("DESCRIBE given").fetchall()}
        quoted = {name: quote_identifier(name) for name in columns}
        cast = ", ".join(f"TRY_CAST({name} AS {types[column]}) AS {name}" for column, name in quoted.items())
        names = ", ".join(quoted.values())
        own_number = f"row_number() OVER (PARTITION BY {names} ORDER BY {POSITION})" if once else "1"
        other_number = f"row_number() OVER (PARTITION BY {names})" if once else "1"
        equal = " AND ".join(f"g.{name} IS NOT DISTINCT FROM e.{name}" for name in (*quoted.values(), "__n"))
        found = connection.execute(
            f"SELECT {POSITION} FROM (SELECT *, {own_number} AS __n FROM given) g SEMI JOIN "
            f"(SELECT *, {other_number} AS __n FROM (SELECT {cast} FROM erased)) e ON {equal} ORDER BY {POSITION}"
        ).fetchall()
    return [position for (position,) in found]
