"""Files of the archive, downloaded."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from driftloop.archive.layout import ArchivedFile, files_since, list_files, local_name
from driftloop.errors import ArchiveUnreadable
from driftloop.settings import TopicsSettings
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.parquet_files import is_damage, name_unreadable

log = structlog.get_logger(__name__)

MAX_PARALLEL_DOWNLOADS = 8
MAX_ATTEMPTS = 5
ERRORS_OF_QUERIES = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException)
"""Errors that no file is the cause of."""


@contextmanager
def translate_errors(files: Iterable[Path]) -> Iterator[None]:
    """Raise :class:`ArchiveUnreadable` for errors of DuckDB and of what it reads, with the name of a damaged file.

    DuckDB itself does not name a file whose footer can be read and whose rows cannot. The damaged file is deleted, so
    that it is downloaded again once it is restored.

    Args:
        files: Local copies of the files that are read.
    """
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        if not (isinstance(error, duckdb.Error) or is_damage(error)):
            raise
        if not isinstance(error, ERRORS_OF_QUERIES):
            require_readable(files)
        raise ArchiveUnreadable(f"the archive cannot be read: {error}") from error


def require_readable(files: Iterable[Path]) -> None:
    """Read local copies of files; delete the first damaged one, and raise :class:`ArchiveUnreadable`."""
    for file in files:
        try:
            with name_unreadable(file.name), pq.ParquetFile(file) as opened:
                for group in range(opened.num_row_groups):
                    opened.read_row_group(group).validate(full=True)
        except FileNotFoundError:
            continue
        except ArchiveUnreadable:
            file.unlink()
            raise


class ListedArchive(NamedTuple):
    """The archive's files that have to be read, in its order."""

    predictions: Sequence[ArchivedFile]
    outcomes: Sequence[ArchivedFile]


class ArchiveFiles(NamedTuple):
    """Downloaded files that have rows, in the archive's order."""

    predictions: Sequence[Path] = ()
    outcomes: Sequence[Path] = ()


class ArchiveDownload:
    """Downloads files of an archive into a folder. It is listed once, and again if one of its files has disappeared."""

    def __init__(self, store: ObjectStore, topics: TopicsSettings, folder: Path) -> None:
        """List the archive. Raises :class:`StorageUnavailable`."""
        self._store = store
        self._topics = topics
        self._folder = folder
        self.listed = self._list()

    def fetch(self, since: datetime | None = None) -> ArchiveFiles:
        """Download predictions and outcomes.

        Files of an earlier call are not downloaded again, unless rows were erased from them. Those that nobody has to
        read any more are deleted.

        Args:
            since: Only files that may have events that reached the topic since then; all by default.

        Raises:
            ArchiveUnreadable: A file is not a Parquet file, or files disappear all the time.
            StorageUnavailable: The store does not answer.
        """
        for attempt in range(MAX_ATTEMPTS):
            if attempt:
                self.listed = self._list()
            try:
                # Outcomes first, as in the listing.
                outcomes = self._fetch(self._topics.outcomes, self.listed.outcomes, since)
                return ArchiveFiles(self._fetch(self._topics.predictions, self.listed.predictions, since), outcomes)
            except FileNotFoundError as error:  # merged, or deleted as an orphan
                log.info("archive.file_disappeared", file=str(error))
        raise ArchiveUnreadable(f"files were deleted while they were read, {MAX_ATTEMPTS} times: try again")

    def _list(self) -> ListedArchive:
        # Outcomes first: rows that are archived between the two listings then are no outcomes without a prediction.
        outcomes = list_files(self._store, self._topics.outcomes)
        return ListedArchive(list_files(self._store, self._topics.predictions), outcomes)

    def _fetch(self, topic: str, listed: Sequence[ArchivedFile], since: datetime | None) -> list[Path]:
        folder = self._folder / topic
        folder.mkdir(parents=True, exist_ok=True)
        wanted = {local_name(file): file for file in files_since(listed, since)}
        missing = [file for name, file in wanted.items() if not _is_same(folder / name, file)]
        with ThreadPoolExecutor(MAX_PARALLEL_DOWNLOADS) as pool:
            list(pool.map(lambda file: _download(self._store, file, folder), missing))
        for stale in {file.name for file in folder.iterdir()} - set(map(local_name, listed)):
            (folder / stale).unlink(missing_ok=True)
        return [folder / name for name, file in wanted.items() if _has_rows(folder / name, self._store.url(file.path))]


def _is_same(local: Path, file: ArchivedFile) -> bool:
    """Return whether a file was downloaded as it is: a file without some of its rows has another size."""
    return local.exists() and local.stat().st_size == file.size


def _download(store: ObjectStore, file: ArchivedFile, folder: Path) -> None:
    """Download a file. Raises :class:`FileNotFoundError` with its path if it is gone."""
    try:
        content = store.read(file.path)
    except FileNotFoundError:
        raise FileNotFoundError(file.path) from None
    name = local_name(file)
    unfinished = folder / f"{name}.unfinished"
    unfinished.write_bytes(content)
    unfinished.replace(folder / name)


def _has_rows(file: Path, url: str) -> bool:
    try:
        with name_unreadable(url):
            return bool(pq.read_metadata(file).num_rows)
    except ArchiveUnreadable:
        file.unlink()
        raise
