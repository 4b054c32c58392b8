"""Erasing predictions and outcomes, on an in-memory broker and a store in a folder."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from driftloop import archive
from driftloop.archive import erasures
from driftloop.archive.erasures import Erasure, Tombstones
from driftloop.archive.file_metadata import DAY_KEY
from driftloop.archive.layout import list_files, list_slices, slice_path
from driftloop.archive.tables import outcomes_table, predictions_table
from driftloop.errors import ArchiveUnreadable, InvalidInput, Rejected, StorageUnavailable
from driftloop.events import Event, Outcome, Prediction, Window, derived_event_id
from driftloop.kafka.codec import Message, decode_record, encode
from driftloop.kafka.dead_letters import to_dead_letter
from driftloop.privacy import hash_value
from driftloop.privacy_settings import SourcePrivacySettings
from driftloop.settings import RegistrySettings, StorageSettings
from driftloop.storage.object_store import ObjectStore
from driftloop_cli.archive import erase_copies
from driftloop_cli.archive.erase import Eraser, Request
from driftloop_cli.archive.erase_copies import erase_from_reference, find_datasets, find_references
from driftloop_cli.main import app
from driftloop_cli.settings import StorageCliSettings
from tests.support.archived_rows import damage
from tests.support.fake_kafka import KAFKA, FakeBroker
from tests.support.folder_store import folder_store

BEGIN = datetime.now(UTC) - timedelta(days=2)
EVENTS, ARCHIVED, PER_SLICE = 12, 9, 3
KEY = "somebody-5d1e"
"""The key of a row of the events 1, 4, 7 and 10; of these, 10 is not archived."""


class System:
    """An archive with three slices of predictions, and topics with more than these."""

    def __init__(self, folder: Path, broker: FakeBroker) -> None:
        self.broker = broker
        self.store = folder_store(folder)
        self.settings = StorageCliSettings(
            kafka=KAFKA, registry=RegistrySettings(model="m"), storage=StorageSettings(url=folder.as_uri())
        )
        self.predictions = [self._prediction(number) for number in range(EVENTS)]
        self.outcomes = [
            outcome
            for number, event in enumerate(self.predictions)
            for outcome in (
                Outcome(time=event.time + timedelta(minutes=1), prediction_id=event.id, index=0, outcome=1),
                Outcome(time=event.time + timedelta(minutes=2), model="m", key=f"other-{number}", outcome=0),
                Outcome(time=event.time + timedelta(minutes=3), model="m", key=KEY, outcome=0),
            )
        ]
        self._publish("predictions", self.predictions, ARCHIVED, predictions_table)
        self._publish("outcomes", self.outcomes, 3 * ARCHIVED, outcomes_table)

    def _prediction(self, number: int) -> Prediction:
        time = BEGIN + timedelta(hours=number)
        return Prediction(
            id=derived_event_id(time, str(number)),
            time=time,
            model="m" if number != 7 else "another",
            version="1",
            features={"x": [float(number), number + 0.5], "who": [f"p{number}", "both"]},
            predictions=[0.1, 0.2],
            keys=[f"other-{number}", KEY if number % 3 == 1 else None],
            context={"agent": [f"a{number}", "same"]},
        )

    def _publish(self, topic: str, events: Sequence[Event], archived: int, to_table: Callable[..., pa.Table]) -> None:
        for event in events:
            self.broker.append(topic, encode(event, "test"), timestamp=event.time.timestamp() + 1)
        for first in range(0, archived, PER_SLICE):
            window = Window(topic=topic, partition=0, first_offset=first, last_offset=first + PER_SLICE - 1)
            table = to_table(events[first : first + PER_SLICE], range(first, first + PER_SLICE))
            day = {DAY_KEY: BEGIN.date().isoformat()}
            self.store.write_parquet(slice_path(window), table.replace_schema_metadata(day))

    def erase(self, **request: Any) -> Erasure:
        eraser = Eraser(self.settings, lambda _: None)
        found = eraser.find(Request(**request), "me@here", "asked to")
        return eraser.erase(found) if found.partitions else found

    def archived(self, topic: str) -> pd.DataFrame:
        return pd.concat([self.store.read_parquet(file.path) for file in list_files(self.store, topic)])

    def rows(self) -> set[tuple[int, int]]:
        """Return offset and row of the archived rows of predictions."""
        rows = self.archived("predictions")
        return set(zip(rows["_offset"].astype(int), rows["_row"].astype(int), strict=True))

    def seen(self, topic: str) -> dict[int, Event]:
        """Return by offset what readers of a topic see."""
        tombstones = Tombstones(self.store)
        records = self.broker.messages(topic)
        left = {record.offset: tombstones.event_left(record, decode_record(record)) for record in records}
        return {offset: event for offset, event in left.items() if event is not None}


ALL_ROWS = {(offset, row) for offset in range(ARCHIVED) for row in range(2)}


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    broker = FakeBroker(monkeypatch, {"predictions": 1, "outcomes": 1, "predictions.dlq": 1, "outcomes.dlq": 1})
    return System(tmp_path / "store", broker)


def test_prediction_is_erased_by_id_with_its_outcomes(system: System) -> None:
    erasure = system.erase(ids=frozenset([system.predictions[4].id]))
    assert system.rows() == ALL_ROWS - {(4, 0), (4, 1)}
    left = set(system.archived("outcomes")["_offset"].astype(int))
    # By its id; by the key of its first row; and by that of its second one, until the next prediction of this key.
    assert set(range(3 * ARCHIVED)) - left == {12, 13, 14, 17, 20, 23, 26}
    assert {offset for offset in range(EVENTS) if offset not in system.seen("predictions")} == {4}
    assert set(range(3 * EVENTS)) - set(system.seen("outcomes")) == {12, 13, 14, 17, 20, 23, 26, 29}
    assert erasure.counts["predictions"].model_dump() == {"archived_rows": 2, "unarchived_rows": 0, "messages": 1}
    assert erasure.counts["outcomes"].model_dump() == {"archived_rows": 7, "unarchived_rows": 1, "messages": 8}
    assert erasure.done_at is not None


def predicted_by(system: System, ahead: timedelta) -> Prediction:
    """Archive a prediction of now by a predictor whose clock is wrong, and publish its outcome."""
    time = datetime.now(UTC) + ahead
    event = Prediction(
        id=derived_event_id(time, "wrong"), time=time, model="m", version="1", features={"x": [1.0]}, predictions=[0.1]
    ).model_copy(update={"keys": ["its-key"]})
    reported = Outcome(time=time, prediction_id=event.id, index=0, outcome=1)
    made: dict[str, Event] = {"predictions": event, "outcomes": reported}
    offsets = [system.broker.append(topic, encode(each, "test")) for topic, each in made.items()]
    tables = predictions_table([event], offsets[:1]), outcomes_table([reported], offsets[1:])
    for topic, offset, table in zip(made, offsets, tables, strict=True):
        window = Window(topic=topic, partition=0, first_offset=offset, last_offset=offset)
        system.store.write_parquet(slice_path(window), table)
    return event


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(hours=-1)], ids=["ahead", "behind"])
@pytest.mark.parametrize("by_key", [True, False])
def test_prediction_of_a_wrong_clock_is_erased(system: System, *, ahead: timedelta, by_key: bool) -> None:
    event = predicted_by(system, ahead)
    request = {"keys": frozenset(["its-key"])} if by_key else {"ids": frozenset([event.id])}
    assert system.erase(**request).done_at is not None
    for topic in ("predictions", "outcomes"):
        assert event.id not in set(system.archived(topic)["_id"])
        assert all(event.id not in each.model_dump_json() for each in system.seen(topic).values())


def test_prediction_that_is_not_archived_yet_is_erased(system: System) -> None:
    system.erase(ids=frozenset([system.predictions[11].id]))
    assert system.rows() == ALL_ROWS
    assert 11 not in system.seen("predictions")
    assert set(range(3 * EVENTS)) - set(system.seen("outcomes")) == {33, 34}


def test_rows_are_erased_by_key_everywhere(system: System) -> None:
    system.store.write("reports/m/1/predictions-0-000000000003-000000000005.html", KEY.encode())
    system.store.write("reports/m/1/predictions-0-000000000009-000000000011.html", KEY.encode())
    system.store.write("reports/m/1/predictions-0-000000000020-000000000021.html", b"another")
    system.erase(keys=frozenset([KEY]))
    assert system.rows() == ALL_ROWS - {(1, 1), (4, 1), (7, 1)}
    for path in system.store.list_paths(""):
        content = system.store.read(path)
        assert KEY.encode() not in content, path
        if path.endswith(".parquet"):
            assert KEY not in system.store.read_parquet(path).to_csv(), path
    left = system.seen("predictions")[10]
    assert isinstance(left, Prediction)
    assert left.keys == ["other-10", None]
    assert left.features["x"] == [10.0, None]
    assert all(isinstance(event, Outcome) and event.key != KEY for event in system.seen("outcomes").values())
    assert system.store.list_paths("reports/") == ["reports/m/1/predictions-0-000000000020-000000000021.html"]


def test_only_rows_of_one_model_are_erased(system: System) -> None:
    system.erase(keys=frozenset([KEY]), model="another")
    assert system.rows() == ALL_ROWS - {(7, 1)}
    assert set(system.archived("outcomes")["_offset"].astype(int)) == set(range(3 * ARCHIVED))


def test_rows_are_erased_by_a_condition(system: System) -> None:
    erasure = system.erase(condition="x >= 3.5 AND who = 'both' AND _context->>'$.agent' = 'same'")
    assert system.rows() == {(offset, row) for offset, row in ALL_ROWS if not (row == 1 and offset >= 3)}
    assert sorted(erasure.request.columns) == ["_context", "who", "x"]
    assert "same" not in erasure.model_dump_json()
    left = system.seen("predictions")[10]
    assert isinstance(left, Prediction)
    assert left.features["x"] == [10.0, None]
    assert erasure.counts["predictions"].unarchived_rows == 3


def test_condition_finds_messages_from_before_the_archive(system: System) -> None:
    """The archive may keep rows for fewer days than the topic."""
    system.store.delete(list_slices(system.store, "predictions")[0].path)
    erasure = system.erase(condition="x IN (1.5, 4.5, 10.5)")
    assert system.rows() == {(offset, row) for offset, row in ALL_ROWS if offset >= PER_SLICE} - {(4, 1)}
    left = [system.seen("predictions")[offset] for offset in (1, 4, 10)]
    assert [each.features["x"][1] for each in left if isinstance(each, Prediction)] == [None] * 3
    assert erasure.counts["predictions"].model_dump() == {"archived_rows": 1, "unarchived_rows": 2, "messages": 3}


COLUMNS: list[dict[str, Any]] = [
    {"counted": [True, False], "said": [600.0, 1.5], "when": [BEGIN, None], "empty": [None, None]},
    {"counted": [7, 1], "said": ["600", "600.0"], "when": [5, 6], "empty": [None, None]},
]
"""Features of two files that differ in their types."""


@pytest.mark.parametrize(
    "condition",
    [
        "counted = 1",
        "counted > 0 AND said = '600.0'",
        "said = '600'",
        "\"when\" = '5'",
        "\"when\" < '2030'",
        "empty IS NULL",
        "_prediction < 0.15",
        "_row = 1 AND _time > '2020-01-01'",
        "_time < now() AND _offset = 3",
    ],
)
def test_condition_means_the_rows_that_read_finds_with_it(system: System, condition: str) -> None:
    for file, cells in zip(list_slices(system.store, "predictions"), [*COLUMNS, {}], strict=True):
        rows = system.store.read_table(file.path)
        for name, values in cells.items():
            rows = rows.append_column(name, pa.array(values * PER_SLICE))
        system.store.write_parquet(file.path, rows)
    read = archive.read(where=condition, columns=["_offset", "_row"], storage=system.settings.storage).to_pylist()
    expected = {(row["_offset"], row["_row"]) for row in read}
    assert expected
    system.erase(condition=condition)
    assert ALL_ROWS - system.rows() == expected


def test_condition_finds_a_column_whatever_the_case_of_its_name(system: System) -> None:
    file = list_files(system.store, "predictions")[0]
    table = system.store.read_table(file.path)
    names = ["X" if name == "x" else name for name in table.column_names]
    system.store.write_parquet(
        file.path, table.rename_columns(names).append_column("x", pa.nulls(len(table), pa.float64()))
    )
    system.erase(condition="x = 0.5 OR X = 9.5")
    assert system.rows() == ALL_ROWS - {(0, 1), (9, 1)}


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("nobody = 1", "nobody"),
        ("x >", "syntax error"),
        ("x = 'a'", "Could not convert"),
        ("", "syntax error"),
        ("false) UNION ALL SELECT 1 WHERE (true", "syntax error"),
        ("x", "no condition but a value"),  # would be all rows in which it is not 0
        ("who", "no condition but a value"),
        ("x = (SELECT max(x) FROM rows)", "has a query in it"),  # of a part of a file it would be another one
    ],
)
def test_bad_condition_is_refused_with_the_words_of_duckdb(system: System, condition: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        system.erase(condition=condition)


def test_message_that_was_published_twice_is_erased_twice(system: System) -> None:
    """The archive has it once; read again from the beginning, the copy would be archived."""
    offset = system.broker.append("predictions", encode(system.predictions[4], "test"))
    for request in ({"condition": "x = 4.5"}, {"ids": frozenset([system.predictions[4].id])}):
        system.erase(**request)
        seen = [system.seen("predictions").get(each) for each in (4, offset)]
        assert seen[0] == seen[1]
    assert seen == [None, None]


def test_second_run_finds_nothing(system: System) -> None:
    system.erase(keys=frozenset([KEY]))
    before = system.store.list_objects("")
    again = system.erase(keys=frozenset([KEY]))
    assert again.partitions == []
    assert system.store.list_objects("") == before
    assert len(erasures.read_all(system.store)) == 1


def test_interrupted_run_is_finished_by_the_next_one(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    write = system.store.write.__func__  # type: ignore[attr-defined]
    left = [11]  # the erasure, nine files of outcomes, and one of predictions

    def fail_after_a_while(store: ObjectStore, path: str, content: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise StorageUnavailable("away")
        write(store, path, content)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "write", fail_after_a_while)
        with pytest.raises(StorageUnavailable):
            system.erase(keys=frozenset([KEY]))
    assert len(system.rows() & {(1, 1), (4, 1), (7, 1)}) == 2
    eraser = Eraser(system.settings, lambda _: None)
    for unfinished in eraser.unfinished():
        eraser.erase(unfinished)
    assert system.rows() == ALL_ROWS - {(1, 1), (4, 1), (7, 1)}
    assert eraser.unfinished() == []


def test_dead_letters_are_erased(system: System) -> None:
    record = system.broker.messages("predictions")[4]
    letter = to_dead_letter(record, ValueError("once unknown"), 900_000)
    system.broker.append("predictions.dlq", letter)
    system.broker.append("predictions.dlq", Message(b"k", b"{broken " + KEY.encode(), letter.headers))
    system.broker.append("predictions.dlq", Message(b"k", b"{broken", letter.headers))
    erasure = system.erase(keys=frozenset([KEY]))
    (part,) = [part for part in erasure.partitions if part.topic == "predictions.dlq"]
    assert part.events == [(0, 1)]


def test_hashed_keys_and_those_from_before_are_erased(system: System) -> None:
    privacy = SourcePrivacySettings(keys="hash", hash_key=SecretStr("k" * 40))
    hashed = privacy.privacy.treat_key(KEY)
    assert hashed != KEY
    rows = system.store.read_table(list_slices(system.store, "predictions")[0].path)
    keys = pa.array([hashed, *rows["_key"].to_pylist()[1:]])
    path = list_slices(system.store, "predictions")[0].path
    number = rows.column_names.index("_key")
    system.store.write_parquet(path, rows.set_column(number, "_key", keys))
    system.settings = system.settings.model_copy(update={"privacy": privacy})
    system.erase(keys=frozenset([KEY]))
    assert system.rows() == ALL_ROWS - {(0, 0), (1, 1), (4, 1), (7, 1)}
    system.erase(condition=f"_key = hashed('{KEY}') OR _key = 'other-3'")
    assert system.rows() == ALL_ROWS - {(0, 0), (1, 1), (4, 1), (7, 1), (3, 0)}


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        ("order-17", "'order-17'"),
        (17, "17"),
        (17.0, "17.0"),
        (-0.1, "-0.1"),
        (2**62 + 1, f"{2**62 + 1}"),
        (1e300, "1e300"),
        (True, "true"),
        (datetime(2026, 1, 2, 12, tzinfo=UTC), "TIMESTAMP '2026-01-02 12:00:00'"),
        (datetime(2026, 1, 2, 12, 0, 0, 500_000, tzinfo=UTC), "TIMESTAMPTZ '2026-01-02 13:00:00.5+01'"),
        (datetime(2026, 1, 2, tzinfo=UTC), "DATE '2026-01-02'"),
    ],
)
def test_condition_has_the_hash_of_any_value(system: System, value: object, literal: str) -> None:
    privacy = SourcePrivacySettings(features={"who": "hash"}, hash_key=SecretStr("k" * 40))
    path = list_slices(system.store, "predictions")[0].path
    rows = system.store.read_table(path)
    hashed = hash_value(privacy.privacy.hash_key, value)
    names = pa.array([hashed, *rows["who"].to_pylist()[1:]])
    system.store.write_parquet(path, rows.set_column(rows.column_names.index("who"), "who", names))
    system.settings = system.settings.model_copy(update={"privacy": privacy})
    system.erase(condition=f"who = hashed({literal})")
    assert system.rows() == ALL_ROWS - {(0, 0)}
    with pytest.raises(InvalidInput, match="INTERVAL cannot be hashed"):
        system.erase(condition="who = hashed(INTERVAL 1 DAY)")


def test_tombstone_lasts_as_long_as_any_topic_has_the_message(system: System) -> None:
    erasure = system.erase(ids=frozenset([system.predictions[0].id]))
    assert erasure.respected_until is not None
    assert timedelta(days=14) < erasure.respected_until - datetime.now(UTC) < timedelta(days=16)
    system.broker.configs["outcomes", "retention.ms"] = "-1"
    erasure = system.erase(ids=frozenset([system.predictions[1].id]))
    assert erasure.respected_until is None
    assert erasure.path.startswith("erasures/until=9999-12-31/")


def test_dataset_versions_and_references_with_copies_are_named(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    times = pd.to_datetime([event.time for event in system.predictions for _ in range(2)])
    copies = pd.DataFrame(
        {
            "at": times,
            "x": np.array([cell for event in system.predictions for cell in event.features["x"]], np.float32),
            "who": [cell for event in system.predictions for cell in event.features["who"]],
            "target": 1,
        }
    )
    system.store.write_parquet("datasets/files/md5/aa/11", copies)
    system.store.write_parquet("datasets/files/md5/bb/22", copies.assign(at=times + timedelta(seconds=1)))
    system.store.write_parquet("datasets/files/md5/cc/33", copies.assign(x=-1.0))
    system.store.write("datasets/files/md5/dd/44", b"a,b\n1,2\n")
    reference = pd.concat([copies[["x", "who"]]] * 2).assign(_prediction=0.5)
    system.store.write_parquet("references/m/3/run/rows.parquet", reference)
    monkeypatch.setattr(erase_copies, "trained_versions", lambda *_: {"aa11": [("m", "3")]})
    erasure = system.erase(keys=frozenset([KEY]))
    (dataset,) = erasure.datasets
    assert (dataset.md5, dataset.rows, dataset.versions) == ("aa11", 4, ["m/3"])
    (found,) = erasure.references
    assert (found.path, len(found.positions)) == ("references/m/3/run/rows.parquet", 4)
    left = system.store.read_parquet("references/m/3/run/rows.parquet")
    assert len(left) == 2 * len(copies) - 4
    assert (left["x"] == 4.5).sum() == 1


REFERENCE = "references/m/3/run/rows.parquet"


def trained_on(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a dataset and a reference with copies of all rows."""
    cells = {name: [cell for event in system.predictions for cell in event.features[name]] for name in ("x", "who")}
    times = pd.to_datetime([event.time for event in system.predictions for _ in range(2)])
    system.store.write_parquet("datasets/files/md5/aa/11", pd.DataFrame({"at": times, **cells}))
    system.store.write_parquet(REFERENCE, pd.DataFrame(cells))
    monkeypatch.setattr(erase_copies, "trained_versions", lambda *_: {"aa11": [("m", "3")]})


