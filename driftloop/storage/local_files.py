"""Objects as files below a folder: the store of ``file://`` URLs."""

import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

UNFINISHED_PREFIX = ".unfinished-"
"""How the names of temporary files begin. They are no objects; a process that is killed while it writes leaves one."""


class FolderMissing(OSError):
    """The folder of the store does not exist: it was never made, or its disk is not mounted."""


class LocalFiles:
    """The methods of a file system of fsspec that :class:`ObjectStore` calls, on files below one folder.

    fsspec's own local file system opens the final file for writing, so that others can read half of an object. Paths
    are relative to the folder, with ``/`` between their parts. Every method raises:

        FolderMissing: The folder does not exist. It is not created, since it may be one on a disk that is not mounted.
        ValueError: A path leads out of the folder.
    """

    def __init__(self, root: Path) -> None:
        """Use a folder, which has to exist when a method is called."""
        self._root = root.resolve()

    def exists(self, path: str, timeout: float | None = None) -> bool:  # noqa: ARG002  # a disk answers or fails
        """Tell whether there is a file at ``path``."""
        return self._locate(path).is_file()

    def cat_file(self, path: str) -> bytes:
        """Return the content of a file. Raise :class:`FileNotFoundError` if there is none."""
        try:
            return self._locate(path).read_bytes()
        except (IsADirectoryError, NotADirectoryError) as error:
            raise FileNotFoundError(path) from error

    def cat_ranges(
        self,
        paths: Sequence[str],
        starts: Sequence[int],
        ends: Sequence[int],
        on_error: str,
    ) -> list[bytes]:
        """Return the bytes of each file from its start to its end. Raise :class:`FileNotFoundError` if one is missing.

        Args:
            paths: The files, one for each range.
            starts: Where the ranges begin.
            ends: Where they end, exclusive.
            on_error: For likeness with fsspec: ``raise``.
        """
        assert on_error == "raise"
        contents = []
        for path, start, end in zip(paths, starts, ends, strict=True):
            with self.open(path, "rb") as opened:
                opened.seek(start)
                contents.append(opened.read(end - start))
        return contents

    def open(self, path: str, mode: str, **_: object) -> BinaryIO:  # of fsspec's caches; a disk has its own
        """Open a file for reading. Raise :class:`FileNotFoundError` if there is none."""
        assert mode == "rb"
        try:
            return self._locate(path).open("rb")
        except (IsADirectoryError, NotADirectoryError) as error:
            raise FileNotFoundError(path) from error

    def pipe_file(self, path: str, value: bytes) -> None:
        """Write a file, which appears whole or not at all, also after a power failure; an existing one is replaced."""
        file = self._locate(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f"{UNFINISHED_PREFIX}{secrets.token_hex(8)}")
        try:
            with unfinished.open("xb") as content:
                content.write(value)
                content.flush()
                os.fsync(content.fileno())
            unfinished.replace(file)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # of the new name
        finally:
            os.close(folder)

    def rm_file(self, path: str) -> None:
        """Delete a file. Raise :class:`FileNotFoundError` if there is none."""
        self._locate(path).unlink()

    def find(self, path: str, prefix: str = "", *, detail: bool = True) -> dict[str, dict[str, Any]]:
        """Return the files below a folder whose paths in it begin with ``prefix``, with size and time of last change.

        Args:
            path: The folder, which need not exist.
            prefix: How the names begin.
            detail: For likeness with fsspec: there is no listing without them.
        """
        assert detail
        folder = self._locate(path)
        return dict(self._walk(folder, f"{folder}/{prefix}"))

    def _walk(self, folder: Path, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for parent, folders, names in os.walk(folder, onerror=_raise_unless_gone):
            folders[:] = [name for name in folders if _may_begin_with(f"{parent}/{name}/", prefix)]
            for name in names:
                file = f"{parent}/{name}"  # a Path for each of 100,000 files would take seconds
                if name.startswith(UNFINISHED_PREFIX) or not file.startswith(prefix):
                    continue
                try:
                    status = os.lstat(file)
                except FileNotFoundError:  # deleted meanwhile
                    continue
                if not stat.S_ISLNK(status.st_mode):
                    modified = datetime.fromtimestamp(status.st_mtime, UTC)
                    yield file.removeprefix(f"{self._root}/"), {"size": status.st_size, "mtime": modified}

    def _locate(self, path: str) -> Path:
        """Return the place of a path below the folder, after links are followed."""
        if not self._root.is_dir():
            raise FolderMissing(f"the folder {self._root} does not exist: create it, or mount its disk")
        parts = PurePosixPath(path).parts
        file = self._root.joinpath(*parts)
        if ".." in parts or file.name.startswith(UNFINISHED_PREFIX) or not file.resolve().is_relative_to(self._root):
            raise ValueError(f"{path!r} is not the path of an object below {self._root}")
        return file


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):  # a listing without a folder looks complete
        raise error


def _may_begin_with(folder: str, prefix: str) -> bool:
    """Tell whether paths in a folder can begin with a prefix."""
    return folder.startswith(prefix) or prefix.startswith(folder)
