"""The state of a scoring job on disk, from which an interrupted one goes on.

Beside the output there is a folder with the job and one file for each chunk of the input whose predictions are known.
A chunk's file is written before its events are published; the broker has the position up to which they are
(:mod:`driftloop.kafka.positioned_producer`). So a file may be ahead of the position, and is then written again, but
never behind it.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from driftloop.errors import InvalidInput, Rejected

CHUNK_ROWS = 50_000  # rows whose events are published in one transaction, which costs as much as a thousand rows
READ_ROWS = 10_000
READ_BUFFER_BYTES = 2**20
FOOTER_LENGTH_BYTES = 8  # at the end of a Parquet file: the length of its footer, and a mark


class ScoringJob(BaseModel):
    """What is scored. It does not change while a job goes on, even if another version gets into service."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    started_at: datetime
    input_digest: str
    model: str
    version: str
    key: str | None = None
    """Column with the rows' own keys."""
    is_announced: bool = False
    """Whether the broker has a position of the job."""


class ScoringRefused(Rejected):
    """The job cannot go on or begin; the message says what to do."""


class Chunk(NamedTuple):
    """Consecutive rows of the input."""

    start: int
    """The number of the first row, from 0."""
    rows: pa.Table

    @property
    def end(self) -> int:
        """The number of the row after the last one."""
        return self.start + len(self.rows)


class JobFolder:
    """The folder of a job beside its output. Use it in a ``with`` statement: it is locked inside the block."""

    def __init__(self, output: Path) -> None:
        """Name the output; nothing is created yet."""
        self._output = output
        self._folder = output.with_name(f"{output.name}.scoring")
        self._file = self._folder / "job.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder and keep every other process from it.

        Raises:
            ScoringRefused: Another process has the folder, or the output exists already.
        """
        if self._output.exists() and not self._folder.exists():
            raise ScoringRefused(f"{self._output} exists already: delete it, or name another file")
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ScoringRefused(f"another process writes {self._output} now: wait for its end") from None
            yield

    def read(self) -> ScoringJob | None:
        """Return the job that was interrupted, or ``None`` if there is none.

        Raises:
            ScoringRefused: It cannot be read.
        """
        try:
            return ScoringJob.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise ScoringRefused(f"{self._file} is of another release, or damaged: {self.how_to_restart}") from error

    @property
    def how_to_restart(self) -> str:
        """What to do to score all rows again, and what that means."""
        return f"delete {self._folder} to score all rows again, which publishes events for all of them again"

    def write(self, job: ScoringJob) -> None:
        """Store the job."""
        self._replace(self._file, job.model_dump_json().encode())

    def write_predictions(self, chunk: Chunk, predictions: pa.Table) -> None:
        """Store the predictions of a chunk; they are on disk when it returns."""
        buffer = pa.BufferOutputStream()
        pq.write_table(predictions, buffer)
        self._replace(self._path(chunk), buffer.getvalue().to_pybytes())

    def write_output(self, chunks: Iterator[Chunk], metadata: dict[str, str]) -> None:
        """Write the output from all rows of the input and the stored predictions, then delete the folder."""
        unfinished = self._folder / "output"
        writer = None
        try:
            for chunk in chunks:
                try:
                    predictions = pq.read_table(self._path(chunk))
                except FileNotFoundError:
                    raise ScoringRefused(f"{self._path(chunk)} is gone: {self.how_to_restart}") from None
                except (pa.ArrowException, OSError) as error:
                    raise ScoringRefused(f"{self._path(chunk)} is damaged ({error}): {self.how_to_restart}") from error
                rows = chunk.rows
                for field, column in zip(predictions.schema, predictions.columns, strict=True):
                    rows = rows.append_column(field, column)
                if writer is None:
                    schema = rows.schema.with_metadata({**(rows.schema.metadata or {}), **metadata})
                    writer = pq.ParquetWriter(unfinished, schema)
                writer.write_table(rows.cast(writer.schema))
        finally:
            if writer is not None:
                writer.close()
        if writer is not None:
            unfinished.replace(self._output)
        shutil.rmtree(self._folder)

    def _path(self, chunk: Chunk) -> Path:
        return self._folder / f"{chunk.start:012}-{chunk.end:012}.parquet"

    def _replace(self, path: Path, content: bytes) -> None:
        unfinished = path.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)


def open_input(path: Path) -> pq.ParquetFile:
    """Open a Parquet file without reading more of it than its footer.

    Raises:
        InvalidInput: It cannot be read.
    """
    try:
        return pq.ParquetFile(path, buffer_size=READ_BUFFER_BYTES, pre_buffer=False)
    except (OSError, pa.ArrowException) as error:
        raise InvalidInput(f"{path} is not a readable Parquet file: {error}") from error


def footer_digest(path: Path) -> str:
    """Return the SHA-256 of a Parquet file's footer, which has the place, size and range of every column's parts."""
    with path.open("rb") as file:
        file.seek(-FOOTER_LENGTH_BYTES, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-FOOTER_LENGTH_BYTES - length, os.SEEK_END)
        return sha256(file.read(length)).hexdigest()


def read_chunks(file: pq.ParquetFile, start: int = 0) -> Iterator[Chunk]:
    """Yield the rows from ``start``, which is where a chunk begins. The chunks are the same wherever one starts."""
    parts: list[pa.RecordBatch] = []
    first = position = 0
    for group in range(file.num_row_groups):
        group_rows = file.metadata.row_group(group).num_rows
        if position + group_rows <= start:
            first = position = position + group_rows
            continue
        for batch in file.iter_batches(READ_ROWS, row_groups=[group]):
            position += len(batch)
            if position <= start:
                first = position
                continue
            parts.append(batch)
            if position - first >= CHUNK_ROWS:
                yield Chunk(first, pa.Table.from_batches(parts))
                parts, first = [], position
    if parts:
        yield Chunk(first, pa.Table.from_batches(parts))
