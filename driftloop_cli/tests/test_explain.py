"""The description of a prediction, without Kafka, MLflow or a bucket."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
import pytest

from driftloop.archive import lookup
from driftloop.archive.layout import merged_path, slice_path
from driftloop.archive.settings import ArchiveSettings
from driftloop.events import DriftVerdict, Outcome, Prediction, Window, derived_event_id, event_id_time, new_event_id
from driftloop.kafka import reader
from driftloop.settings import KafkaSettings, RegistrySettings, StorageSettings
from driftloop.storage.object_store import ObjectStore, StoredObject
from driftloop_cli import explain as explain_module
from driftloop_cli.explain import ExplainedVersion, Explanation, explanation_of, why_not_found
from driftloop_cli.explain_search import LocatedPrediction, locate, outcomes_of
from driftloop_cli.explanation_lines import MAX_ROWS, explanation_lines
from driftloop_cli.row_keys import rows_of_keys
from driftloop_cli.settings import StorageCliSettings

NOW = datetime.now(UTC)
WINDOW = Window(topic="predictions", partition=0, first_offset=0, last_offset=9)
ARCHIVE_PATH = f"slices/predictions/{WINDOW.name}.parquet"
ARCHIVE = f"gs://b/{ARCHIVE_PATH}"
SETTINGS = StorageCliSettings(kafka=KafkaSettings(), registry=RegistrySettings(model="m"))
NO_OUTCOMES = pd.DataFrame(columns=["_id", "_row", "_time", "outcome"])


class DisappearingStore(ObjectStore):
    """A store of which some objects are deleted after a listing."""

    def __init__(self, folder: Path) -> None:
        super().__init__(StorageSettings(url=folder.as_uri()))
        self.deleted: set[str] = set()

    def list_objects(self, prefix: str) -> list[StoredObject]:
        gone = {path for path in self.deleted if path.startswith(prefix)}
        self.deleted -= gone
        return super().list_objects(prefix) + [StoredObject(path, 1, datetime.now(UTC)) for path in gone]


@pytest.fixture
def store(tmp_path: Path) -> DisappearingStore:
    return DisappearingStore(tmp_path)


@pytest.fixture
def topic_events(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Events by topic, as the reader returns them."""
    events: dict[str, list[Any]] = {}
    monkeypatch.setattr(reader, "read_since", lambda _, topic, *__: iter(events.get(topic, [])))
    monkeypatch.setattr(reader, "read_last", lambda _, topic, __: events.get(topic, []))
    monkeypatch.setattr(reader, "read_window", lambda _, window, *__: iter(events.get(window.topic, [])))
    return events


def prediction_event(prediction_id: str) -> Prediction:
    return Prediction(id=prediction_id, model="m", version="1", features={"x": [1.0, None]}, predictions=[0.25, 0.5])


def verdict(*archive: str, version: str = "1", **fields: object) -> DriftVerdict:
    files = list(archive or [ARCHIVE])
    about = {"window": WINDOW, "model": "m", "version": version, "rows": 20, "verdict": "no_drift", "archive": files}
    times = {"first_prediction_at": NOW, "last_prediction_at": NOW, "explanation": "score 1, threshold 2"}
    return DriftVerdict.model_validate({**about, **times, **fields})


def located(rows: int = 2, **fields: Any) -> LocatedPrediction:
    cells = [(n / 10, {"x": n, "y": None}) for n in range(rows)]
    empty = LocatedPrediction("m", "1", NOW, cells, None, None, None)
    return empty._replace(**fields)


def archived_rows(prediction_id: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "_id": ["other", prediction_id, prediction_id],
            "_row": [0, 1, 0],
            "_time": pd.Timestamp("2013-07-01", tz="UTC"),
            "_model": "m",
            "_version": "1",
            "_prediction": [0.9, 0.5, 0.25],
            "_key": [None, "order-18", None],
            "_offset": [WINDOW.first_offset, WINDOW.first_offset + 1, WINDOW.first_offset + 1],
            "x": [0.0, 2.0, 1.0],
        }
    )


def test_event_id_time_is_the_time_of_a_uuid7_and_none_for_other_ids() -> None:
    time = event_id_time(new_event_id())
    assert time is not None
    assert abs(time - datetime.now(UTC)) < timedelta(minutes=1)
    assert event_id_time("my-own-id") is None
    assert event_id_time("6fa459ea-ee8a-4ca4-894e-db77e160355e") is None  # a UUIDv4


