"""Events as they are written and read; the golden files hold every version of a type that was ever written."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from driftloop.events import (
    EVENTS,
    DataSelection,
    Drift,
    Estimate,
    Event,
    Figure,
    Finding,
    Measurement,
    ModelChange,
    Outcome,
    Prediction,
    Quality,
    Record,
    Retrain,
    Window,
)
from driftloop.kafka.codec import Unreadable, read, write

GOLDEN = Path(__file__).parent / "golden"
AT = datetime(2013, 7, 1, 9, 15, tzinfo=UTC)

EXAMPLES: dict[str, Event] = {
    "driftloop.prediction.v1": Prediction(
        id="0197c8a4-0000-7000-8000-000000000001",
        time=AT,
        model="flights",
        version="1",
        features={"distance": [1400, 733], "temp": [75.2, None], "carrier": ["UA", "DL"]},
        predictions=[0.25, 0.5],
    ),
    "driftloop.outcome.v1": Outcome(
        id="0197c8a4-0000-7000-8000-000000000002",
        time=AT,
        prediction_id="0197c8a4-0000-7000-8000-000000000001",
        index=1,
        outcome=1.0,
    ),
    "driftloop.drift.v1": Drift(
        id="predictions-0-000000000000-000000000019/flights/1",
        time=AT,
        window=Window(topic="predictions", partition=0, first_offset=0, last_offset=19),
        model="flights",
        version="1",
        rows=1000,
        starts=AT,
        ends=AT,
        verdict="alarm",
        why="score 9.5, limit 8.1; temp: wasserstein 2.5 > 1.9",
        score=9.5,
        limit=8.125,
        findings=[
            Finding(column="temp", method="wasserstein", value=2.5, threshold=1.875, drifted=True),
            Finding(column="wind_gust", method="wasserstein", value=None, threshold=1.5, drifted=False),
        ],
        archive="gs://driftloop/events/predictions/predictions-0-000000000000-000000000019.parquet",
    ),
    "driftloop.quality.v1": Quality(
        id="outcomes-0-000000000000-000000000999/flights/2",
        time=AT,
        window=Window(topic="outcomes", partition=0, first_offset=0, last_offset=999),
        windows=7,
        model="flights",
        version="2",
        rows=6812,
        unmatched=3,
        starts=AT,
        ends=AT,
        verdict="worse",
        why="ROC AUC 0.688 in service, 0.750 at the gate",
        found=Measurement(
            rows=6812, days=7, drawn="days", figures={"roc_auc": Figure(value=0.6875, low=0.65625, high=0.71875)}
        ),
        measured=Measurement(
            rows=14923, days=14, drawn="days", figures={"roc_auc": Figure(value=0.75, low=0.734375, high=0.765625)}
        ),
    ),
    "driftloop.estimate.v1": Estimate(
        id="predictions-0-000000000000-000000000019/flights/2/estimate",
        time=AT,
        window=Window(topic="predictions", partition=0, first_offset=0, last_offset=19),
        model="flights",
        version="2",
        rows=1000,
        starts=AT,
        ends=AT,
        figures={"roc_auc": 0.75, "brier": 0.125, "accuracy": 0.8125},
        record=Record(windows=6, mean_error=0.0625, mean_absolute_error=0.0625),
        trusted=False,
        why="estimates of the ROC AUC of 6 windows were off by +0.062 on average, more than 0.02",
    ),
    "driftloop.retrain.v1": Retrain(
        id="0197c8a4-0000-7000-8000-000000000003",
        time=AT,
        model="flights",
        trigger="manual",
        reason="July looks different",
        asked_by="somebody",
        data=DataSelection(start=AT.date(), without_days=[AT.date()]),
    ),
    "driftloop.model.v1": ModelChange(
        id="0197c8a4-0000-7000-8000-000000000004",
        time=AT,
        retrain_id="0197c8a4-0000-7000-8000-000000000003",
        model="flights",
        version="2",
        state="promoted",
        why="better on later days",
        champion={"roc_auc": 0.703125},
        challenger={"roc_auc": 0.75, "low": 0.03125},
    ),
}


def changed(name: str, **fields: object) -> bytes:
    """An event's value with other fields."""
    return json.dumps({**json.loads(write(EXAMPLES[name], "test").value or b""), **fields}).encode()


