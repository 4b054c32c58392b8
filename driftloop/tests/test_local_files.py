"""Objects as files in a folder: whole or not at all, never outside of the folder, and no half of one in a listing."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from driftloop.errors import StorageUnavailable
from driftloop.settings import StorageSettings
from driftloop.storage.local_files import UNFINISHED_PREFIX, LocalFiles
from driftloop.storage.object_store import ObjectStore


def test_interrupted_write_leaves_the_old_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LocalFiles(tmp_path)
    files.pipe_file("events/x", b"old")

    def fail(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        files.pipe_file("events/x", b"new")
    assert files.cat_file("events/x") == b"old"
    assert [file.name for file in (tmp_path / "events").iterdir()] == ["x"]


@pytest.mark.integration
def test_killed_writer_leaves_nothing_that_is_listed(tmp_path: Path) -> None:
    """Kill a process when it has written an object's content and not yet given it its name."""
    code = f"""
import os, signal, pathlib
from driftloop.storage.local_files import LocalFiles
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
LocalFiles(pathlib.Path({str(tmp_path)!r})).pipe_file("events/x", b"new")
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode < 0
    (left,) = (tmp_path / "events").iterdir()
    assert left.name.startswith(UNFINISHED_PREFIX)
    files = LocalFiles(tmp_path)
    assert (files.find("events"), files.exists("events/x")) == ({}, False)


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "link/x", f"a/{UNFINISHED_PREFIX}x"])
def test_path_that_is_no_object_of_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "link").symlink_to(tmp_path)
    (tmp_path / "x").write_bytes(b"outside")
    files = LocalFiles(root)
    for access in (files.exists, files.cat_file, files.rm_file, lambda path: files.pipe_file(path, b"x")):
        with pytest.raises(ValueError, match="is not the path of an object"):
            access(path)
    assert (tmp_path / "x").read_bytes() == b"outside"


def test_folder_is_no_object(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    files.pipe_file("a/b", b"x")
    assert not files.exists("a")
    for path in ("a", "a/b/c"):
        with pytest.raises(FileNotFoundError):
            files.cat_file(path)


def test_missing_folder_is_an_unavailable_store_and_is_not_made(tmp_path: Path) -> None:
    store = ObjectStore(StorageSettings(url=f"file://{tmp_path}/missing"))
    accesses = (
        store.require_answer,
        lambda: store.write("x", b"x"),
        lambda: store.read("x"),
        lambda: store.list_objects(""),
    )
    for access in accesses:
        with pytest.raises(StorageUnavailable, match="missing does not exist: create it, or mount its disk"):
            access()
    assert list(tmp_path.iterdir()) == []


def test_spaces_of_a_folder_are_encoded_in_its_url(tmp_path: Path) -> None:
    folder = tmp_path / "a store"
    folder.mkdir()
    store = ObjectStore(StorageSettings(url=folder.as_uri()))
    store.write("x", b"x")
    assert (folder / "x").read_bytes() == b"x"
    assert store.url("x") == (folder / "x").as_uri()


def test_listing_without_one_of_the_folders_is_no_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LocalFiles(tmp_path)
    files.pipe_file("archive/a/x", b"")
    files.pipe_file("archive/b/y", b"")
    scan = os.scandir

    def fail_for_b(path: str) -> object:
        if str(path).endswith("/b"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return scan(path)

    monkeypatch.setattr(os, "scandir", fail_for_b)
    with pytest.raises(OSError, match="Stale"):
        files.find("archive")
    with pytest.raises(StorageUnavailable):
        ObjectStore(StorageSettings(url=tmp_path.as_uri())).list_objects("archive/")
    assert files.find("nowhere") == {}