@pytest.mark.parametrize("prediction_id", [new_event_id(), "my-own-id"], ids=["own", "foreign"])
def test_locate_finds_archived_prediction_with_its_verdict(
    prediction_id: str, store: Any, topic_events: dict[str, list[Any]]
) -> None:
    store.write_parquet(f"slices/predictions/{WINDOW.name}.parquet", archived_rows(prediction_id))
    event = prediction_event(prediction_id)
    topic_events["predictions"] = [prediction_event("other"), event]
    topic_events["drift"] = [
        verdict("gs://b/slices/deleted-0-0-0.parquet"),
        verdict(version="2"),
        verdict(replayed=True, explanation="replayed"),
        verdict(),
    ]
    found = locate(SETTINGS, store, prediction_id)
    assert found is not None
    assert found.rows == [(0.25, {"x": 1.0}), (0.5, {"x": 2.0})]  # sorted by row
    assert (found.archive, found.event) == (store.url(ARCHIVE_PATH), event)
    assert found.keys == (None, "order-18")
    assert found.verdict is not None
    assert (found.verdict.version, found.verdict.explanation) == ("1", "score 1, threshold 2")


@pytest.mark.usefixtures("topic_events")
def test_rows_that_are_left_of_a_request_keep_their_numbers(store: Any) -> None:
    prediction_id = new_event_id()
    rows = archived_rows(prediction_id)
    store.write_parquet(ARCHIVE_PATH, rows[rows["_row"] == 1])
    found = locate(SETTINGS, store, prediction_id)
    assert found is not None
    (row,) = explanation_of(store, prediction_id, found, NO_OUTCOMES).rows
    assert (row.row, row.key, row.prediction, row.features) == (1, "order-18", 0.5, {"x": 2.0})


def test_locate_finds_prediction_in_a_slice_that_was_merged(store: Any, topic_events: dict[str, list[Any]]) -> None:
    prediction_id = new_event_id()
    merged = WINDOW.model_copy(update={"first_offset": 0, "last_offset": WINDOW.last_offset + 1_000})
    rows = pd.concat([archived_rows(prediction_id), archived_rows("other")]).assign(_offset=WINDOW.last_offset)
    store.write_parquet(merged_path(merged, datetime.now(UTC).date()), rows)
    topic_events["drift"] = [verdict()]
    found = locate(SETTINGS, store, prediction_id)
    assert found is not None
    assert found.rows == [(0.25, {"x": 1.0}), (0.5, {"x": 2.0})]
    assert found.archive == store.url(merged_path(merged, datetime.now(UTC).date()))
    assert found.verdict is not None


def test_locate_finds_the_window_of_the_version_among_those_that_share_the_slice(
    store: Any, topic_events: dict[str, list[Any]]
) -> None:
    prediction_id = new_event_id()
    store.write_parquet(f"slices/predictions/{WINDOW.name}.parquet", archived_rows(prediction_id))
    others = [verdict(version="2") for _ in range(100)]
    topic_events["drift"] = [*others, verdict("gs://b/slices/other-0-0-9.parquet", ARCHIVE, explanation="at last")]
    found = locate(SETTINGS, store, prediction_id)
    assert found is not None
    assert found.archive == store.url(ARCHIVE_PATH)
    assert found.verdict is not None
    assert (found.verdict.version, found.verdict.explanation) == ("1", "at last")
    topic_events["drift"] = others
    open_window = locate(SETTINGS, store, prediction_id)
    assert open_window is not None
    assert (open_window.archive, open_window.verdict) == (store.url(ARCHIVE_PATH), None)


def test_locate_finds_prediction_of_open_window_on_the_topic(store: Any, topic_events: dict[str, list[Any]]) -> None:
    event = prediction_event(new_event_id())
    topic_events["predictions"] = [event]
    found = locate(SETTINGS, store, event.id)
    assert found == LocatedPrediction("m", "1", event.time, [(0.25, {"x": 1.0}), (0.5, {"x": None})], None, None, event)


@pytest.mark.usefixtures("topic_events")
@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(hours=-1)], ids=["ahead", "behind"])
def test_prediction_of_a_wrong_clock_is_found_with_its_outcomes(store: Any, ahead: timedelta) -> None:
    prediction_id = derived_event_id(NOW + ahead, "wrong")
    store.write_parquet(ARCHIVE_PATH, archived_rows(prediction_id))
    outcome = {"_id": [prediction_id], "_row": 0, "_time": NOW, "_model": None, "_key": None, "outcome": 1.0}
    window = WINDOW.model_copy(update={"topic": "outcomes"})
    store.write_parquet(slice_path(window), pd.DataFrame({**outcome, "outcome_label": None}))
    found = locate(SETTINGS, store, prediction_id)
    assert found is not None
    assert outcomes_of(SETTINGS, store, prediction_id, found)["outcome"].tolist() == [1.0]