def test_every_type_has_an_example_and_a_golden_file() -> None:
    assert set(EXAMPLES) == set(EVENTS)
    assert set(EVENTS) <= {file.stem for file in GOLDEN.glob("*.json")}


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.json")), ids=lambda file: file.stem)
def test_events_that_were_ever_written_are_still_read(file: Path) -> None:
    golden = json.loads(file.read_text())
    headers = [(name, value.encode()) for name, value in golden["headers"].items()]
    assert read(json.dumps(golden["value"]).encode(), headers) == EXAMPLES[golden["headers"]["ce_type"]]


@pytest.mark.parametrize("name", EXAMPLES)
def test_events_are_written_as_the_golden_files_say(name: str) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    message = write(EXAMPLES[name], "test")
    assert message.key is not None
    assert message.value is not None
    assert message.key.decode() == golden["key"]
    assert json.loads(message.value) == golden["value"]
    assert {key: value.decode() for key, value in message.headers} == golden["headers"]


def test_a_reader_ignores_fields_that_a_later_version_added() -> None:
    message = write(EXAMPLES["driftloop.outcome.v1"], "test")
    later = json.dumps({**json.loads(message.value or b""), "certainty": 0.9}).encode()
    assert read(later, message.headers) == EXAMPLES["driftloop.outcome.v1"]


def test_id_and_time_that_a_value_lacks_are_its_messages() -> None:
    example = EXAMPLES["driftloop.outcome.v1"]
    message = write(example, "test")
    lacking = json.dumps(
        {k: v for k, v in json.loads(message.value or b"").items() if k not in ("id", "time")}
    ).encode()
    assert read(lacking, message.headers) == example
    timeless = [header for header in message.headers if header[0] != "ce_time"]
    sent = datetime(2013, 7, 1, 12, tzinfo=UTC)
    again = read(lacking, timeless, int(sent.timestamp() * 1000))
    assert (again.id, again.time) == (example.id, sent)
    assert again.model_copy(update={"time": example.time}) == example


def test_an_id_that_only_the_headers_have_must_be_one_too() -> None:
    message = write(EXAMPLES["driftloop.outcome.v1"], "test")
    value = {k: v for k, v in json.loads(message.value or b"").items() if k != "id"}
    headers = [(k, v) if k != "ce_id" else (k, b"two words") for k, v in message.headers]
    with pytest.raises(Unreadable, match="id: String should match pattern"):
        read(json.dumps(value).encode(), headers)


@pytest.mark.parametrize(
    ("value", "headers", "why"),
    [
        (b"{}", [], "no CloudEvent"),
        (b"{}", [("ce_type", b"\xff")], "no CloudEvent"),
        (b"{}", [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/x"), ("ce_type", b"x.y")], "'x.y'"),
        (b"no json", write(EXAMPLES["driftloop.outcome.v1"], "test").headers, "not a driftloop.outcome.v1"),
        (b'{"outcome": 1}', write(EXAMPLES["driftloop.outcome.v1"], "test").headers, "prediction_id"),
        (None, write(EXAMPLES["driftloop.outcome.v1"], "test").headers, "not a driftloop.outcome.v1"),
        (
            changed("driftloop.outcome.v1", outcome=None),
            write(EXAMPLES["driftloop.outcome.v1"], "test").headers,
            "outcome",
        ),
        (
            changed("driftloop.outcome.v1", index=2**31),
            write(EXAMPLES["driftloop.outcome.v1"], "test").headers,
            "index",
        ),
        (
            changed("driftloop.outcome.v1", time="2500-01-01T00:00:00Z"),
            write(EXAMPLES["driftloop.outcome.v1"], "test").headers,
            "time",
        ),
        (
            changed("driftloop.prediction.v1", predictions=[0.5]),
            write(EXAMPLES["driftloop.prediction.v1"], "test").headers,
            "1 predictions, but columns of another length",
        ),
    ],
)
def test_what_is_no_event_is_unreadable_and_says_why(
    value: bytes | None, headers: list[tuple[str, bytes]], why: str
) -> None:
    with pytest.raises(Unreadable, match=why):
        read(value, headers)


def test_names_of_windows_sort_as_their_offsets_do() -> None:
    windows = [Window(topic="predictions", partition=0, first_offset=n, last_offset=n + 9) for n in (90, 100, 1000)]
    assert sorted(window.name for window in windows) == [window.name for window in windows]


@pytest.mark.parametrize("rows", [0, -1, 2**31, "many"])
def test_a_selection_of_no_rows_or_more_than_there_can_be_is_refused(rows: object) -> None:
    with pytest.raises(ValidationError, match="last_rows"):
        DataSelection.model_validate({"last_rows": rows})
