"""The bucket, and what lies where in it.

references/<model>/<version>/   rows and drift profile of a version, and what its gate measured
events/<topic>/<window>.parquet archived slices
reports/<model>/<version>/      evidently's reports, by window
datasets/                       DVC's remote
mlflow/                         the MLflow server's artifacts
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.settings import Storage

# gcsfs reads it when it is imported. Asked for the bucket's kind of namespace, a server that only speaks GCS's protocol
# leaves it waiting, and nothing here needs another than the plain one.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")


class Away(Exception):
    """The bucket does not answer, though it was asked for half a minute."""


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        from gcsfs.retry import is_retriable  # noqa: PLC0415  # see Bucket

        if is_retriable(error) or isinstance(error, TimeoutError):
            raise Away(f"the bucket does not answer: {type(error).__name__}: {error}") from error
        raise


class Bucket:
    """A GCS bucket. Paths are relative to it; a written object appears whole or not at all.

    Whatever asks it raises :class:`Away` where it does not answer.
    """

    def __init__(self, storage: Storage) -> None:
        """Connects on the first use; with ``storage.endpoint``, to that server and without credentials."""
        import gcsfs  # noqa: PLC0415  # takes a second, and not all who import this have a bucket

        self.name = storage.bucket
        self._files = (
            gcsfs.GCSFileSystem(token="anon", endpoint_url=storage.endpoint, use_listings_cache=False)  # noqa: S106  # no secret
            if storage.endpoint
            else gcsfs.GCSFileSystem(use_listings_cache=False)
        )

    def url(self, path: str) -> str:
        """The path's gs:// address."""
        return f"gs://{self.name}/{path}"

    @_answering()
    def exists(self, path: str) -> bool:
        """Whether there is an object at ``path``."""
        return bool(self._files.exists(f"{self.name}/{path}"))

    @_answering()
    def write(self, path: str, content: bytes) -> None:
        """Writes an object, in place of the one that was there."""
        self._files.pipe_file(f"{self.name}/{path}", content)

    @_answering()
    def read(self, path: str) -> bytes:
        """An object's content. Raises :class:`FileNotFoundError` where there is none."""
        return bytes(self._files.cat_file(f"{self.name}/{path}"))

    @_answering()
    def delete(self, path: str) -> None:
        """Deletes an object, if it is there: a request whose answer got lost is asked again."""
        with suppress(FileNotFoundError):
            self._files.rm_file(f"{self.name}/{path}")

    def write_parquet(self, path: str, rows: pd.DataFrame | pa.Table) -> None:
        """Writes a table, or a frame without its index."""
        sink = pa.BufferOutputStream()
        pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pandas(rows, preserve_index=False), sink)
        self.write(path, sink.getvalue().to_pybytes())

    def read_parquet(self, path: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The frame at ``path``, or some of its columns."""
        frame: pd.DataFrame = pq.read_table(pa.BufferReader(self.read(path)), columns=columns).to_pandas()
        return frame

    @_answering()
    def names(self, path: str) -> list[str]:
        """The paths that begin with ``path``, in order."""
        return sorted(file.removeprefix(f"{self.name}/") for file in self._files.glob(f"{self.name}/{path}*"))

    @_answering()
    def written_since(self, path: str, at: datetime) -> list[str]:
        """The paths below a folder that were written since a time of the store's clock, in order of it."""
        found = self._files.find(f"{self.name}/{path}", detail=True)
        recent = sorted((info["mtime"], file) for file, info in found.items() if info["mtime"] >= at)
        return [file.removeprefix(f"{self.name}/") for _, file in recent]

    @_answering()
    def written_before(self, path: str, at: datetime) -> list[str]:
        """Those that were written before a time, by name."""
        found = self._files.find(f"{self.name}/{path}", detail=True)
        return sorted(file.removeprefix(f"{self.name}/") for file, info in found.items() if info["mtime"] < at)

    def read_folder(self, path: str) -> Iterator[pd.DataFrame]:
        """The frames of the Parquet files of a folder, in order of name; none where there is no such folder."""
        for file in self.names(f"{path}/"):
            yield self.read_parquet(file)
