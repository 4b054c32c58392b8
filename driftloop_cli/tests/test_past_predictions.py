"""Predictions of the past become events of their own time, with ids that a second import repeats."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from driftloop.errors import InvalidInput
from driftloop.events import ID_COLUMN, Event, Outcome, Prediction, is_new_event_id
from driftloop.kafka.bulk_publisher import shared_headers
from driftloop.kafka.codec import decode
from driftloop.privacy import Privacy, hash_value
from driftloop.storage.archive_files import ArchiveFiles
from driftloop_cli.files.past_predictions import ImportCounts, PredictionColumns, prepare_predictions
from driftloop_cli.files.source import Source, open_source, prepared_events
from tests.support.synthetic_usecase import make_use_case

USE_CASE = replace(
    make_use_case(),
    feature_kinds={"x": "number", "c": "category", "b": "boolean", "d": "datetime", "t": "text"},
    classes=("no", "yes"),
)
COLUMNS = PredictionColumns("score", "time", outcome="outcome")
ROWS = pd.DataFrame(
    {
        "time": pd.to_datetime(["2013-07-03", "2013-07-01", "2013-07-01"], utc=True),
        "x": [1.5, None, None],
        "c": ["UA", None, None],
        "b": [True, None, None],
        "d": [pd.Timestamp("2013-06-01"), None, None],
        "t": ["text", None, None],
        "score": [0.25, 0.5, 0.5],
        "outcome": ["yes", None, "no"],
        "order": ["o1", "o2", "o3"],
    }
)
TYPED = "SELECT * REPLACE (t::VARCHAR AS t, d::TIMESTAMP AS d, b::BOOLEAN AS b, c::VARCHAR AS c) FROM rows"


@contextmanager
def opened(folder: Path, rows: pd.DataFrame = ROWS) -> Iterator[Source]:
    rows.to_parquet(folder / "past.parquet")
    with open_source(folder / "past.parquet", TYPED, [], "UTC") as source:
        yield source


def events_of(source: Source, view: str, event: type[Event]) -> list[Event]:
    return [
        decode(
            e.value.encode(), [*shared_headers(event, "cli"), ("ce_id", e.id.encode()), ("ce_time", e.time.encode())]
        )
        for e in prepared_events(source, view)
    ]


def test_rows_become_events_in_the_order_of_their_times(tmp_path: Path) -> None:
    with opened(tmp_path) as source:
        counts = prepare_predictions(source, COLUMNS, USE_CASE, "old", ArchiveFiles())
        predictions, outcomes = events_of(source, "events", Prediction), events_of(source, "outcome_events", Outcome)
    assert counts == ImportCounts(rows=3, repeated=0, with_outcome=2, to_publish=3)
    first, _, last = (event for event in predictions if isinstance(event, Prediction))
    assert (last.time, last.version, last.imported) == (datetime(2013, 7, 3, tzinfo=UTC), "old", True)
    assert (last.predictions, last.classes) == ([0.25], ["no", "yes"])
    assert [last.features[name] for name in "xcbt"] == [[1.5], ["UA"], [True], ["text"]]
    assert str(last.features["d"][0]).startswith("2013-06-01T00:00:00")
    assert set(map(str, first.features.values())) == {"[None]"}
    assert all(is_new_event_id(event.id) for event in predictions)
    assert len({event.id for event in predictions}) == 3
    assert {(e.prediction_id, e.outcome) for e in outcomes if isinstance(e, Outcome)} == {
        (last.id, "yes"),
        (predictions[1].id, "no"),
    }


@pytest.mark.parametrize("key", [None, "order"], ids=["values", "keys"])
def test_second_import_gives_the_same_events_and_leaves_out_the_archived(key: str | None, tmp_path: Path) -> None:
    columns = COLUMNS._replace(key=key)
    with opened(tmp_path) as source:
        prepare_predictions(source, columns, USE_CASE, "old", ArchiveFiles())
        ids = [event.id for event in prepared_events(source, "events")]
    pd.DataFrame({ID_COLUMN: ids[:1]}).to_parquet(tmp_path / "archived.parquet")
    with opened(tmp_path) as source:
        archive = ArchiveFiles([tmp_path / "archived.parquet"])
        counts = prepare_predictions(source, columns, USE_CASE, "old", archive)
        assert [event.id for event in prepared_events(source, "events")] == ids[1:]
    assert (counts.repeated, counts.to_publish) == (1, 2)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("score", [0.5, 1.5, 0.1], "row 2, column score"),
        ("score", [0.5, None, 0.1], "row 2, column score"),
        ("x", [0.5, float("inf"), 0.1], "row 2, column x"),
        ("x", ["a", "b", "c"], "column x has the type VARCHAR"),
    ],
    ids=["probability", "missing", "infinite", "type"],
)
def test_invalid_values_are_named(column: str, values: list[object], message: str, tmp_path: Path) -> None:
    with (
        opened(tmp_path, ROWS.assign(**{column: pd.Series(values)})) as source,
        pytest.raises(InvalidInput, match=message),
    ):
        prepare_predictions(source, COLUMNS, USE_CASE, "old", ArchiveFiles())


def test_missing_feature_is_named(tmp_path: Path) -> None:
    other = replace(USE_CASE, feature_kinds={"z": "number"})
    with opened(tmp_path) as source, pytest.raises(InvalidInput, match="no column z"):
        prepare_predictions(source, COLUMNS, other, "old", ArchiveFiles())


KEY = b"k" * 32
PRIVACY = Privacy({"x": "hash", "c": "hash", "b": "hash", "d": "hash", "t": "drop"}, hashes_keys=True, hash_key=KEY)


def test_private_columns_are_imported_as_the_predictor_would_have_published_them(tmp_path: Path) -> None:
    with opened(tmp_path) as source:
        columns = COLUMNS._replace(key="order")
        prepare_predictions(source, columns, USE_CASE, "old", ArchiveFiles(), PRIVACY)
        *_, last = events_of(source, "events", Prediction)
        outcomes = events_of(source, "outcome_events", Outcome)
        texts = [event.value for view in ("events", "outcome_events") for event in prepared_events(source, view)]
    assert isinstance(last, Prediction)
    true_values: dict[str, list[Any]] = {"x": [1.5], "c": ["UA"], "b": [True], "d": [datetime(2013, 6, 1)]}
    assert last.features == PRIVACY.treat_features(true_values)
    assert last.keys == [hash_value(KEY, "o1")]
    assert len(outcomes) == 2
    assert not [text for text in texts if "UA" in text or "o1" in text or '"text"' in text]


def test_ids_of_imported_predictions_are_made_of_what_is_published(tmp_path: Path) -> None:
    """An id that was a plain hash of a key would lead back to it."""
    with opened(tmp_path) as source:
        prepare_predictions(source, COLUMNS._replace(key="order"), USE_CASE, "old", ArchiveFiles(), PRIVACY)
        private = {event.id for event in events_of(source, "events", Prediction)}
    with opened(tmp_path) as source:
        prepare_predictions(source, COLUMNS._replace(key="order"), USE_CASE, "old", ArchiveFiles())
        plain = {event.id for event in events_of(source, "events", Prediction)}
    assert len(private) == len(plain) == 3
    assert not private & plain


def test_rows_without_a_key_whose_features_are_all_dropped_are_imported_once_each(tmp_path: Path) -> None:
    dropped = Privacy(dict.fromkeys(USE_CASE.features, "drop"))
    with opened(tmp_path) as source:
        counts = prepare_predictions(source, COLUMNS, USE_CASE, "old", ArchiveFiles(), dropped)
        events = events_of(source, "events", Prediction)
    assert (counts.to_publish, len(events)) == (3, 3)
    assert all(isinstance(event, Prediction) and event.features == {} for event in events)
