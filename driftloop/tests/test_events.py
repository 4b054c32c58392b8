"""Events as they are encoded and decoded. The golden files hold every released version of every type."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from driftloop.events import (
    EVENTS,
    CumulatedChange,
    DataSelection,
    DriftVerdict,
    EstimateTrackRecord,
    Evaluation,
    Event,
    Finding,
    MetricEstimate,
    ModelStateChanged,
    Outcome,
    Prediction,
    QualityEstimate,
    QualityVerdict,
    RetrainRequest,
    RetrainRequested,
    Window,
)
from driftloop.kafka.codec import InvalidMessage, decode, encode

GOLDEN = Path(__file__).parent / "golden"
AT = datetime(2013, 7, 1, 9, 15, tzinfo=UTC)

EXAMPLES: dict[str, Event] = {
    "driftloop.prediction.v1": Prediction(
        id="0197c8a4-0000-7000-8000-000000000001",
        time=AT,
        model="flights",
        version="1",
        run_id="0b9fa1b53d3a4c5c8a4e4c0e6a3d9d55",
        features={"distance": [1400, 733], "temp": [75.2, None], "carrier": ["UA", "DL"]},
        predictions=[0.25, 0.5],
        classes=[0, 1],
        labels=[0, 1],
        keys=["order-17", None],
        context={"campaign": ["spring", None]},
    ),
    "driftloop.outcome.v1": Outcome(
        id="0197c8a4-0000-7000-8000-000000000002",
        time=AT,
        prediction_id="0197c8a4-0000-7000-8000-000000000001",
        index=1,
        outcome=1.0,
    ),
    "driftloop.drift_verdict.v1": DriftVerdict(
        id="predictions-0-000000000000-000000000019/flights/1/0b9fa1b53d3a4c5c8a4e4c0e6a3d9d55",
        time=AT,
        window=Window(topic="predictions", partition=0, first_offset=0, last_offset=19),
        model="flights",
        version="1",
        run_id="0b9fa1b53d3a4c5c8a4e4c0e6a3d9d55",
        rows=1000,
        first_prediction_at=AT,
        last_prediction_at=AT,
        verdict="drift",
        explanation="score 9.5, threshold 8.1; temp: wasserstein 2.5 > 1.9",
        score=9.5,
        score_threshold=8.125,
        cumulated_score=1.25,
        cumulated_changes=[
            CumulatedChange(
                column="carrier", statistic="level_share", level="UA", direction="down", windows=12, score=1.25
            )
        ],
        findings=[
            Finding(column="temp", method="wasserstein", value=2.5, threshold=1.875, drifted=True),
            Finding(column="wind_gust", method="wasserstein", value=None, threshold=1.5, drifted=False),
        ],
        archive=["gs://driftloop/slices/predictions/predictions-0-000000000000-000000000019.parquet"],
    ),
    "driftloop.quality_verdict.v1": QualityVerdict(
        id="outcomes-0-000000000000-000000000999/flights/2",
        time=AT,
        window=Window(topic="outcomes", partition=0, first_offset=0, last_offset=999),
        windows=7,
        model="flights",
        version="2",
        rows=6812,
        unmatched=3,
        first_prediction_at=AT,
        last_prediction_at=AT,
        verdict="degraded",
        explanation="ROC AUC 0.688 in service, 0.750 at the gate",
        in_service=Evaluation(
            rows=6812,
            days=7,
            resampling_unit="days",
            metrics={"roc_auc": MetricEstimate(value=0.6875, low=0.65625, high=0.71875)},
        ),
        at_gate=Evaluation(
            rows=14923,
            days=14,
            resampling_unit="days",
            metrics={"roc_auc": MetricEstimate(value=0.75, low=0.734375, high=0.765625)},
        ),
    ),
    "driftloop.quality_estimate.v1": QualityEstimate(
        id="predictions-0-000000000000-000000000019/flights/2/estimate",
        time=AT,
        window=Window(topic="predictions", partition=0, first_offset=0, last_offset=19),
        model="flights",
        version="2",
        rows=1000,
        first_prediction_at=AT,
        last_prediction_at=AT,
        metrics={"roc_auc": 0.75, "brier": 0.125, "accuracy": 0.8125},
        track_record=EstimateTrackRecord(windows=6, mean_error=0.0625, mean_absolute_error=0.0625),
        trusted=False,
        explanation="estimates of the ROC AUC of 6 windows were off by +0.062 on average, more than 0.02",
    ),
    "driftloop.retrain_requested.v1": RetrainRequested(
        id="0197c8a4-0000-7000-8000-000000000003",
        time=AT,
        model="flights",
        trigger="manual",
        reason="July looks different",
        requested_by="somebody",
        data=DataSelection(start=AT.date(), exclude_days=[AT.date()]),
    ),
    "driftloop.model_state_changed.v1": ModelStateChanged(
        id="0197c8a4-0000-7000-8000-000000000004",
        time=AT,
        retrain_id="0197c8a4-0000-7000-8000-000000000003",
        model="flights",
        version="2",
        state="promoted",
        explanation="better on later days",
        champion={"roc_auc": 0.703125},
        challenger={"roc_auc": 0.75, "low": 0.03125},
    ),
}


def value_with(name: str, **fields: object) -> bytes:
    """Return an example's value with other fields."""
    return json.dumps({**json.loads(encode(EXAMPLES[name], "test").value or b""), **fields}).encode()


