"""Where the archive's files lie, and which of them have to be read.

slices/<topic>/<window>.parquet              a slice, written when it closes
archive/<topic>/day=<date>/<window>.parquet  the rows of consecutive slices of one day, merged later

The window in a file's name tells the partition and the offsets between which the file has all rows. A merged file is
written before the slices within its offsets are deleted. So whoever lists the slices first and the merged files
afterwards finds every row, and has each row once if it leaves out what lies within the offsets of another merged file.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import accumulate
from os.path import commonprefix
from typing import NamedTuple

import structlog

from driftloop.errors import ArchiveUnreadable
from driftloop.events import Window
from driftloop.storage.object_store import ObjectStore, StoredObject
from driftloop.times import MAX_CLOCK_SKEW

log = structlog.get_logger(__name__)

SLICES = "slices"
MERGED = "archive"
DAY_PREFIX = "day="
MAX_FREEZE = timedelta(hours=1)
WRITTEN_AT_KEY = b"driftloop.written_at"
"""Of the metadata of a file from which rows were erased: when it was written first, in ISO 8601."""
MAX_KNOWN_TIMES = 10_000  # of files from which rows were erased, or that lie within another one


class ArchivedFile(NamedTuple):
    """A file of the archive."""

    path: str
    window: Window
    """The offsets between which it has all rows."""
    size: int
    """In bytes."""
    modified: datetime
    """When it was written, by the store's clock; where it matters, before rows were erased from it."""
    day: date | None = None
    """The day of a merged file; ``None`` of a slice."""

    @property
    def is_merged(self) -> bool:
        """Whether it has several slices, in the order of time and not of offsets."""
        return self.day is not None

    @property
    def begin(self) -> datetime:
        """A time at which none of its rows had been in an older file: when a slice was written, or its day began."""
        return self.modified if self.day is None else datetime.combine(self.day, time.min, tzinfo=UTC)


def total_size(files: Iterable[ArchivedFile]) -> int:
    """Return the bytes of some files."""
    return sum(file.size for file in files)


def slice_path(window: Window) -> str:
    """Return the path of a slice's file."""
    return f"{SLICES}/{window.topic}/{window.name}.parquet"


def merged_path(window: Window, day: date) -> str:
    """Return the path of the file that has the slices of a day between a window's offsets."""
    return f"{MERGED}/{window.topic}/{DAY_PREFIX}{day.isoformat()}/{window.name}.parquet"


def local_name(file: ArchivedFile) -> str:
    """Return the name that a copy of a file has in a folder with copies of all of its topic's files.

    Files of different days have one window if the topic was deleted and made again.
    """
    return file.path.replace("/", "_")


def list_slices(store: ObjectStore, topic: str, partition: int | None = None) -> list[ArchivedFile]:
    """List the slices of a topic, or of one of its partitions, that have files of their own, in order of offsets."""
    prefix = f"{SLICES}/{topic}/" + ("" if partition is None else f"{topic}-{partition}-")
    return _sorted(_parse(store.list_objects(prefix)))


def list_slices_between(store: ObjectStore, first: Window, last: Window) -> list[Window]:
    """List the slices with files of their own that begin between the first offset of ``first`` and the end of ``last``.

    The result can have a few more: it is one listing of the longest common prefix of the paths.
    """
    ends = (first, last.model_copy(update={"first_offset": last.last_offset}))
    # By characters, not by folders: paths sort as offsets do.
    common_prefix = commonprefix([slice_path(window) for window in ends])  # noqa: RUF071
    return [file.window for file in _sorted(_parse(store.list_objects(common_prefix)))]


def list_merged(store: ObjectStore, topic: str) -> list[ArchivedFile]:
    """List the merged files of a topic that have to be read, in order of partitions and offsets."""
    return without_covered(with_first_times(store, list_all_merged(store, topic), [])[0])


def list_all_merged(store: ObjectStore, topic: str) -> list[ArchivedFile]:
    """List the merged files of a topic, also those that lie within another one."""
    return _parse(store.list_objects(f"{MERGED}/{topic}/"))


def list_files(store: ObjectStore, topic: str) -> list[ArchivedFile]:
    """List the files of a topic that have to be read, in order of partitions and offsets."""
    slices = list_slices(store, topic)  # first: a slice that is merged meanwhile is found in either listing
    listed, slices = with_first_times(store, list_all_merged(store, topic), slices)
    merged = without_covered(listed)
    return _sorted([*merged, *(file for file in slices if not is_covered(file, merged))])


def files_since(files: Sequence[ArchivedFile], since: datetime | None) -> list[ArchivedFile]:
    """Return the files of a topic that may have rows of a time, which has a time zone, or later.

    A row gets to the archive after its own time, but the clocks of who makes it and of the broker differ. A merged file
    also has rows of later days than its own: a slice is of the day of its first message, and may be open for days. It
    has none that reached the topic after the first message of the file behind it.

    Args:
        files: All files of the topic, in order of partitions and offsets.
        since: The time; ``None`` for all files.
    """
    if since is None:
        return list(files)
    at = since - MAX_CLOCK_SKEW
    kept = []
    behind: list[ArchivedFile] = []  # of the partition, with ascending beginnings from the last one to the first one
    for file in reversed(files):
        # What began earlier, and has later offsets, is of a topic that was deleted before this one was made.
        while behind and (behind[-1].window.partition != file.window.partition or behind[-1].begin < file.begin):
            behind.pop()
        last = behind[-1] if behind else None
        if _is_since(file, at) or (file.is_merged and (file.modified >= at if last is None else _is_since(last, at))):
            kept.append(file)
        behind.append(file)
    return kept[::-1]


