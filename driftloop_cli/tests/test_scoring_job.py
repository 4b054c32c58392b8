"""The chunks of a scoring job are the same wherever it goes on, and its events depend on nothing but the rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.tree import DecisionTreeRegressor

from driftloop.events import Prediction, is_new_event_id, now
from driftloop.kafka.codec import decode, to_message
from driftloop.privacy import Privacy, hash_value
from driftloop_cli.files import score, scoring_job
from driftloop_cli.files.score import Scorer, score_chunk
from driftloop_cli.files.scoring_job import (
    JobFolder,
    ScoringJob,
    ScoringRefused,
    footer_digest,
    open_input,
    read_chunks,
)
from tests.support.predictor_app import serving_model

ROWS = 2_500
FRAME = pd.DataFrame({"x": np.arange(ROWS, dtype=float), "n": range(ROWS), "order": [f"o{n}" for n in range(ROWS)]})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose row groups, batches and chunks end at different rows."""
    monkeypatch.setattr(scoring_job, "CHUNK_ROWS", 350)
    monkeypatch.setattr(scoring_job, "READ_ROWS", 200)
    FRAME.to_parquet(tmp_path / "in.parquet", row_group_size=900)
    return tmp_path / "in.parquet"


def scorer() -> Scorer:
    frame = FRAME[["x", "n"]]
    return Scorer(serving_model(DecisionTreeRegressor().fit(frame, frame["x"] * 2), frame, "predict").loaded, "3")


def job() -> ScoringJob:
    return ScoringJob(id="job", started_at=now(), input_digest="", model="m", version="3", key="order")


def test_chunks_are_the_same_from_every_start(file: Path) -> None:
    chunks = [(chunk.start, chunk.end) for chunk in read_chunks(open_input(file))]
    assert [start for start, _ in chunks[1:]] == [end for _, end in chunks[:-1]]
    assert (chunks[0][0], chunks[-1][1]) == (0, ROWS)
    assert len(chunks) > 5
    for number, (start, _) in enumerate(chunks):
        later = list(read_chunks(open_input(file), start))
        assert [(chunk.start, chunk.end) for chunk in later] == chunks[number:]
        assert later[0].rows["n"][0].as_py() == start
    assert list(read_chunks(open_input(file), ROWS)) == []


def test_events_hold_each_row_once_and_are_the_same_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "EVENT_ROWS", 100)
    monkeypatch.setattr(score, "MAX_EVENT_BYTES", 2_000)  # so that events are divided
    this, model = job(), scorer()
    chunk = next(read_chunks(open_input(file)))
    (predictions, events), (_, again) = score_chunk(model, this, chunk), score_chunk(model, this, chunk)
    assert [event.id for event in events] == [event.id for event in again]
    assert len(events) > len(chunk.rows) / 100
    seen = []
    for event in events:
        assert is_new_event_id(event.id)
        assert len(event.value) <= 2_000
        message = to_message(event, "score")
        decoded = decode(message.value, message.headers)
        assert isinstance(decoded, Prediction)
        assert (decoded.model, decoded.version) == ("m", "3")
        seen += list(zip(decoded.features["n"], decoded.predictions, strict=True))
    assert seen == [(n, 2.0 * n) for n in range(len(chunk.rows))]
    assert predictions["prediction"].to_pylist() == [2.0 * n for n in range(len(chunk.rows))]
    first_event = predictions.to_pandas().groupby("prediction_id", sort=False)["prediction_row"]
    assert list(first_event.min()) == [0] * len(events)


def test_output_has_the_rows_with_their_predictions_and_the_folder_is_deleted(file: Path) -> None:
    output = file.with_name("out.parquet")
    folder, model, this = JobFolder(output), scorer(), job()
    with folder.locked():
        for chunk in read_chunks(open_input(file)):
            folder.write_predictions(chunk, score_chunk(model, this, chunk)[0])
        folder.write_output(read_chunks(open_input(file)), {"driftloop.version": "3"})
    scored = pd.read_parquet(output)
    pd.testing.assert_frame_equal(scored[list(FRAME)], FRAME)
    assert (scored["prediction"] == FRAME["x"] * 2).all()
    assert pq.read_schema(output).metadata[b"driftloop.version"] == b"3"
    assert [path.name for path in file.parent.iterdir()].count("out.parquet.scoring") == 0
    with pytest.raises(ScoringRefused, match="exists already"), folder.locked():
        pass


def test_folder_admits_one_process_and_keeps_its_job(file: Path) -> None:
    folder, this = JobFolder(file.with_name("out.parquet")), job()
    with folder.locked():
        assert folder.read() is None
        folder.write(this)
        with pytest.raises(ScoringRefused, match="another process"), JobFolder(file.with_name("out.parquet")).locked():
            pass
    assert folder.read() == this


def test_digest_changes_with_the_rows(file: Path) -> None:
    other = file.with_name("other.parquet")
    FRAME.assign(x=FRAME["x"] + 1).to_parquet(other, row_group_size=900)
    assert footer_digest(file) == footer_digest(file) != footer_digest(other)


def test_events_have_private_columns_as_the_predictor_publishes_them(file: Path) -> None:
    privacy = Privacy({"x": "drop", "n": "hash"}, hashes_keys=True, hash_key=b"k" * 32)
    chunk = next(read_chunks(open_input(file)))
    predictions, events = score_chunk(scorer(), job(), chunk, privacy)
    message = to_message(events[0], "score")
    event = decode(message.value, message.headers)
    assert isinstance(event, Prediction)
    assert event.features == {"n": [hash_value(b"k" * 32, n) for n in range(len(chunk.rows))]}
    assert event.keys == [hash_value(b"k" * 32, f"o{n}") for n in range(len(chunk.rows))]
    assert predictions["prediction"].to_pylist() == [2.0 * n for n in range(len(chunk.rows))]
