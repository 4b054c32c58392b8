"""Merging in a process of its own."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftloop.archive.merged_file import merge, merge_in_process
from driftloop.errors import ArchiveUnreadable

NAMES = ["predictions-0-000000000000-000000000001.parquet", "predictions-0-000000000002-000000000002.parquet"]


def write_slices(folder: Path) -> None:
    for name, offsets in zip(NAMES, ([0, 1], [2]), strict=True):
        columns = {"_offset": offsets, "_row": [0] * len(offsets), "_time": [9 - offset for offset in offsets]}
        pq.write_table(pa.table(columns), folder / name)


def test_process_merges_as_this_one_does(tmp_path: Path) -> None:
    write_slices(tmp_path)
    merged = merge_in_process(tmp_path, NAMES)
    assert merged == merge(tmp_path, NAMES)
    assert pq.read_table(pa.BufferReader(merged))["_offset"].to_pylist() == [2, 1, 0]


def test_process_says_which_slice_it_cannot_read(tmp_path: Path) -> None:
    write_slices(tmp_path)
    (tmp_path / NAMES[1]).write_bytes(b"no Parquet file")
    with pytest.raises(ArchiveUnreadable, match=NAMES[1]):
        merge_in_process(tmp_path, NAMES)


def test_process_that_fails_says_how(tmp_path: Path) -> None:
    write_slices(tmp_path)
    (tmp_path / NAMES[1]).unlink()
    with pytest.raises(ChildProcessError, match=r"the process that merges 2 slices ended with 1: FileNotFoundError"):
        merge_in_process(tmp_path, NAMES)