@pytest.mark.parametrize("prediction_id", [new_event_id(), "my-own-id"], ids=["own", "foreign"])
def test_locate_returns_none_for_unknown_prediction(
    prediction_id: str, store: Any, topic_events: dict[str, list[Any]]
) -> None:
    topic_events["drift"] = [verdict()]
    assert locate(SETTINGS, store, prediction_id) is None


def test_outcomes_come_from_archive_and_topic_sorted_by_time(store: Any, topic_events: dict[str, list[Any]]) -> None:
    name = Window(topic="outcomes", partition=0, first_offset=0, last_offset=9).name
    store.write_parquet(
        f"slices/outcomes/{name}.parquet",
        pd.DataFrame(
            {
                "_id": ["a", "b", "c"],
                "_row": 0,
                "_time": NOW,
                "outcome": [1.0, 0.0, None],
                "outcome_label": [None, None, "late"],
                "_model": None,
                "_key": None,
            }
        ),
    )
    store.deleted.add(f"slices/outcomes/{name.replace('-0-', '-1-')}.parquet")
    earlier = Outcome(prediction_id="a", index=0, outcome=0, time=NOW - timedelta(days=1))
    topic_events["outcomes"] = [earlier, Outcome(prediction_id="c", index=0, outcome=1)]
    outcomes = outcomes_of(SETTINGS, store, "a")
    assert outcomes["outcome"].tolist() == [0.0, 1.0]
    assert set(outcomes["_id"]) == {"a"}

    assert outcomes_of(SETTINGS, store, "c")["outcome"].tolist() == ["late", 1]


def test_outcomes_are_empty_if_none_was_reported(store: Any, topic_events: dict[str, list[Any]]) -> None:
    assert not topic_events
    assert outcomes_of(SETTINGS, store, "a").empty


def explain(
    store: Any, prediction: LocatedPrediction, outcomes: pd.DataFrame = NO_OUTCOMES, **fields: Any
) -> Explanation:
    return explanation_of(store, "some-id", prediction, outcomes).model_copy(update=fields)


def row_lines(explanation: Explanation) -> list[tuple[str, str]]:
    lines = list(explanation_lines(explanation))
    return lines[1 : next(number for number, (label, _) in enumerate(lines) if label == "window")]


def test_explanation_of_rows_has_features_prediction_and_outcome(store: Any) -> None:
    outcomes = pd.DataFrame({"_row": [1], "_time": [NOW], "outcome": [1.0]})
    explanation = explain(store, located(), outcomes)
    assert explanation.rows[1].model_dump() == {
        "row": 1,
        "key": None,
        "features": {"x": 1, "y": None},
        "prediction": 0.1,
        "outcomes": [{"outcome": 1.0, "time": NOW}],
    }
    lines = row_lines(explanation)
    assert [label for label, _ in lines] == ["row 0", "  prediction", "  outcome", "row 1", "  prediction", "  outcome"]
    assert [text for _, text in lines[:3]] == ["x=0, y=–", "0.0", "not reported yet"]
    assert lines[5][1] == f"1, known at {NOW:%Y-%m-%d %H:%M}"


def test_explanation_shows_a_limited_number_of_rows(store: Any) -> None:
    assert row_lines(explain(store, located(MAX_ROWS + 5)))[-1] == ("", "5 more rows: choose one with --row")


def test_explanation_of_outcomes_has_the_last_one_first(store: Any) -> None:
    times = [datetime(2013, 7, day, tzinfo=UTC) for day in (1, 2)]
    outcomes = pd.DataFrame({"_row": [0, 0], "_time": times, "outcome": [0.0, 1.0]})
    assert row_lines(explain(store, located(1), outcomes))[-1] == (
        "  outcome",
        "1, known at 2013-07-02 00:00 (corrected: before it was 0, known at 2013-07-01 00:00)",
    )