def test_two_erasures_at_once_both_change_a_reference(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on(system, monkeypatch)
    eraser = Eraser(system.settings, lambda _: None)
    numbers = (2, 4, 3)
    found = [
        eraser.find(Request(ids=frozenset([system.predictions[number].id])), "me@here", "asked to")
        for number in numbers
    ]
    done = [eraser.erase(each) for each in found]
    assert all(each.done_at is not None for each in done)
    left = system.store.read_parquet(REFERENCE)["x"].tolist()
    assert left == [cell for number in (0, 1, *range(5, EVENTS)) for cell in (number, number + 0.5)]
    before = system.store.list_objects(REFERENCE)
    eraser.erase(found[0])  # as after a kill
    assert system.store.list_objects(REFERENCE) == before


def test_change_to_a_reference_that_another_erasure_has_overwritten_is_repeated(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_on(system, monkeypatch)
    eraser = Eraser(system.settings, lambda _: None)
    first, second = (
        eraser.find(Request(ids=frozenset([system.predictions[number].id])), "me@here", "asked to") for number in (2, 4)
    )
    before = system.store.read(REFERENCE)
    erase_from_reference(system.store, second.references[0], second.id)
    overwriting = system.store.read(REFERENCE)
    system.store.write(REFERENCE, before)
    write = ObjectStore.write

    def write_and_lose(store: ObjectStore, path: str, content: bytes) -> None:
        write(store, path, content)
        if path == REFERENCE:
            monkeypatch.setattr(ObjectStore, "write", write)
            write(store, path, overwriting)

    monkeypatch.setattr(ObjectStore, "write", write_and_lose)
    eraser.erase(first)
    assert not {2.0, 2.5, 4.0, 4.5} & set(system.store.read_parquet(REFERENCE)["x"])


def test_erasure_is_not_done_if_a_reference_was_replaced(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on(system, monkeypatch)
    eraser = Eraser(system.settings, lambda _: None)
    found = eraser.find(Request(ids=frozenset([system.predictions[2].id])), "me@here", "asked to")
    system.store.write_parquet(REFERENCE, pd.DataFrame({"x": [2.0], "who": ["p2"]}))
    with pytest.raises(Rejected, match=f"{REFERENCE} was replaced"):
        eraser.erase(found)
    assert [each.id for each in eraser.unfinished()] == [found.id]
    system.store.delete(REFERENCE)
    assert eraser.erase(found).done_at is not None


def test_no_dataset_is_read_when_nothing_was_found(system: System) -> None:
    assert find_datasets(system.store, pa.table({}), lambda *_: None) == []
    assert find_references(system.store, pa.table({}), []) == []


@pytest.fixture
def run(system: System, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("DRIFTLOOP_STORAGE__URL", system.settings.storage.url)
    monkeypatch.setenv("DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS", "fake:9092")
    monkeypatch.setenv("DRIFTLOOP_REGISTRY__MODEL", "m")
    return lambda *arguments, **options: CliRunner().invoke(app, ["archive", *arguments], **options)


def test_dry_run_changes_nothing_and_prints_no_key(system: System, run: Callable[..., Any]) -> None:
    before = system.store.list_objects("")
    done = run("erase", "--keys-from", "-", "--reason", "asked to", "--dry-run", input=f"\ufeff{KEY}\r\n")
    assert done.exit_code == 0, done.output
    assert KEY not in done.output
    assert "dry run: nothing is erased" in done.output
    assert system.store.list_objects("") == before


def test_command_erases_and_the_audit_log_says_so(system: System, run: Callable[..., Any], tmp_path: Path) -> None:
    refused = run("erase", "--key", KEY, "--reason", "asked to")
    assert refused.exit_code == 2
    assert "--yes" in refused.output
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n\nanother\n")
    done = run("erase", "--keys-from", str(file), "--reason", "asked to", "--by", "Ann", "--yes", "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["erased"]
    assert facts["counts"]["predictions"]["archived_rows"] == 3
    assert KEY not in done.output
    assert system.rows() == ALL_ROWS - {(1, 1), (4, 1), (7, 1)}
    again = run("erase", "--keys-from", str(file), "--reason", "asked to", "--yes")
    assert (again.exit_code, again.stdout) == (0, "nothing was found\n")
    listed = json.loads(run("erasures", "--json").stdout)["erasures"]
    assert [(each["requested_by"], each["request"]["values"]) for each in listed] == [("Ann", 2)]
    assert "Ann" in run("erasures").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say what to erase"),
        (("--id", "a", "--key", "b"), "say what to erase"),
        (("--keys-from", "/nowhere/keys"), "cannot be read"),
        (("--key", ""), "--key: a value is empty"),
        (("--where", "nobody = 1"), "nobody"),
    ],
)
def test_bad_options_are_refused(run: Callable[..., Any], arguments: Sequence[str], message: str) -> None:
    done = run("erase", *arguments, "--reason", "asked to", "--yes")
    assert done.exit_code == 2
    assert message in done.output
    assert run("erase", "--id", "a", "--yes").exit_code == 2


def test_day_of_the_archive_is_in_the_past() -> None:
    assert BEGIN.date() < date.today()  # rows of a later day than the erasure would stay


@pytest.mark.parametrize("is_damaged", [True, False])
def test_unreadable_file_is_named(system: System, *, is_damaged: bool) -> None:
    path = list_files(system.store, "predictions")[1].path
    if is_damaged:
        damage(system.store, path)
    else:
        system.store.write(path, b"no Parquet file")
    for request in ({"keys": frozenset([KEY])}, {"condition": "x > 3"}):
        with pytest.raises(ArchiveUnreadable, match=rf"{path} is not a readable Parquet file; restore or delete it"):
            system.erase(**request)
