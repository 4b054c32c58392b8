"""Files of the archive, downloaded: one for each slice of predictions or outcomes."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from driftloop.errors import DriftloopError
from driftloop.events import Window
from driftloop.settings import TopicsSettings
from driftloop.storage.object_store import ObjectStore

log = structlog.get_logger(__name__)

MAX_PARALLEL_DOWNLOADS = 8


class ArchiveUnreadable(DriftloopError):
    """A file of the archive cannot be read; the message names the file or the column."""


class ArchiveFiles(NamedTuple):
    """Downloaded slices that have rows, in the archive's order."""

    predictions: Sequence[Path] = ()
    outcomes: Sequence[Path] = ()


def download_archive(store: ObjectStore, topics: TopicsSettings, folder: Path) -> ArchiveFiles:
    """Download predictions and outcomes into a folder; see :func:`download_slices` for what it raises."""
    # Outcomes first: rows that are archived between the two downloads then are no outcomes without a prediction.
    outcomes = download_slices(store, topics.outcomes, folder / topics.outcomes)
    return ArchiveFiles(download_slices(store, topics.predictions, folder / topics.predictions), outcomes)


def download_slices(store: ObjectStore, topic: str, folder: Path) -> list[Path]:
    """Download a topic's slices into a folder; return the files that have rows, in the archive's order.

    Files of an earlier call are not downloaded again, since a slice never changes. Files of slices that the bucket no
    longer has are deleted.

    Raises:
        ArchiveUnreadable: if a slice is not a Parquet file.
        StorageUnavailable: if the bucket does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = {PurePosixPath(path).name: path for path in store.list_paths(f"events/{topic}/") if _is_slice(path)}
    for stale in {file.name for file in folder.iterdir()} - names.keys():
        (folder / stale).unlink(missing_ok=True)

    def fetch(name: str) -> None:
        try:
            content = store.read(names[name])
        except FileNotFoundError:  # an orphan that was deleted since it was listed; committed slices have its rows
            log.warning("archive.slice_disappeared", window=PurePosixPath(name).stem)
            return
        unfinished = folder / f"{name}.unfinished"
        unfinished.write_bytes(content)
        unfinished.replace(folder / name)

    with ThreadPoolExecutor(MAX_PARALLEL_DOWNLOADS) as pool:
        for _ in pool.map(fetch, [name for name in names if not (folder / name).exists()]):
            pass
    return [
        folder / name for name in names if (folder / name).exists() and _has_rows(folder / name, store.url(names[name]))
    ]


def _is_slice(path: str) -> bool:
    try:
        Window.parse(path)
    except ValueError:
        log.warning("archive.file_ignored", file=path, reason="its name is not that of a slice")
        return False
    return True


def _has_rows(file: Path, url: str) -> bool:
    try:
        return bool(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError) as error:
        file.unlink()
        raise ArchiveUnreadable(f"{url} is not a readable Parquet file; restore or delete it: {error}") from error