def test_explanation_of_window_depends_on_archive_verdict_and_report(store: Any) -> None:
    open_window = dict(explanation_lines(explain(store, located())))
    assert open_window["window"] == "not judged yet: its window is still open"
    assert "verdict" not in open_window
    archived = located(archive=ARCHIVE)
    assert dict(explanation_lines(explain(store, archived)))["verdict"].startswith("not among the verdicts")
    judged = dict(explanation_lines(explain(store, archived._replace(verdict=verdict()))))
    assert judged["verdict"] == "no_drift, on 20 rows of version 1: score 1, threshold 2"
    assert judged["window"] == f"{WINDOW.name} ({ARCHIVE})"
    report = f"reports/m/1/{WINDOW.name}.html"
    store.write(report, b"")
    explained = explain(store, archived._replace(verdict=verdict()))
    assert explained.report == dict(explanation_lines(explained))["report"] == store.url(report)


def test_explanation_of_reference_says_whether_it_is_complete(store: Any) -> None:
    assert dict(explanation_lines(explain(store, located())))["  reference"].startswith("missing")
    store.write("references/m/1/profile.json", b"")
    assert dict(explanation_lines(explain(store, located())))["  reference"] == store.url("references/m/1")


def test_explain_names_the_reference_of_the_run_that_predicted(store: Any) -> None:
    store.write("references/m/1/last_run", b"second")
    of_first = located(run_id="first")
    assert explain(store, of_first).reference == store.url("references/m/1/first")
    assert explain(store, located()).reference == store.url("references/m/1/second")


def test_located_prediction_has_the_verdict_and_the_run_of_its_version(
    store: Any, topic_events: dict[str, list[Any]]
) -> None:
    prediction_id = new_event_id()
    store.write_parquet(
        f"slices/predictions/{WINDOW.name}.parquet", archived_rows(prediction_id).assign(_run_id="first")
    )
    topic_events["drift"] = [verdict(run_id="second"), verdict(), verdict(run_id="first", explanation="the first")]
    found = locate(SETTINGS, store, prediction_id)
    assert found is not None
    assert found.run_id == "first"
    assert found.verdict is not None
    assert found.verdict.explanation == "the first"


def test_explanation_of_version_has_its_revision_and_who_requested_it(store: Any) -> None:
    version = ExplainedVersion(
        aliases=["champion"],
        description="promoted: it is better\n\n[Drift of this version](http://worker/?model=m&version=1)\n\nin service",
        run_id="abc",
        run_url="http://mlflow/abc",
        retrain_id="r",
        requested_by="root",
        reason="it is summer",
        git_revision="123-dirty",
        data={"data_selection": "{}"},
        dataset_files={"dataset/m.parquet.dvc": "outs:\n- md5: d9e6\n  size: 4251102\n  path: m.parquet\n"},
    )
    lines = dict(explanation_lines(explain(store, located(), registered=version)))
    assert lines["version"] == "1 @champion"
    assert lines["  retrain"] == "r, requested by root: it is summer"
    assert lines["  git revision"] == "123-dirty"
    assert lines["  result"].splitlines() == ["promoted: it is better", "in service"]
    assert lines["  drift pages"] == "http://worker/?model=m&version=1"
    assert (lines["  data selection"], lines["  dataset"]) == ("{}", "m.parquet, 4,251,102 bytes, md5 d9e6")
    unknown = dict(explanation_lines(explain(store, located(), registry_error="no registry")))
    assert unknown["version"] == "1; its origin cannot be read from the registry: no registry"


def keyed_event(days: int, *keys: str | None, model: str = "m") -> Prediction:
    """A prediction of some days ago, whose rows have keys."""
    rows: dict[str, Any] = {"features": {"x": [1.0] * len(keys)}, "predictions": [0.25] * len(keys)}
    return Prediction(model=model, version="1", keys=list(keys), time=NOW - timedelta(days=days), **rows)


def test_outcomes_with_a_key_are_those_of_the_latest_row_before_them(
    store: Any, topic_events: dict[str, list[Any]]
) -> None:
    first, second = keyed_event(9, "order-17", None), keyed_event(5, "order-17")
    topic_events["predictions"] = [second, first, keyed_event(4, "order-17", model="another")]
    window = Window(topic="outcomes", partition=0, first_offset=0, last_offset=9)
    known = [NOW - timedelta(days=days) for days in (10, 6, 3)]
    store.write_parquet(
        f"slices/outcomes/{window.name}.parquet",
        pd.DataFrame(
            {"_id": None, "_row": None, "_time": known, "_model": "m", "_key": "order-17", "outcome": [0.0, 1.0, 2.0]}
        ).assign(outcome_label=None),
    )
    topic_events["outcomes"] = [Outcome(model="m", key="order-17", outcome="late", time=NOW - timedelta(days=7))]
    located = {event.id: locate(SETTINGS, store, event.id) for event in (first, second)}
    outcomes = {event_id: outcomes_of(SETTINGS, store, event_id, found) for event_id, found in located.items()}
    assert outcomes[first.id]["outcome"].tolist() == ["late", 1.0]
    assert outcomes[first.id]["_row"].tolist() == [0, 0]
    assert outcomes[second.id]["outcome"].tolist() == [2.0]


