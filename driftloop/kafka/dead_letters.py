"""Dead letters: messages that are no valid events, on a topic of their own.

A dead letter can always be written. It has the message's key, value and headers, and these headers besides:

- ``dlq_topic``, ``dlq_partition``, ``dlq_offset``: where the message was;
- ``dlq_timestamp``: its timestamp, in milliseconds since 1970;
- ``dlq_error``: why it is no valid event;
- ``dlq_size``, ``dlq_sha256``: of its value, as it was;
- ``dlq_changed``, if the dead letter differs from the message: a JSON object, from the name of a part to ``cut``,
  ``null`` (now empty), or ``undecodable`` (now the bytes of the record as the broker has it).
"""

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Literal, NamedTuple

from kafka.consumer.fetcher import ConsumerRecord
from pydantic import TypeAdapter

from driftloop.kafka.codec import Message
from driftloop.kafka.tolerant_records import Undecodable

PREFIX = "dlq_"
MAX_ERROR_CHARACTERS = 1_000
HEADER_OVERHEAD_BYTES = 10  # of lengths, at most
MAX_NAMED_HEADERS = 20  # that were null; of more the dead letter says only that there are some

Change = Literal["cut", "null", "undecodable"]
"""How a part of a dead letter differs from the message's."""
_CHANGES = TypeAdapter(dict[str, Change])


class Origin(NamedTuple):
    """What the headers of a dead letter say about the message that it was."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """In milliseconds since 1970."""
    error: str
    size: int
    """Bytes of the value."""
    sha256: str
    """Of the value."""
    changed: dict[str, Change]
    """The parts of the dead letter that are not as they were."""


def to_dead_letter(record: ConsumerRecord, error: Exception, max_bytes: int) -> Message:
    """Return the dead letter of a record.

    Args:
        record: A record that is no valid event.
        error: Why it is none.
        max_bytes: The size that no dead letter exceeds; what is larger is cut.
    """
    changed: dict[str, Change] = {}
    value = b"" if record.value is None else bytes(record.value)
    headers: list[tuple[str, bytes]] = []
    for name, content in record.headers:
        if name.startswith(PREFIX):  # it was a dead letter before
            continue
        if content is None:  # Kafka knows it, and its Python client cannot send it
            changed[f"header {name}"[:100] if len(changed) < MAX_NAMED_HEADERS else "headers"] = "null"
        headers.append((name, content or b""))
    if record.value is None and record.key is None:
        changed["value"] = "null"
    if isinstance(record.value, Undecodable):
        changed["value"] = "undecodable"
    facts = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "timestamp": str(record.timestamp),
        "error": str(error)[:MAX_ERROR_CHARACTERS],
        "size": str(len(value)),
        "sha256": sha256(value).hexdigest(),
    }
    left = max_bytes - sum(map(_header_bytes, _origin_headers(facts, changed))) - 1_000  # for what is cut
    kept_headers = _first_headers(headers, left // 2)
    if len(kept_headers) < len(headers):
        changed["headers"] = "cut"
    left -= sum(map(_header_bytes, kept_headers))
    key = record.key and record.key[: left // 2]
    if key != record.key:
        changed["key"] = "cut"
    left -= len(key or b"")
    if len(value) > left:
        changed["value"] = "undecodable" if isinstance(record.value, Undecodable) else "cut"
    # A null value is a tombstone, which can be sent if it has a key.
    kept_value = None if record.value is None and key is not None else value[:left]
    return Message(key, kept_value, [*kept_headers, *_origin_headers(facts, changed)])


def parse_origin(headers: Sequence[tuple[str, bytes]]) -> Origin:
    """Return what the headers of a dead letter say.

    Raises:
        ValueError: They are not those of a dead letter.
    """
    facts = {name.removeprefix(PREFIX): (value or b"").decode() for name, value in headers if name.startswith(PREFIX)}
    try:
        numbers = {name: int(facts[name]) for name in ("partition", "offset", "timestamp", "size")}
        return Origin(
            topic=facts["topic"],
            error=facts["error"],
            sha256=facts["sha256"],
            changed=_CHANGES.validate_json(facts.get("changed", "{}")),
            **numbers,
        )
    except KeyError as error:
        raise ValueError(f"the header {PREFIX}{error.args[0]} is missing") from error


def original_headers(headers: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Return the headers of a dead letter that its message had."""
    return [(name, value or b"") for name, value in headers if not name.startswith(PREFIX)]


def _origin_headers(facts: dict[str, str], changed: dict[str, Change]) -> list[tuple[str, bytes]]:
    changes = {"changed": json.dumps(changed)} if changed else {}
    return [(f"{PREFIX}{name}", text.encode(errors="replace")) for name, text in {**facts, **changes}.items()]


def _first_headers(headers: Sequence[tuple[str, bytes]], max_bytes: int) -> list[tuple[str, bytes]]:
    """Return the first headers that have at most so many bytes together."""
    kept: list[tuple[str, bytes]] = []
    for header in headers:
        max_bytes -= _header_bytes(header)
        if max_bytes < 0:
            break
        kept.append(header)
    return kept


def _header_bytes(header: tuple[str, bytes]) -> int:
    return len(header[0].encode(errors="replace")) + len(header[1]) + HEADER_OVERHEAD_BYTES