def _is_since(file: ArchivedFile, at: datetime) -> bool:
    """Return whether a slice was written, or the day of a merged file ends, at a time or later."""
    return file.modified >= at if file.day is None else file.day >= at.astimezone(UTC).date()


def list_files_of(store: ObjectStore, window: Window) -> list[ArchivedFile]:
    """List the slices within a window and the merged files with a part of it, in order of their offsets."""
    slices = [file for file in list_slices(store, window.topic, window.partition) if is_within(file.window, window)]
    listed = [file for file in list_all_merged(store, window.topic) if overlaps(file.window, window)]
    listed, slices = with_first_times(store, listed, slices)
    merged = without_covered(listed)
    return _sorted([*merged, *(file for file in slices if not is_covered(file, merged))])


def without_covered(merged: Iterable[ArchivedFile]) -> list[ArchivedFile]:
    """Return merged files without those that lie within another one, as two owners of a partition may leave behind."""
    kept: list[ArchivedFile] = []
    for file in sorted(merged, key=lambda each: (each.window.first_offset, -each.window.last_offset)):
        if not is_covered(file, kept):
            kept.append(file)
    return _sorted(kept)


def with_first_times(
    store: ObjectStore, merged: Sequence[ArchivedFile], slices: Sequence[ArchivedFile]
) -> tuple[list[ArchivedFile], list[ArchivedFile]]:
    """Return merged files and slices with the time at which each was written before rows were erased from it.

    :func:`is_covered` needs it of files that lie within another one, and of those. There is hardly ever one, so hardly
    any file's metadata are read, and those once.

    Args:
        store: Where the archive is.
        merged: Merged files.
        slices: Slices, listed before.
    """
    inner = _within_others(merged, slices)
    if not inner:
        return list(merged), list(slices)
    related = {*inner, *(file for file in merged if any(is_within(each.window, file.window) for each in inner))}

    def with_first_time(file: ArchivedFile) -> ArchivedFile:
        return file._replace(modified=_first_time(store, file)) if file in related else file

    return list(map(with_first_time, merged)), list(map(with_first_time, slices))


def _within_others(merged: Sequence[ArchivedFile], slices: Sequence[ArchivedFile]) -> list[ArchivedFile]:
    """Return the files whose offsets lie within those of another, merged one."""
    inner = []
    for partition in {file.window.partition for file in merged}:
        outer = [file for file in merged if file.window.partition == partition]
        outer.sort(key=lambda file: (file.window.first_offset, -file.window.last_offset))
        firsts = [file.window.first_offset for file in outer]
        lasts = list(accumulate((file.window.last_offset for file in outer), max))
        inner += [file for file, last in zip(outer[1:], lasts, strict=False) if file.window.last_offset <= last]
        for file in slices:
            if file.window.partition == partition and (count := bisect_right(firsts, file.window.first_offset)):
                inner += [file] if file.window.last_offset <= lasts[count - 1] else []
    return inner


@lru_cache(MAX_KNOWN_TIMES)
def _first_time(store: ObjectStore, file: ArchivedFile) -> datetime:
    try:
        with store.open_parquet(file.path) as opened:
            text = (opened.schema_arrow.metadata or {}).get(WRITTEN_AT_KEY)
    except (FileNotFoundError, ArchiveUnreadable):  # deleted since it was listed, or damaged
        return file.modified
    return datetime.fromisoformat(text.decode()) if text else file.modified


def is_covered(file: ArchivedFile, merged: Iterable[ArchivedFile]) -> bool:
    """Return whether one of the merged files has all rows of a file.

    One that was written later is of another log: after a topic was deleted and made again, its offsets begin at 0. Only
    of two owners that merge the same slices one may be later, by as long as a worker can be frozen.
    """
    allowance = MAX_FREEZE if file.is_merged else timedelta()
    return any(is_within(file.window, each.window) and file.modified <= each.modified + allowance for each in merged)


def is_within(window: Window, outer: Window) -> bool:
    """Return whether a window lies within another one of its partition."""
    return (
        window.partition == outer.partition
        and outer.first_offset <= window.first_offset
        and window.last_offset <= outer.last_offset
    )


def overlaps(window: Window, other: Window) -> bool:
    """Return whether two windows have offsets of the same partition in common."""
    return (
        window.partition == other.partition
        and window.first_offset <= other.last_offset
        and other.first_offset <= window.last_offset
    )


def _parse(objects: Iterable[StoredObject]) -> list[ArchivedFile]:
    files = []
    for path, size, modified in objects:
        *_, folder, _ = f"/{path}".split("/")
        try:
            window = Window.parse(path)
            day = date.fromisoformat(folder.removeprefix(DAY_PREFIX)) if folder.startswith(DAY_PREFIX) else None
        except ValueError:
            log.warning("archive.file_ignored", file=path, reason="its name is not that of a window")
            continue
        files.append(ArchivedFile(path, window, size, modified, day))
    return files


def _sorted(files: Iterable[ArchivedFile]) -> list[ArchivedFile]:
    return sorted(files, key=lambda file: (file.window.partition, file.window.first_offset, file.window.last_offset))
