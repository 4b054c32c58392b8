"""The part of archived files that a query needs, fetched: by times, models and columns, as the files' footers tell.

A file's footer has the columns, and the least and greatest time and model of each row group. The rows of a merged file
are in the order of time, so that a time range is in some of its row groups. Of a file of which little is needed, only
that is fetched; else all of it with one request, which takes less time than many small ones.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.archive.layout import ArchivedFile, local_name
from driftloop.archive.listed_reads import read_listed
from driftloop.events import MODEL_COLUMN, TIME_COLUMN
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.parquet_files import name_unreadable

FOOTER_BYTES = 2**16  # of a file's end, which have the footer of all but the widest files
TRAILER_BYTES = 8  # after the footer: its length, and the format's name
SMALL_BYTES = 2**20  # a file that is fetched with one request
MAX_GAP_BYTES = 2**18  # that are fetched as well rather than with a request of their own
MAX_RATIO = 0.5  # of a file's bytes, above which all of it is fetched


class Part(NamedTuple):
    """What is needed of a topic's files."""

    since: datetime | None = None
    """Rows of this time or later, with a time zone."""
    until: datetime | None = None
    """Rows before this time."""
    model: str | None = None
    """Rows of this model."""
    columns: Collection[str] | None = None
    """Names of columns, in upper or lower case; all if it is ``None``. Those that a file does not have are left out."""


class FetchedPart(NamedTuple):
    """What was fetched of a topic's files. It can have more rows than are needed."""

    files: list[Path]
    """In the archive's order."""
    columns: list[str]
    """The columns of these files in the archive."""
    other_columns: list[str]
    """The columns of files whose rows are of other times or models."""


class _Fetched(NamedTuple):
    path: Path | None
    """``None`` if no row of the file is needed."""
    columns: list[str]


def fetch_part(store: ObjectStore, topic: str, folder: Path, part: Part) -> FetchedPart:
    """Fetch what is needed of a topic's archive into an empty folder.

    Args:
        store: Where the archive is.
        topic: The topic of the events.
        folder: Is made if it does not exist.
        part: What is needed.

    Raises:
        ArchiveUnreadable: if a file is not a Parquet file, or if files disappear all the time.
        StorageUnavailable: if the store does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = read_listed(store, topic, part.since, lambda file: _fetch(store, file, part, folder)).results
    columns = dict.fromkeys(name for each in chosen if each.path is not None for name in each.columns)
    others = dict.fromkeys(name for each in chosen if each.path is None for name in each.columns)
    return FetchedPart(
        [each.path for each in chosen if each.path is not None],
        list(columns),
        [name for name in others if name not in columns],
    )


def _fetch(store: ObjectStore, file: ArchivedFile, part: Part, folder: Path) -> _Fetched:
    is_late = part.until is not None and file.begin >= part.until
    # A row of a late file may have waited for the broker, but probably none has: its footer tells.
    tail = file.size if file.size <= SMALL_BYTES and not is_late else min(FOOTER_BYTES, file.size)
    content = store.read_ranges(file.path, [(file.size - tail, file.size)])[0] if tail else b""
    if (footer := int.from_bytes(content[-TRAILER_BYTES:-4], "little") + TRAILER_BYTES) > tail:
        (content,) = store.read_ranges(file.path, [(max(file.size - footer, 0), file.size)])
    with name_unreadable(store.url(file.path)):
        metadata = pq.read_metadata(pa.BufferReader(content))
        names = metadata.schema.to_arrow_schema().names
    groups = _matching_groups(metadata, part)
    if not groups:
        return _Fetched(None, names)
    path = folder / local_name(file)
    wanted = None if part.columns is None else {name.casefold() for name in part.columns}
    columns = [name for name in names if wanted is None or name.casefold() in wanted]
    ranges = _merge_ranges(_chunk_ranges(metadata, groups, columns))
    if len(content) < file.size and sum(end - start for start, end in ranges) <= MAX_RATIO * file.size:
        _write_groups(store, file, content, ranges, groups, columns, path)
    else:
        path.write_bytes(content if len(content) == file.size else store.read(file.path))
    return _Fetched(path, names)


def _matching_groups(metadata: Any, part: Part) -> list[int]:
    """Return the numbers of the row groups that may have rows of the times and the model."""
    groups = range(metadata.num_row_groups) if metadata.num_rows else range(0)
    positions = {metadata.schema.column(number).path: number for number in range(metadata.num_columns)}

    def may_match(group: int, name: str, least: Any, greatest: Any) -> bool:
        """Return whether a column may have a value from ``least`` to ``greatest``, each unbounded if ``None``."""
        if name not in positions:
            return True
        known = metadata.row_group(group).column(positions[name]).statistics
        if known is None or not known.has_min_max:
            return True
        return (least is None or known.max >= least) and (greatest is None or known.min <= greatest)

    return [
        group
        for group in groups
        if may_match(group, TIME_COLUMN, part.since, part.until)
        and may_match(group, MODEL_COLUMN, part.model, part.model)
    ]


def _chunk_ranges(metadata: Any, groups: Sequence[int], columns: Collection[str]) -> Iterator[tuple[int, int]]:
    """Yield where the chunks of columns lie in a file."""
    for group in groups:
        for number in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(number)
            if chunk.path_in_schema in columns:
                start = min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)))
                yield start, start + chunk.total_compressed_size


def _merge_ranges(ranges: Iterator[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start - merged[-1][1] <= MAX_GAP_BYTES:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _write_groups(
    store: ObjectStore,
    file: ArchivedFile,
    footer: bytes,
    ranges: Sequence[tuple[int, int]],
    groups: Sequence[int],
    columns: Sequence[str],
    path: Path,
) -> None:
    """Fetch ranges of a file, and write the row groups and columns in them to a file of their own.

    Args:
        store: Where the archive is.
        file: The archived file.
        footer: Its end.
        ranges: Where what is needed lies.
        groups: Numbers of the row groups.
        columns: Names of the columns.
        path: Where the new file is written.
    """
    sparse = path.with_suffix(".sparse")
    with sparse.open("wb") as opened:  # what is not written takes no room on disk
        for (start, _), content in zip(ranges, store.read_ranges(file.path, ranges), strict=True):
            opened.seek(start)
            opened.write(content)
        opened.seek(file.size - len(footer))
        opened.write(footer)
    with name_unreadable(store.url(file.path)), pq.ParquetFile(sparse) as source:
        schema = pa.schema([source.schema_arrow.field(name) for name in columns])
        with pq.ParquetWriter(path, schema) as target:
            for group in groups:
                target.write_table(source.read_row_group(group, columns=columns))
    sparse.unlink()