def test_rows_of_a_key_come_from_archive_and_topic_sorted_by_time(
    store: Any, topic_events: dict[str, list[Any]]
) -> None:
    store.write_parquet(f"slices/predictions/{WINDOW.name}.parquet", archived_rows("archived"))
    event = keyed_event(1, None, "order-18")
    topic_events["predictions"] = [event, keyed_event(1, "order-19")]
    rows = rows_of_keys(SETTINGS, store, ["order-18"])
    assert list(zip(rows["_id"], rows["_row"], strict=True)) == [("archived", 1), (event.id, 1)]
    assert rows_of_keys(SETTINGS, store, ["order-20"]).empty


def keyed_slice(store: ObjectStore, at: datetime, partition: int, first_offset: int, *rows: tuple[str, str]) -> str:
    """Write a slice of predictions with ids and keys, by the store's clock at a time; return its path."""
    window = Window(topic="predictions", partition=partition, first_offset=first_offset, last_offset=first_offset + 9)
    ids, keys = zip(*rows, strict=True)
    table = pd.DataFrame({"_id": ids, "_row": 0, "_time": at, "_model": "m", "_key": keys})
    path = slice_path(window)
    store.write_parquet(path, table)
    os.utime(Path(store.url(path).removeprefix("file://")), (at.timestamp(), at.timestamp()))
    return path


@pytest.fixture
def few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search two files."""
    monkeypatch.setattr(lookup, "MAX_FILES", 2)


@pytest.mark.usefixtures("few_files")
def test_outcomes_by_key_are_found_however_many_files_are_newer(store: Any, topic_events: dict[str, list[Any]]) -> None:
    event = keyed_event(5, "order-17")
    topic_events["outcomes"] = [Outcome(model="m", key="order-17", outcome=1, time=NOW - timedelta(days=4))]
    topic_events["predictions"] = [event]
    prediction = locate(SETTINGS, store, event.id)
    topic_events["predictions"] = []
    for day in range(5):
        keyed_slice(store, NOW - timedelta(days=5 - day), 0, 10 * day, (event.id if day == 0 else f"{day}", "order-17"))
    assert outcomes_of(SETTINGS, store, event.id, prediction)["outcome"].tolist() == [1]
    for path in store.list_paths("slices/predictions/"):  # the row is not archived where it is looked for
        store.delete(path)
    assert outcomes_of(SETTINGS, store, event.id, prediction)["outcome"].tolist() == [1]


@pytest.mark.usefixtures("few_files", "topic_events")
def test_key_is_looked_for_in_the_latest_files_of_all_partitions(store: Any) -> None:
    for day in range(3):
        keyed_slice(store, NOW - timedelta(days=9 - day), 0, 10**9 + 10 * day, (f"old-{day}", "order-17"))
    keyed_slice(store, NOW - timedelta(days=1), 1, 10, ("new", "order-17"))
    assert rows_of_keys(SETTINGS, store, ["order-17"])["_id"].tolist() == ["old-2", "new"]


def merged_during_reading(store: ObjectStore, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Merge a slice once it is read."""
    read = store.read

    def merge(wanted: str) -> bytes:
        if wanted != path:
            return read(wanted)
        monkeypatch.setattr(store, "read", read)
        store.write(merged_path(Window.parse(path), NOW.date()), read(path))
        store.delete(path)
        return read(wanted)

    monkeypatch.setattr(store, "read", merge)


