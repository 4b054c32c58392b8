"""A dead letter can be written and read, whatever the message was."""

from contextlib import suppress
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.consumer.fetcher import ConsumerRecord
from pydantic import ValidationError

from driftloop.events import Event, Outcome, Prediction
from driftloop.kafka.codec import InvalidMessage, decode, encode
from driftloop.kafka.dead_letters import original_headers, parse_origin, to_dead_letter
from driftloop.storage.reference_store import reference_prefix

MAX_BYTES = 20_000

contents = st.none() | st.binary(max_size=200) | st.just(b"x" * 50_000)
header_names = st.text(max_size=20) | st.sampled_from(["ce_id", "ce_type", "ce_time", "dlq_error", "n" * 30_000])
header_lists = st.lists(st.tuples(header_names, contents), max_size=8)


def record(key: bytes | None, value: bytes | None, headers: list[tuple[str, Any]]) -> ConsumerRecord:
    return ConsumerRecord("t", 3, 0, 7, 1_000, 0, key, value, headers, None, 0, 0, 0)


@given(key=contents, value=contents, headers=header_lists, error=st.text(max_size=3_000))
def test_dead_letter_of_any_message_fits_and_names_its_origin(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, Any]], error: str
) -> None:
    letter = to_dead_letter(record(key, value, headers), ValueError(error), MAX_BYTES)
    sizes = [len(name.encode(errors="replace")) + len(content) for name, content in letter.headers]
    assert sum(sizes) + len(letter.key or b"") + len(letter.value or b"") <= MAX_BYTES
    assert letter.key is not None or letter.value is not None
    assert all(isinstance(content, bytes) for _, content in letter.headers)
    origin = parse_origin(letter.headers)
    assert (origin.topic, origin.partition, origin.offset, origin.timestamp) == ("t", 3, 7, 1_000)
    assert (origin.size, origin.sha256) == (len(value or b""), sha256(value or b"").hexdigest())
    kept = [(name, content) for name, content in headers if not name.startswith("dlq_")]
    if not origin.changed:
        assert (letter.key, letter.value, original_headers(letter.headers)) == (key, value, kept)


@given(value=contents, headers=header_lists, timestamp=st.none() | st.integers(-(2**63), 2**63 - 1))
def test_decode_of_any_message_is_an_event_or_invalid(
    value: bytes | None, headers: list[tuple[str, Any]], timestamp: int | None
) -> None:
    with suppress(InvalidMessage):
        assert isinstance(decode(value, headers, timestamp), Event)


@given(value=st.binary(max_size=100), timestamp=st.none() | st.integers(-(2**63), 2**63 - 1))
def test_decode_of_any_value_with_valid_headers_is_an_event_or_invalid(value: bytes, timestamp: int | None) -> None:
    headers = encode(Outcome(prediction_id="p", index=0, outcome=1.0), "test").headers
    without_time = [(name, content) for name, content in headers if name != "ce_time"]
    for read in (headers, without_time):
        with suppress(InvalidMessage):
            decode(value, read, timestamp)


@pytest.mark.parametrize("name", ["../../x", "..", "a/b", "a\\b", "a:b", "", " ", "a\nb", "n" * 300])
def test_names_that_lead_elsewhere_are_refused_where_an_event_is_read_and_a_path_is_built(name: str) -> None:
    with pytest.raises(ValidationError):
        Prediction(model=name, version="1", features={}, predictions=[])
    with pytest.raises(ValidationError):
        Prediction(model="m", version=name, features={}, predictions=[])
    with pytest.raises(ValueError, match="cannot be a name"):
        reference_prefix("m", name)


def test_names_with_spaces_and_other_letters_are_names() -> None:
    for name in ("made up", "größe", "o'hare", "v1.2", "1"):
        assert Prediction(model=name, version=name, features={}, predictions=[]).model == name