OUTCOME = EXAMPLES["driftloop.outcome.v1"]
OUTCOME_HEADERS = encode(OUTCOME, "test").headers


def test_events_have_an_example_and_a_golden_file_for_each_type() -> None:
    assert set(EXAMPLES) == set(EVENTS) == {file.stem for file in GOLDEN.glob("*.json")}


@pytest.mark.parametrize("name", EXAMPLES)
def test_events_type_is_the_models_name_in_snake_case_with_a_version(name: str) -> None:
    words = re.findall("[A-Z][a-z]+", EVENTS[name].__name__)
    assert name == f"driftloop.{'_'.join(words).lower()}.v1"


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.json")), ids=lambda file: file.stem)
def test_codec_decodes_every_golden_file(file: Path) -> None:
    golden = json.loads(file.read_text())
    headers = [(name, value.encode()) for name, value in golden["headers"].items()]
    assert decode(json.dumps(golden["value"]).encode(), headers) == EXAMPLES[golden["headers"]["ce_type"]]


@pytest.mark.parametrize("name", EXAMPLES)
def test_codec_encodes_events_as_in_the_golden_files(name: str) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    message = encode(EXAMPLES[name], "test")
    assert message.key is not None
    assert message.value is not None
    assert message.key.decode() == golden["key"]
    assert json.loads(message.value) == golden["value"]
    assert {key: value.decode() for key, value in message.headers} == golden["headers"]


def test_codec_ignores_fields_of_a_later_version() -> None:
    assert decode(value_with(OUTCOME.type, certainty=0.9), OUTCOME_HEADERS) == OUTCOME


def test_codec_takes_a_missing_id_and_time_from_the_message() -> None:
    value = json.dumps(OUTCOME.model_dump(mode="json", exclude={"id", "time", "traceparent"})).encode()
    assert decode(value, OUTCOME_HEADERS) == OUTCOME
    headers_without_time = [header for header in OUTCOME_HEADERS if header[0] != "ce_time"]
    sent = datetime(2013, 7, 1, 12, tzinfo=UTC)
    decoded = decode(value, headers_without_time, int(sent.timestamp() * 1000))
    assert (decoded.id, decoded.time) == (OUTCOME.id, sent)
    assert decoded.model_copy(update={"time": OUTCOME.time}) == OUTCOME


def test_codec_validates_an_id_that_only_the_headers_have() -> None:
    value = json.dumps(OUTCOME.model_dump(mode="json", exclude={"id", "traceparent"})).encode()
    headers = [(k, v) if k != "ce_id" else (k, b"two words") for k, v in OUTCOME_HEADERS]
    with pytest.raises(InvalidMessage, match="id: String should match pattern"):
        decode(value, headers)