def test_key_is_found_in_a_slice_that_is_merged_during_the_search(
    store: Any, topic_events: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not topic_events
    merged_during_reading(store, keyed_slice(store, NOW, 0, 0, ("wanted", "order-17")), monkeypatch)
    assert rows_of_keys(SETTINGS, store, ["order-17"])["_id"].tolist() == ["wanted"]


@pytest.mark.usefixtures("topic_events")
def test_outcomes_of_slices_that_are_merged_during_the_search_are_found_once(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pd.DataFrame({"_id": ["a"], "_row": 0, "_time": NOW, "_model": None, "_key": None, "outcome": [1.0]})
    windows = [Window(topic="outcomes", partition=0, first_offset=first, last_offset=first + 9) for first in (0, 10)]
    for window in windows:
        store.write_parquet(slice_path(window), rows.assign(outcome_label=None))
    merged_during_reading(store, slice_path(windows[1]), monkeypatch)
    assert outcomes_of(SETTINGS, store, "a")["outcome"].tolist() == [1.0, 1.0]


def test_message_about_a_key_says_how_far_back_it_was_looked_for(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in range(3):
        keyed_slice(store, datetime(2026, 11, 1 + day, tzinfo=UTC), 0, 10 * day, (f"{day}", "order-17"))
    settings = SETTINGS.model_copy(update={"storage": StorageSettings(url=tmp_path.as_uri())})
    assert why_not_found(settings, "order-18").endswith("all 3 files of the archive were searched, back to 2026-11-01")
    monkeypatch.setattr(lookup, "MAX_FILES", 2)
    expected = "the latest 2 of 3 files of the archive were searched, back to 2026-11-02"
    assert why_not_found(settings, "order-18").endswith(expected)


def test_explanation_of_a_row_has_its_key(store: Any) -> None:
    lines = list(explanation_lines(explain(store, located(keys=("order-17", None)))))
    assert [text for label, text in lines if label == "  key"] == ["order-17"]


def test_explanation_by_key_is_of_the_row_that_was_predicted_last(
    monkeypatch: pytest.MonkeyPatch, store: Any, topic_events: dict[str, list[Any]]
) -> None:
    earlier, later = keyed_event(3, "order-17"), keyed_event(2, None, "order-17")
    topic_events["predictions"] = [later, earlier]
    monkeypatch.setattr(explain_module, "ObjectStore", lambda _: store)
    monkeypatch.setattr(explain_module, "_registered_version", lambda *_: (None, "no registry"))
    explanation = explain_module.explain_prediction(SETTINGS, "order-17")
    assert explanation is not None
    assert explanation.id == later.id
    assert [(row.row, row.key) for row in explanation.rows] == [(1, "order-17")]
    assert explain_module.explain_prediction(SETTINGS, "order-18") is None


@pytest.mark.parametrize(
    ("retention_days", "age", "expected"),
    [
        (None, timedelta(days=1), "neither in the archive nor on its topic"),
        (30, timedelta(days=1), "neither in the archive nor on its topic"),
        (
            30,
            timedelta(days=40),
            "archive keeps predictions for 30 days (DRIFTLOOP_ARCHIVE__PREDICTION_RETENTION_DAYS)",
        ),
    ],
)
def test_prediction_that_is_not_found_may_be_older_than_the_archive_keeps_it(
    tmp_path: Path, retention_days: int | None, age: timedelta, expected: str
) -> None:
    made_at = int((NOW - age).timestamp() * 1_000)
    prediction_id = str(UUID(int=made_at << 80 | 7 << 76 | 2 << 62))
    settings = SETTINGS.model_copy(
        update={
            "storage": StorageSettings(url=tmp_path.as_uri()),
            "archive": ArchiveSettings(prediction_retention_days=retention_days),
        }
    )
    assert expected in why_not_found(settings, prediction_id)


def test_prediction_of_a_day_before_the_archive_is_named(tmp_path: Path) -> None:
    store = ObjectStore(StorageSettings(url=tmp_path.as_uri()))
    store.write(merged_path(WINDOW, NOW.date()), b"rows")
    made_at = int((NOW - timedelta(days=9)).timestamp() * 1_000)
    settings = SETTINGS.model_copy(update={"storage": StorageSettings(url=tmp_path.as_uri())})
    answer = why_not_found(settings, str(UUID(int=made_at << 80 | 7 << 76 | 2 << 62)))
    assert answer.endswith(f"the archive has predictions since {NOW.date()} only")


def test_key_that_is_not_found_may_be_of_an_older_row(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(
        update={
            "storage": StorageSettings(url=tmp_path.as_uri()),
            "archive": ArchiveSettings(prediction_retention_days=30),
        }
    )
    assert why_not_found(settings, "order-7").endswith(
        "the archive keeps predictions for 30 days (DRIFTLOOP_ARCHIVE__PREDICTION_RETENTION_DAYS)"
    )
