"""Read the files of a topic that a listing names, while other processes merge and delete them."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

import structlog

from driftloop.archive.layout import ArchivedFile, files_since, list_files
from driftloop.errors import ArchiveUnreadable
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.parallel_reads import map_reads

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 5

T = TypeVar("T")


class ListedReads(NamedTuple, Generic[T]):
    """What was read, each row once."""

    listed: Sequence[ArchivedFile]
    """All files of the topic since the time, in order of partitions and offsets."""
    results: Sequence[T]
    """What was read of each of the chosen ones, in the same order."""


def read_listed(
    store: ObjectStore,
    topic: str,
    since: datetime | None,
    read: Callable[[ArchivedFile], T],
    choose: Callable[[Sequence[ArchivedFile]], Sequence[ArchivedFile]] = lambda files: files,
) -> ListedReads[T]:
    """Read files of a topic in several threads; list them again if one was merged or deleted meanwhile.

    Args:
        store: Where the archive is.
        topic: The topic.
        since: Only files that may have rows of this time or later; ``None`` for all.
        read: Reads a file, and raises :class:`FileNotFoundError` if it is gone.
        choose: Returns those files that are read; all by default.

    Raises:
        ArchiveUnreadable: A file is damaged, or files disappear all the time.
        StorageUnavailable: The store does not answer.
    """
    found: dict[str, T] = {}

    def read_if_there(file: ArchivedFile) -> None:
        try:
            found[file.path] = read(file)
        except FileNotFoundError:  # merged, or deleted as an orphan
            log.info("archive.file_disappeared", file=file.path)

    for _ in range(MAX_ATTEMPTS):
        listed = files_since(list_files(store, topic), since)
        chosen = choose(listed)
        map_reads(read_if_there, [file for file in chosen if file.path not in found])
        if all(file.path in found for file in chosen):
            return ListedReads(listed, [found[file.path] for file in chosen])
    raise ArchiveUnreadable(f"files of {topic} were deleted while they were read, {MAX_ATTEMPTS} times: try again")
