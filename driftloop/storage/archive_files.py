"""Files of the archive, downloaded."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import duckdb
import pyarrow.parquet as pq
import structlog

from driftloop.archive.layout import ArchivedFile, files_since, list_files
from driftloop.errors import ArchiveUnreadable
from driftloop.settings import TopicsSettings
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.parquet_errors import name_unreadable

log = structlog.get_logger(__name__)

MAX_PARALLEL_DOWNLOADS = 8
MAX_ATTEMPTS = 5


@contextmanager
def translate_errors(files: Iterable[Path]) -> Iterator[None]:
    """Raise :class:`ArchiveUnreadable` for DuckDB's errors, with the name of the first damaged one of some files.

    DuckDB itself does not name a file whose footer can be read and whose rows cannot.
    """
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        for file in files:
            with name_unreadable(file.name):
                _read_all(file)
        raise ArchiveUnreadable(f"the archive cannot be read: {error}") from error


def _read_all(file: Path) -> None:
    with pq.ParquetFile(file) as opened:
        for group in range(opened.num_row_groups):
            opened.read_row_group(group)


class ArchiveFiles(NamedTuple):
    """Downloaded files that have rows, in the archive's order."""

    predictions: Sequence[Path] = ()
    outcomes: Sequence[Path] = ()


class ListedArchive(NamedTuple):
    """The archive's files that have to be read, in its order."""

    predictions: Sequence[ArchivedFile]
    outcomes: Sequence[ArchivedFile]


def list_archive(store: ObjectStore, topics: TopicsSettings) -> ListedArchive:
    """List the files of predictions and outcomes. Raises :class:`StorageUnavailable`."""
    outcomes = list_files(store, topics.outcomes)  # first: see download_archive
    return ListedArchive(list_files(store, topics.predictions), outcomes)


def download_archive(
    store: ObjectStore,
    topics: TopicsSettings,
    folder: Path,
    listed: ListedArchive,
    since: datetime | None = None,
) -> ArchiveFiles:
    """Download predictions and outcomes into a folder; see :func:`download_topic` for arguments and errors."""
    # Outcomes first: rows that are archived between the two downloads then are no outcomes without a prediction.
    outcomes = download_topic(store, topics.outcomes, folder / topics.outcomes, since, listed.outcomes)
    predictions = download_topic(store, topics.predictions, folder / topics.predictions, since, listed.predictions)
    return ArchiveFiles(predictions, outcomes)


def download_topic(
    store: ObjectStore,
    topic: str,
    folder: Path,
    since: datetime | None = None,
    listed: Sequence[ArchivedFile] | None = None,
) -> list[Path]:
    """Download a topic's archive into a folder; return the files that have rows, in the archive's order.

    Files of an earlier call are not downloaded again, unless rows were erased from them. Those that nobody has to read
    any more are deleted.

    Args:
        store: Where the archive is.
        topic: The topic of the events.
        folder: Is made if it does not exist.
        since: Only files that may have events that reached the topic since then; all by default.
        listed: What the topic had a moment ago; by default, and if one of the files has disappeared, it is listed.

    Raises:
        ArchiveUnreadable: if a file is not a Parquet file, or if files disappear all the time.
        StorageUnavailable: if the bucket does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in range(MAX_ATTEMPTS):
        listed = list_files(store, topic) if listed is None or attempt else listed
        wanted = {PurePosixPath(file.path).name: file for file in files_since(listed, since)}
        paths = {name: file.path for name, file in wanted.items()}
        missing = [file.path for name, file in wanted.items() if not _is_same(folder / name, file)]
        with ThreadPoolExecutor(MAX_PARALLEL_DOWNLOADS) as pool:
            is_complete = all(list(pool.map(lambda path: _download(store, path, folder), missing)))
        if is_complete:
            break
    else:
        raise ArchiveUnreadable(f"files of {topic} were deleted while they were read, {MAX_ATTEMPTS} times: try again")
    for stale in {file.name for file in folder.iterdir()} - {PurePosixPath(file.path).name for file in listed}:
        (folder / stale).unlink(missing_ok=True)
    return [folder / name for name, path in paths.items() if _has_rows(folder / name, store.url(path))]


def _is_same(local: Path, file: ArchivedFile) -> bool:
    """Return whether a file was downloaded as it is: a file without some of its rows has another size."""
    return local.exists() and local.stat().st_size == file.size


def _download(store: ObjectStore, path: str, folder: Path) -> bool:
    """Download a file; return whether it is still there: it may have been merged, or deleted as an orphan."""
    try:
        content = store.read(path)
    except FileNotFoundError:
        log.info("archive.file_disappeared", file=path)
        return False
    name = PurePosixPath(path).name
    unfinished = folder / f"{name}.unfinished"
    unfinished.write_bytes(content)
    unfinished.replace(folder / name)
    return True


def _has_rows(file: Path, url: str) -> bool:
    try:
        with name_unreadable(url):
            return bool(pq.read_metadata(file).num_rows)
    except ArchiveUnreadable:
        file.unlink()
        raise
