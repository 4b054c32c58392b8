"""Reading past what kafka-python cannot decode: a consumer gets a record with an :class:`Undecodable` value instead.

Without it a single record ends ``poll``, and every later ``poll`` of whoever reads the partition: kafka-python raises
for a header name that is not UTF-8, and unpacks a batch whatever size it has then, so that a megabyte of packed zeros
takes a gigabyte. The broker accepts both.

A record is stepped over by its length, and a batch that cannot be unpacked as a whole, by its last offset. A batch with
a wrong checksum is none that a producer can have sent: it raises ``CorruptRecordError`` as before.
"""

import gzip
import io
from typing import Any, Self

from kafka import KafkaConsumer
from kafka.consumer.fetcher import Fetcher
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint

MAX_BATCH_BYTES = 32 * 2**20  # unpacked: far more than a broker accepts of a batch that is not packed


class Undecodable(bytes):
    """The value of a record that cannot be decoded: all its bytes, or those of its batch, as they are on the broker."""

    error: str
    """Why it cannot be decoded."""

    @classmethod
    def from_bytes_of(cls, content: bytes, error: str) -> Self:
        """Return it for the bytes of a record or batch."""
        value = cls(content)
        value.error = error
        return value


def read_past_undecodable(consumer: KafkaConsumer) -> KafkaConsumer:
    """Make a consumer read past what it cannot decode, and return it."""
    consumer._fetcher.PartitionRecords = _PartitionRecords
    return consumer


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python has no types
    def __init__(self, fetch_offset: int, partition: Any, records: MemoryRecords, **options: Any) -> None:
        super().__init__(fetch_offset, partition, _Batches(records._buffer), **options)


class _Batches(MemoryRecords):  # type: ignore[misc]
    __slots__ = ()

    def next_batch(self) -> Any:
        batch = super().next_batch()
        return _Batch(batch._buffer) if isinstance(batch, DefaultRecordBatch) else batch


class _Batch(DefaultRecordBatch):  # type: ignore[misc]
    _buffer: bytearray
    _pos: int
    _num_records: int
    _next_record_index: int
    _decompressed: bool

    def __init__(self, buffer: Any) -> None:
        super().__init__(buffer)
        self._remainder: Any = None  # a record in place of all that is left of the batch

    def __iter__(self) -> Self:
        try:
            self._unpack()
        except Exception as error:  # noqa: BLE001  # each codec raises its own
            reason = f"the batch cannot be unpacked: {type(error).__name__}: {error}"
            self._remainder = self._record(self.last_offset, bytes(self._buffer), reason)
        return self

    def __next__(self) -> Any:
        if self._remainder is not None:
            record, self._remainder = self._remainder, None
            self._next_record_index, self._pos = self._num_records, len(self._buffer)
            return record
        start = self._pos
        try:
            return super().__next__()
        except StopIteration:
            raise
        except Exception as error:  # a record may have any bytes
            if self._next_record_index >= self._num_records:  # there are bytes after the last record
                raise StopIteration from error
            return self._step_over(start, f"{type(error).__name__}: {error}")

    def _unpack(self) -> None:
        if self._decompressed or self.compression_type != self.CODEC_GZIP:
            self._maybe_uncompress()
            return
        with gzip.GzipFile(fileobj=io.BytesIO(memoryview(self._buffer)[self._pos :])) as packed:
            content = packed.read(MAX_BATCH_BYTES + 1)
        if len(content) > MAX_BATCH_BYTES:
            raise ValueError(f"it unpacks to more than {MAX_BATCH_BYTES:,} bytes")
        self._buffer, self._pos, self._decompressed = bytearray(content), 0, True

    def _step_over(self, start: int, reason: str) -> Any:
        """Return a record in place of the one at ``start``, and go on after it.

        If its length makes no sense, all that is left of the batch is stepped over.
        """
        buffer = self._buffer
        try:
            length, begin = decode_varint(buffer, start)
            _, position = decode_varint(buffer, begin)  # attributes
            _, position = decode_varint(buffer, position)  # timestamp
            offset_delta, _ = decode_varint(buffer, position)
            end = begin + length
        except (IndexError, ValueError):
            end = offset_delta = -1
        if not (start < end <= len(buffer) and 0 <= offset_delta <= self.last_offset_delta):
            self._next_record_index, self._pos = self._num_records, len(buffer)
            return self._record(self.last_offset, bytes(buffer[start:]), reason)
        self._next_record_index, self._pos = self._next_record_index + 1, end
        return self._record(self.base_offset + offset_delta, bytes(buffer[start:end]), reason)

    def _record(self, offset: int, content: bytes, reason: str) -> Any:
        value = Undecodable.from_bytes_of(content, reason)
        return DefaultRecord(len(content), offset, self.max_timestamp, self.timestamp_type, None, value, [])