@pytest.mark.parametrize(
    ("value", "headers", "message"),
    [
        (b"{}", [], "no CloudEvent"),
        (b"{}", [("ce_type", b"\xff")], "no CloudEvent"),
        (b"{}", [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/x"), ("ce_type", b"x.y")], "'x.y'"),
        (b"no json", OUTCOME_HEADERS, "driftloop.outcome.v1"),
        (b'{"outcome": 1}', OUTCOME_HEADERS, "prediction_id"),
        (None, OUTCOME_HEADERS, "driftloop.outcome.v1"),
        (value_with("driftloop.outcome.v1", outcome=None), OUTCOME_HEADERS, "outcome"),
        (value_with("driftloop.outcome.v1", index=2**31), OUTCOME_HEADERS, "index"),
        (value_with("driftloop.outcome.v1", time="2500-01-01T00:00:00Z"), OUTCOME_HEADERS, "time"),
        (
            value_with("driftloop.prediction.v1", predictions=[0.5]),
            encode(EXAMPLES["driftloop.prediction.v1"], "test").headers,
            "1 predictions, but columns of another length",
        ),
    ],
)
def test_codec_rejects_an_invalid_message_and_names_the_error(
    value: bytes | None, headers: list[tuple[str, bytes]], message: str
) -> None:
    with pytest.raises(InvalidMessage, match=message):
        decode(value, headers)


def test_event_has_no_traceparent_unless_it_is_given_one() -> None:
    assert {example.traceparent for example in EXAMPLES.values()} == {None}
    request = RetrainRequest(reason="test")
    assert request.to_event("flights").traceparent is None
    assert request.to_event("flights", "00-0-0-01").traceparent == "00-0-0-01"


def test_window_names_sort_in_the_order_of_their_offsets() -> None:
    windows = [Window(topic="predictions", partition=0, first_offset=n, last_offset=n + 9) for n in (90, 100, 1000)]
    assert sorted(window.name for window in windows) == [window.name for window in windows]
    assert [Window.parse(f"slices/{window.name}.parquet") for window in windows] == windows


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"start": "1969-12-31"}, "start"),
        ({"base_end": "2200-01-01"}, "base_end"),
        ({"exclude_days": ["0001-01-01"]}, "exclude_days"),
        ({"start": "2013-06-01", "base_end": "2013-05-31"}, "base_end 2013-05-31 is before start 2013-06-01"),
    ],
)
def test_data_selection_rejects_days_that_no_event_can_have(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        DataSelection.model_validate(fields)


def test_data_selection_without_base_dataset_is_a_start_and_the_same_end() -> None:
    assert DataSelection.model_validate({"start": "2013-06-01", "base_end": "2013-06-01"}).archive


@pytest.mark.parametrize("rows", [0, -1, 2**31, "many"])
def test_data_selection_rejects_an_impossible_number_of_rows(rows: object) -> None:
    with pytest.raises(ValidationError, match="last_rows"):
        DataSelection.model_validate({"last_rows": rows})


@pytest.mark.parametrize(
    "names",
    [
        {},
        {"prediction_id": "a"},
        {"index": 0},
        {"key": "order-17"},
        {"model": "flights"},
        {"prediction_id": "a", "index": 0, "key": "order-17"},
        {"prediction_id": "a", "index": 0, "model": "flights"},
        {"prediction_id": "a", "model": "flights", "key": "order-17"},
        {"prediction_id": "a", "index": 0, "model": "flights", "key": "order-17"},
        {"model": "flights", "key": ""},
        {"model": "flights", "key": "a" * 257},
        {"model": "flights", "key": 17},
    ],
)
def test_outcome_names_its_row_by_id_and_index_or_by_model_and_key(names: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Outcome.model_validate({"outcome": 1, **names})


def test_outcome_with_a_key_has_it_as_message_key_and_is_decoded_again() -> None:
    outcome = Outcome(model="flights", key="größe 17", outcome=1)
    message = encode(outcome, "test")
    assert message.key == "größe 17".encode()
    assert decode(message.value, message.headers) == outcome


@pytest.mark.parametrize("field", [{"labels": [1]}, {"keys": ["a"]}, {"context": {"distance": ["a"]}}])
def test_prediction_has_one_label_key_and_value_of_context_for_each_row(field: dict[str, object]) -> None:
    event = EXAMPLES["driftloop.prediction.v1"]
    with pytest.raises(ValidationError, match="2 predictions, but columns of another length"):
        Prediction.model_validate(event.model_dump() | field)
