"""The object store, which is a bucket, a container or a folder, and its layout.

references/<model>/<version>/<run>/  reference rows, drift profile and gate evaluation of a version
slices/<topic>/                 archived slices, see driftloop.archive.layout
archive/<topic>/                the same, merged
reports/<model>/<version>/      evidently's reports, one per window
erasures/                       what was erased, see driftloop.archive.erasures
datasets/                       DVC's remote
mlflow/                         artifacts of the MLflow server
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, BinaryIO, NamedTuple, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.errors import StorageUnavailable
from driftloop.settings import StorageSettings
from driftloop.storage import file_systems
from driftloop.storage.parquet_files import name_unreadable

BLOCK_BYTES = 2**20  # that a request for a part of an object asks for, at least


class StoredObject(NamedTuple):
    """An object in a listing."""

    path: str
    size: int
    """In bytes."""
    modified: datetime
    """By the store's clock."""


class ObjectStore:
    """An object store. Paths are relative to its URL; a written object appears whole or not at all.

    Every method that accesses the store raises :class:`StorageUnavailable` if it does not answer. A client has then
    tried for up to a minute.
    """

    def __init__(self, storage: StorageSettings, on_answer: Callable[[], None] = lambda: None) -> None:
        """Create the client, which connects on first use.

        Args:
            storage: The store; see :func:`file_systems.open_file_system` for the errors of its settings.
            on_answer: Is called after each call that has succeeded, in the thread that has made it.
        """
        self._url = storage.url
        self._on_answer = on_answer
        self._files, self._prefix, self._modified_key, self._is_retriable = file_systems.open_file_system(storage)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise :class:`StorageUnavailable` for errors after which the same call may succeed later."""
        try:
            yield
        except Exception as error:
            for cause in file_systems.causes(error):
                if isinstance(cause, TimeoutError) or self._is_retriable(cause):
                    raise StorageUnavailable(
                        f"the object store {self._url} does not answer: {type(cause).__name__}: {cause}"
                    ) from error
            raise
        self._on_answer()

    def require_answer(self, seconds: float = 10) -> Self:
        """Return the store itself if it answers in time: commands need not wait until a client has given up.

        Raises:
            StorageUnavailable: It does not.
        """
        with self._translate_errors():
            self._files.exists(f"{self._prefix}references", timeout=seconds)
        return self

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return f"{self._url}/{path}"

    def exists(self, path: str) -> bool:
        """Tell whether there is an object at ``path``."""
        with self._translate_errors():
            return bool(self._files.exists(f"{self._prefix}{path}"))

    def write(self, path: str, content: bytes) -> None:
        """Write an object; an existing one is replaced."""
        with self._translate_errors():
            self._files.pipe_file(f"{self._prefix}{path}", content)

    def read(self, path: str) -> bytes:
        """Return the content of an object. Raise :class:`FileNotFoundError` if there is none."""
        with self._translate_errors():
            return bytes(self._files.cat_file(f"{self._prefix}{path}"))

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of an object from each start to its end, exclusive, at once where the store can.

        Raises :class:`FileNotFoundError` if there is no object.
        """
        starts, ends = [start for start, _ in ranges], [end for _, end in ranges]
        with self._translate_errors():
            found = self._files.cat_ranges([f"{self._prefix}{path}"] * len(ranges), starts, ends, on_error="raise")
        return [bytes(content) for content in found]

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """Open an object for reading parts of it. Raise :class:`FileNotFoundError` if there is none."""
        with (
            self._translate_errors(),
            # Not the default of gcsfs, which prefetches in tasks of its own: parts are read in no order.
            self._files.open(f"{self._prefix}{path}", "rb", block_size=BLOCK_BYTES, cache_type="readahead") as opened,
        ):
            yield opened

    @contextmanager
    def open_parquet(self, path: str) -> Iterator[pq.ParquetFile]:
        """Open a Parquet file for reading parts of it. Errors as :meth:`read_table`."""
        with self.open(path) as opened, name_unreadable(self.url(path)):
            yield pq.ParquetFile(opened)

    def delete(self, path: str) -> None:
        """Delete an object if it exists: a retried request may find it deleted already."""
        with self._translate_errors(), suppress(FileNotFoundError):
            self._files.rm_file(f"{self._prefix}{path}")

    def write_parquet(self, path: str, rows: pd.DataFrame | pa.Table) -> None:
        """Write a table, or a frame without its index, as a Parquet file."""
        sink = pa.BufferOutputStream()
        pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pandas(rows, preserve_index=False), sink)
        self.write(path, sink.getvalue().to_pybytes())

    def read_parquet(
        self, path: str, columns: Sequence[str] | None = None, filters: Sequence[tuple[str, str, object]] | None = None
    ) -> pd.DataFrame:
        """Return what :meth:`read_table` does, as a frame."""
        frame: pd.DataFrame = self.read_table(path, columns, filters).to_pandas()
        return frame

    def read_table(
        self, path: str, columns: Sequence[str] | None = None, filters: Sequence[tuple[str, str, object]] | None = None
    ) -> pa.Table:
        """Read the Parquet file at ``path``, or some of its columns, or rows that match all filters, as a table.

        Raises:
            FileNotFoundError: There is no such file.
            ArchiveUnreadable: It is no Parquet file, or damaged.
            StorageUnavailable: The store does not answer.
        """
        content = self.read(path)
        with name_unreadable(self.url(path)):
            table: pa.Table = pq.read_table(pa.BufferReader(content), columns=columns, filters=filters)
            table.validate(full=True)  # Arrow reads texts that are no UTF-8, and pandas fails on them
        return table

    def list_paths(self, prefix: str) -> list[str]:
        """List the paths that start with ``prefix``, sorted."""
        return [found.path for found in self.list_objects(prefix)]

    def list_objects(self, prefix: str) -> list[StoredObject]:
        """List the objects whose path starts with ``prefix``, sorted, also those in folders below it."""
        folder, _, name = prefix.rpartition("/")
        with self._translate_errors():
            found: dict[str, dict[str, Any]] = self._files.find(f"{self._prefix}{folder}", prefix=name, detail=True)
        return sorted(
            StoredObject(path.removeprefix(self._prefix), int(info["size"]), info[self._modified_key])
            for path, info in found.items()
        )

    def list_modified_before(self, path: str, at: datetime) -> list[str]:
        """List the paths below a folder modified before a time of the store's clock, sorted by name.

        S3 and Azure have whole seconds.
        """
        return [found.path for found in self.list_objects(f"{path.rstrip('/')}/") if found.modified < at]
