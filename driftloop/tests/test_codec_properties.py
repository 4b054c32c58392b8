"""Properties of the codec: what is written is read, and whatever is damaged is an invalid message and nothing else."""

import math
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from driftloop.events import EVENTS, Event, Finding, ModelStateChanged, Outcome, Prediction
from driftloop.kafka.codec import InvalidMessage, Message, decode, encode
from tests.support.event_strategies import events_of

EXAMPLES = 40  # of each type of event
LACKING_IN_JSON = st.sampled_from([math.nan, math.inf, -math.inf])

any_event = st.one_of(*map(events_of, EVENTS.values()))
header_contents = st.none() | st.binary(max_size=30) | st.text(max_size=30).map(str.encode)


def read(message: Message, timestamp: int | None = None) -> Event:
    return decode(message.value, message.headers, timestamp)


@pytest.mark.parametrize("type_name", EVENTS)
def test_event_that_is_written_is_read(type_name: str) -> None:
    @settings(max_examples=EXAMPLES)
    @given(event=events_of(EVENTS[type_name]))
    def is_read(event: Event) -> None:
        message = encode(event, "test")
        assert read(message) == event
        assert message.key == event.message_key.encode()

    is_read()


@settings(max_examples=EXAMPLES)
@given(event=any_event, traceparent=st.text(max_size=60))
def test_trace_that_is_none_is_left_out(event: Event, traceparent: str) -> None:
    untraced = event.model_copy(update={"traceparent": None})
    assert read(encode(event.model_copy(update={"traceparent": traceparent}), "test")) == untraced


@settings(max_examples=2 * EXAMPLES)
@given(event=any_event, data=st.data())
def test_damaged_value_is_an_event_or_an_invalid_message(event: Event, data: st.DataObject) -> None:
    message = encode(event, "test")
    assert message.value is not None
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(message.value))] * 2), label="damaged"))
    inserted = data.draw(st.binary(max_size=8) | st.sampled_from([b"null", b"NaN", b"1e999", b'"\\ud800"', b"[" * 999]))
    damaged = message._replace(value=message.value[:begin] + inserted + message.value[end:])
    with suppress(InvalidMessage):
        read(encode(read(damaged), "test"))


@settings(max_examples=2 * EXAMPLES)
@given(event=any_event, data=st.data(), timestamp=st.none() | st.integers(-(2**63), 2**63 - 1))
def test_damaged_headers_give_an_event_or_an_invalid_message(
    event: Event, data: st.DataObject, timestamp: int | None
) -> None:
    message = encode(event, "test")
    names = st.sampled_from([name for name, _ in message.headers]) | st.text(max_size=20)
    kept = data.draw(st.lists(st.sampled_from(message.headers), max_size=8), label="kept or doubled")
    added = data.draw(st.lists(st.tuples(names, header_contents), max_size=3), label="added")
    headers: list[tuple[str, Any]] = data.draw(st.permutations([*kept, *added]))
    value = message.value if data.draw(st.booleans()) else b"{}"
    with suppress(InvalidMessage):
        read(encode(decode(value, headers, timestamp), "test"))


@given(numbers=st.lists(st.floats() | LACKING_IN_JSON, max_size=4))
def test_number_that_json_lacks_is_missing_among_features(numbers: list[float]) -> None:
    event = Prediction(model="m", version="1", features={"x": [*numbers]}, predictions=[0.5] * len(numbers))
    decoded = read(encode(event, "test"))
    expected = [number if math.isfinite(number) else None for number in numbers]
    assert decoded == event.model_copy(update={"features": {"x": expected}})


@given(number=LACKING_IN_JSON)
def test_number_that_json_lacks_is_refused_where_no_null_may_be(number: float) -> None:
    for fields in ({"predictions": [number]}, {"predictions": [[number]]}, {"predictions": [1], "classes": [number]}):
        with pytest.raises(ValidationError):
            Prediction.model_validate({"model": "m", "version": "1", "features": {}} | fields)
    with pytest.raises(ValidationError):
        Outcome(prediction_id="p", index=0, outcome=number)
    with pytest.raises(ValidationError):
        Finding(column="x", method="psi", value=1.0, threshold=1.0, drifted=False, priority=number)
    with pytest.raises(ValidationError):
        ModelStateChanged(
            retrain_id="r", model="m", state="promoted", explanation="", champion={"roc_auc": 0.7, "r2": number}
        )


@given(
    time=st.datetimes(datetime(1970, 1, 3), datetime(2199, 12, 30)),
    offset=st.timedeltas(timedelta(hours=-23), timedelta(hours=23)),
)
def test_time_of_any_offset_is_read_as_the_same_moment(time: datetime, offset: timedelta) -> None:
    event = Outcome(prediction_id="p", index=0, outcome=1, time=time.replace(tzinfo=timezone(offset)))
    assert read(encode(event, "test")).time == event.time


@given(time=st.datetimes(timezones=st.timezones() | st.none()))
def test_time_among_features_is_read_as_a_text(time: datetime) -> None:
    decoded = read(encode(Prediction(model="m", version="1", features={"x": [time]}, predictions=[0.5]), "test"))
    assert isinstance(decoded, Prediction)
    assert isinstance(decoded.features["x"][0], str)
