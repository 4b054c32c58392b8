"""The archive of predictions and outcomes in the object store: where its files lie, and how they are read.

:func:`read` and :func:`scan` are for notebooks and programs outside of driftloop's services; they need the extra
``archive``.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from driftloop.settings import StorageSettings

MEMORY_MB = 512  # as much as a retrain's join has


def read(
    model: str | None = None,
    *,
    since: "datetime | None" = None,
    until: "datetime | None" = None,
    versions: Sequence[str] = (),
    columns: Sequence[str] | None = None,
    where: str | None = None,
    labelled_only: bool = False,
    storage: "StorageSettings | str | None" = None,
    predictions_topic: str | None = None,
    outcomes_topic: str | None = None,
    memory_mb: int = MEMORY_MB,
) -> Any:
    """Read predictions, joined with their outcomes, as a ``pyarrow.Table`` in the order of their times.

    Each row is there once, whatever the drift workers merge meanwhile, with the outcome that counts, or with nulls if
    none is known. The columns are described in docs/archive.md.

    Args:
        model: Only the predictions of this model.
        since: Only predictions of this time or later; it needs a time zone.
        until: Only predictions before this time.
        versions: Only the predictions of these versions; of all by default.
        columns: Names of the columns to read, in this order; all by default. Only what is needed of large files is
            fetched.
        where: A condition in DuckDB's SQL on any of the columns, such as ``"distance > 500 AND outcome = 1"``.
        labelled_only: Whether rows without a known outcome are left out.
        storage: URL or settings of the object store; by default those of the environment, as DRIFTLOOP_STORAGE__URL. A
            URL of the same kind of store keeps the environment's endpoint.
        predictions_topic: Name of the topic of predictions; by default DRIFTLOOP_TOPICS__PREDICTIONS.
        outcomes_topic: Name of the topic of outcomes; by default DRIFTLOOP_TOPICS__OUTCOMES.
        memory_mb: Megabytes of memory that the join may use before it spills to disk; the table comes on top of it.

    Raises:
        driftloop.errors.InvalidInput: An argument or a setting is not valid: the message says which, and what to give.
        driftloop.errors.StorageUnavailable: The object store does not answer.
        driftloop.errors.ArchiveUnreadable: A file of the archive cannot be read.
    """
    reader = scan(
        model,
        since=since,
        until=until,
        versions=versions,
        columns=columns,
        where=where,
        labelled_only=labelled_only,
        in_order=True,
        storage=storage,
        predictions_topic=predictions_topic,
        outcomes_topic=outcomes_topic,
        memory_mb=memory_mb,
    )
    return reader.read_all()


def scan(
    model: str | None = None,
    *,
    since: "datetime | None" = None,
    until: "datetime | None" = None,
    versions: Sequence[str] = (),
    columns: Sequence[str] | None = None,
    where: str | None = None,
    labelled_only: bool = False,
    in_order: bool = False,
    storage: "StorageSettings | str | None" = None,
    predictions_topic: str | None = None,
    outcomes_topic: str | None = None,
    memory_mb: int = MEMORY_MB,
) -> Any:
    """Return the rows of :func:`read` as a ``pyarrow.RecordBatchReader``, for more than what fits into memory.

    The files are fetched now, into a temporary folder, which is deleted when the last batch is read or when the reader
    is dropped. pandas, Polars and DuckDB take the reader, and so does a loop over its batches.

    Args:
        model: As for :func:`read`, like all that is not described here.
        since: Only predictions of this time or later.
        until: Only predictions before this time.
        versions: Only the predictions of these versions.
        columns: Names of the columns to read.
        where: A condition in DuckDB's SQL.
        labelled_only: Whether rows without a known outcome are left out.
        in_order: Whether rows are in the order of their times, for which all are sorted before the first is returned.
        storage: URL or settings of the object store.
        predictions_topic: Name of the topic of predictions.
        outcomes_topic: Name of the topic of outcomes.
        memory_mb: Megabytes of memory that the join may use.

    Raises:
        driftloop.errors.InvalidInput: As for :func:`read`. A condition can also fail in the middle of the rows.
        driftloop.errors.StorageUnavailable: The object store does not answer.
        driftloop.errors.ArchiveUnreadable: A file of the archive cannot be read.
    """
    # Inside: DuckDB and Arrow take half a second, and most who import this package need neither.
    from driftloop.archive.joined_rows import RowSelection, open_reader  # noqa: PLC0415
    from driftloop.archive.read_settings import load_read_settings  # noqa: PLC0415
    from driftloop.storage.object_store import ObjectStore  # noqa: PLC0415

    settings = load_read_settings(storage, predictions_topic, outcomes_topic)
    selection = RowSelection(model, since, until, versions, columns, where, labelled_only)
    store = ObjectStore(settings.storage)
    return open_reader(store, settings.topics, selection, in_order=in_order, memory_mb=memory_mb)
