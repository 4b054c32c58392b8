"""Local copies of the archive's files."""

import os
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest

from driftloop.archive.layout import merged_path
from driftloop.events import Window
from driftloop.settings import TopicsSettings
from driftloop.storage.archive_files import ArchiveDownload
from driftloop.storage.archive_parts import Part, fetch_part
from driftloop.storage.object_store import ObjectStore
from tests.support.folder_store import folder_store

TOPICS = TopicsSettings()


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """An archive of a topic that was deleted and made again: files of two days have the same offsets."""
    store = folder_store(tmp_path / "store")
    for day in (1, 2):
        window = Window(topic=TOPICS.predictions, partition=0, first_offset=0, last_offset=999)
        path = merged_path(window, date(2026, 11, day))
        store.write_parquet(path, pd.DataFrame({"_id": [f"{day}"]}))
        written_at = datetime(2026, 11, day + 1, tzinfo=UTC).timestamp()
        os.utime(tmp_path / "store" / path, (written_at, written_at))
    return store


def ids(files: list[Path]) -> list[str]:
    return [str(pd.read_parquet(file)["_id"].item()) for file in files]


def test_files_of_both_logs_are_downloaded_once(store: ObjectStore, tmp_path: Path) -> None:
    download = ArchiveDownload(store, TOPICS, tmp_path / "copies")
    files = list(download.fetch().predictions)
    assert ids(files) == ["1", "2"]
    times = [file.stat().st_mtime_ns for file in files]
    assert list(download.fetch().predictions) == files
    assert [file.stat().st_mtime_ns for file in files] == times


def test_parts_of_files_of_both_logs_are_fetched(store: ObjectStore, tmp_path: Path) -> None:
    assert ids(fetch_part(store, TOPICS.predictions, tmp_path / "copies", Part()).files) == ["1", "2"]
