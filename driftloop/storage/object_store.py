"""The bucket, and its layout.

references/<model>/<version>/<run>/  reference rows, drift profile and gate evaluation of a version
slices/<topic>/                 archived slices, see driftloop.archive.layout
archive/<topic>/                the same, merged
reports/<model>/<version>/      evidently's reports, one per window
datasets/                       DVC's remote
mlflow/                         artifacts of the MLflow server
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import BinaryIO, NamedTuple, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.errors import StorageUnavailable
from driftloop.settings import StorageSettings

# gcsfs reads this variable when it is imported. With the feature on, it queries whether the bucket has a hierarchical
# namespace, which hangs with servers that merely emulate GCS. Nothing here needs such a namespace.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")


BLOCK_BYTES = 2**20  # that a request for a part of an object asks for, at least


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise :class:`StorageUnavailable` for errors that gcsfs retries; it has then retried for half a minute."""
    try:
        yield
    except Exception as error:
        from gcsfs.retry import is_retriable  # noqa: PLC0415  # see ObjectStore

        if is_retriable(error) or isinstance(error, TimeoutError):
            raise StorageUnavailable(f"the bucket does not answer: {type(error).__name__}: {error}") from error
        raise


class StoredObject(NamedTuple):
    """An object in a listing."""

    path: str
    size: int
    """In bytes."""
    modified: datetime
    """By the store's clock."""


class ObjectStore:
    """A GCS bucket. Paths are relative to the bucket; a written object appears whole or not at all.

    Every method that accesses the bucket raises :class:`StorageUnavailable` if the bucket does not answer.
    """

    def __init__(self, storage: StorageSettings) -> None:
        """Create the client, which connects on first use.

        If ``storage.endpoint`` is set, it connects to that server and without credentials.
        """
        import gcsfs  # noqa: PLC0415  # takes a second, and not every importer of this module opens a bucket

        self.name = storage.bucket
        self._files = (
            gcsfs.GCSFileSystem(token="anon", endpoint_url=storage.endpoint, use_listings_cache=False)  # noqa: S106  # no secret
            if storage.endpoint
            else gcsfs.GCSFileSystem(use_listings_cache=False)
        )

    @_translate_errors()
    def require_answer(self, seconds: float = 10) -> Self:
        """Return the bucket itself if it answers in time: commands need not wait for gcsfs's attempts, half a minute.

        Raises:
            StorageUnavailable: It does not.
        """
        self._files.exists(f"{self.name}/references", timeout=seconds)
        return self

    def url(self, path: str) -> str:
        """Return the gs:// URL of a path."""
        return f"gs://{self.name}/{path}"

    @_translate_errors()
    def exists(self, path: str) -> bool:
        """Tell whether there is an object at ``path``."""
        return bool(self._files.exists(f"{self.name}/{path}"))

    @_translate_errors()
    def write(self, path: str, content: bytes) -> None:
        """Write an object; an existing one is replaced."""
        self._files.pipe_file(f"{self.name}/{path}", content)

    @_translate_errors()
    def read(self, path: str) -> bytes:
        """Return the content of an object. Raise :class:`FileNotFoundError` if there is none."""
        return bytes(self._files.cat_file(f"{self.name}/{path}"))

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """Open an object for reading parts of it. Raise :class:`FileNotFoundError` if there is none."""
        with _translate_errors(), self._files.open(f"{self.name}/{path}", "rb", block_size=BLOCK_BYTES) as opened:
            yield opened

    @_translate_errors()
    def delete(self, path: str) -> None:
        """Delete an object if it exists: a retried request may find it deleted already."""
        with suppress(FileNotFoundError):
            self._files.rm_file(f"{self.name}/{path}")

    def write_parquet(self, path: str, rows: pd.DataFrame | pa.Table) -> None:
        """Write a table, or a frame without its index, as a Parquet file."""
        sink = pa.BufferOutputStream()
        pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pandas(rows, preserve_index=False), sink)
        self.write(path, sink.getvalue().to_pybytes())

    def read_parquet(self, path: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read the Parquet file at ``path``, or some of its columns, as a frame."""
        frame: pd.DataFrame = self.read_table(path, columns).to_pandas()
        return frame

    def read_table(
        self, path: str, columns: Sequence[str] | None = None, filters: Sequence[tuple[str, str, object]] | None = None
    ) -> pa.Table:
        """Read the Parquet file at ``path``, or some of its columns, or rows that match all filters, as a table."""
        return pq.read_table(pa.BufferReader(self.read(path)), columns=columns, filters=filters)

    @_translate_errors()
    def list_paths(self, path: str) -> list[str]:
        """List the paths that start with ``path``, sorted."""
        return sorted(file.removeprefix(f"{self.name}/") for file in self._files.glob(f"{self.name}/{path}*"))

    @_translate_errors()
    def list_objects(self, prefix: str) -> list[StoredObject]:
        """List the objects whose path starts with ``prefix``, sorted; after a slash at its end also those deeper."""
        url = f"{self.name}/{prefix}"
        infos = self._files.find(url, detail=True) if prefix.endswith("/") else self._files.glob(f"{url}*", detail=True)
        return sorted(
            StoredObject(path.removeprefix(f"{self.name}/"), int(info["size"]), info["mtime"])
            for path, info in infos.items()
        )

    @_translate_errors()
    def list_modified_before(self, path: str, at: datetime) -> list[str]:
        """List the paths below a folder modified before a time of the bucket's clock, sorted by name."""
        files = self._files.find(f"{self.name}/{path}", detail=True)
        return sorted(file.removeprefix(f"{self.name}/") for file, info in files.items() if info["mtime"] < at)
