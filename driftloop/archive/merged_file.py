"""Merge slices that lie in a folder into one file."""

# ruff: noqa: S608  # all names are quoted

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq

from driftloop.archive.file_metadata import SUMS_BY_END_KEY, SUMS_KEY
from driftloop.events import OFFSET_COLUMN, ROW_COLUMN, TIME_COLUMN, Window
from driftloop.storage.archive_files import translate_errors
from driftloop.storage.duckdb_sql import SCAN_COLUMNS, connect, quote_literal, union_parquet_sql

MEMORY_MB = 256
ROWS_PER_GROUP = 32_768  # a group is written from memory, and a lookup by id reads one
MERGED = "merged.parquet"


def merge(folder: Path, names: Sequence[str]) -> bytes:
    """Return the Parquet file with the rows of slices, in the order of their times.

    A row that is in two slices, one of which is an orphan, is in it once.

    Args:
        folder: Where the slices are; it is written to as well.
        names: The names of their files, in the order of their offsets.

    Raises:
        ArchiveUnreadable: A slice is no readable Parquet file.
    """
    files = [folder / name for name in names]
    windows = [Window.parse(name) for name in names]
    is_doubled = any(following.first_offset <= window.last_offset for window, following in pairwise(windows))
    with translate_errors(files):
        rows = f"SELECT * EXCLUDE ({', '.join(SCAN_COLUMNS)}) FROM ({union_parquet_sql(files)})"
        once = f" QUALIFY row_number() OVER (PARTITION BY {OFFSET_COLUMN}, {ROW_COLUMN}) = 1" if is_doubled else ""
        texts = ((pq.read_metadata(file).metadata or {}).get(SUMS_KEY, b"{}") for file in files)
        sums = {
            str(window.last_offset): found
            for window, text in zip(windows, texts, strict=True)
            if (found := json.loads(text))
        }
        metadata = f"{{{quote_literal(SUMS_BY_END_KEY.decode())}: {quote_literal(json.dumps(sums))}}}"
        with connect(folder, MEMORY_MB) as connection:
            connection.execute("SET threads = 1")  # the consumer loop needs the other processors
            connection.execute(
                f"COPY ({rows}{once} ORDER BY {TIME_COLUMN}, {OFFSET_COLUMN}, {ROW_COLUMN}) "
                f"TO {quote_literal(folder / MERGED)} (FORMAT parquet, COMPRESSION zstd, "
                f"ROW_GROUP_SIZE {ROWS_PER_GROUP}, KV_METADATA {metadata})"
            )
    return (folder / MERGED).read_bytes()
