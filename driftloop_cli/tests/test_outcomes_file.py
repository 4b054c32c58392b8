"""Outcomes from files are checked, counted and prepared as the events that the predictor would publish."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from driftloop.errors import InvalidInput
from driftloop.events import KEY_COLUMN, MODEL_COLUMN, Outcome
from driftloop.kafka.bulk_publisher import shared_headers
from driftloop.kafka.codec import decode, encode
from driftloop.privacy import Privacy
from driftloop.storage.archive_files import ArchiveFiles
from driftloop_cli.files.outcomes import OutcomeColumns, OutcomeCounts, prepare_outcomes
from driftloop_cli.files.outcomes_command import print_outcome_counts
from driftloop_cli.files.source import Source, open_source, prepared_events

NOW = datetime(2014, 1, 1, tzinfo=UTC)
NOTHING = ArchiveFiles()
BY_ID = OutcomeColumns("paid", id="pid", row="n", time="at")
CSV = (
    "pid,n,paid,at\na,0,1,2013-07-01 05:00\na,1,0,2013-07-02T05:00:00\nb,0,,2013-07-02 05:00\na,0,1,2013-07-01 05:00\n"
)


@contextmanager
def opened(file: Path | None, sql: str | None = None, timezone: str = "UTC") -> Iterator[Source]:
    with open_source(file, sql, ["pid", "order"], timezone) as source:
        yield source


def write(folder: Path, text: str | bytes, name: str = "outcomes.csv") -> Path:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


def prepare(source: Source, columns: OutcomeColumns = BY_ID, archive: ArchiveFiles = NOTHING) -> OutcomeCounts:
    return prepare_outcomes(source, columns, "m", NOW, archive)


def load(
    file: Path | None,
    columns: OutcomeColumns = BY_ID,
    archive: ArchiveFiles = NOTHING,
    sql: str | None = None,
    timezone: str = "UTC",
) -> tuple[OutcomeCounts, list[Outcome]]:
    """Return the counts of a file, and its events as consumers will see them."""
    events = []
    with opened(file, sql, timezone) as source:
        counts = prepare(source, columns, archive)
        for prepared in prepared_events(source, "events"):
            ids = [("ce_id", prepared.id.encode()), ("ce_time", prepared.time.encode())]
            event = decode(prepared.value.encode(), [*shared_headers(Outcome, "cli"), *ids])
            assert isinstance(event, Outcome)
            assert (event.id, event.prediction_id) == (prepared.id, prepared.key)
            assert event.time == datetime.fromisoformat(prepared.time)
            events.append(event)
    return counts, events


def archived(folder: Path, outcomes: list[Outcome], predictions: list[tuple[str, int]]) -> ArchiveFiles:
    """Write files as the drift worker does."""
    rows = [(e.prediction_id, e.index, e.time, e.outcome) for e in outcomes]
    frame = pd.DataFrame(rows, columns=["_id", "_row", "_time", "outcome"])
    is_text = frame["outcome"].map(type) == str  # noqa: E721
    frame["outcome_label"] = frame["outcome"].where(is_text).astype("string")
    frame["outcome"] = pd.to_numeric(frame["outcome"].where(~is_text)).astype("float64")
    frame["_time"] = pd.to_datetime(frame["_time"], utc=True).astype("datetime64[ns, UTC]")
    frame.to_parquet(folder / "outcomes-0-000000000000-000000000009.parquet")
    known = pd.DataFrame(predictions, columns=["_id", "_row"])
    known.to_parquet(folder / "predictions-0-000000000000-000000000009.parquet")
    return ArchiveFiles(
        [folder / "predictions-0-000000000000-000000000009.parquet"],
        [folder / "outcomes-0-000000000000-000000000009.parquet"],
    )


def test_rows_become_events_and_are_counted(tmp_path: Path) -> None:
    counts, events = load(write(tmp_path, CSV))
    assert counts == OutcomeCounts(
        rows=4, without_outcome=1, repeated=1, matched=0, unmatched=3, to_publish=2, unmatched_examples=("a",)
    )
    assert [(e.prediction_id, e.index, e.outcome, e.time) for e in events] == [
        ("a", 0, 1, datetime(2013, 7, 1, 5, tzinfo=UTC)),
        ("a", 1, 0, datetime(2013, 7, 2, 5, tzinfo=UTC)),
    ]


def test_headers_are_those_of_the_codec() -> None:
    event = Outcome(prediction_id="a", index=0, outcome=1)
    own = [*shared_headers(Outcome, "cli"), ("ce_id", event.id.encode()), ("ce_time", event.time.isoformat().encode())]
    assert {name: value for name, value in own if name != "ce_time"} == {
        name: value for name, value in encode(event, "cli").headers if name != "ce_time"
    }
    assert len(own) == len(encode(event, "cli").headers)


def test_ids_are_the_same_again_and_differ_between_events(tmp_path: Path) -> None:
    file = write(tmp_path, CSV)
    (_, first), (_, second) = load(file), load(file)
    assert [event.id for event in first] == [event.id for event in second]
    assert len({event.id for event in first}) == 2
    assert load(file, timezone="Europe/Berlin")[1][0].id != first[0].id


def test_without_a_time_ids_are_the_same_whenever_the_file_is_loaded(tmp_path: Path) -> None:
    columns = OutcomeColumns("paid", id="pid", row="n")
    _, events = load(write(tmp_path, CSV), columns)
    assert {event.time for event in events} == {NOW}
    with opened(write(tmp_path, CSV)) as source:
        prepare_outcomes(source, columns, "m", datetime(2015, 1, 1, tzinfo=UTC), ArchiveFiles())
        assert [prepared.id for prepared in prepared_events(source, "events")] == [event.id for event in events]


@pytest.mark.parametrize("with_time", [True, False], ids=["time", "now"])
@pytest.mark.parametrize("labels", [False, True], ids=["numbers", "labels"])
def test_what_the_archive_has_is_not_published_again(with_time: bool, labels: bool, tmp_path: Path) -> None:
    text = CSV.replace(",1,2013", ",yes,2013").replace(",0,2013", ",no,2013") if labels else CSV
    columns = BY_ID if with_time else BY_ID._replace(time=None)
    file = write(tmp_path, text)
    _, events = load(file, columns)
    archive = archived(tmp_path, events[:1], [("a", 0), ("c", 0)])
    counts, left = load(file, columns, archive)
    assert counts == OutcomeCounts(
        rows=4, without_outcome=1, repeated=2, matched=2, unmatched=1, to_publish=1, unmatched_examples=("a",)
    )
    assert left == events[1:]
    everything = archived(tmp_path, events, [])
    assert load(file, columns, everything)[0].to_publish == 0


def test_corrected_outcome_is_published_again(tmp_path: Path) -> None:
    columns = OutcomeColumns("paid", id="pid")
    events = [
        Outcome(time=datetime(2013, 7, day, tzinfo=UTC), prediction_id="a", index=0, outcome=outcome)
        for day, outcome in ((1, 1), (2, 0))
    ]
    counts, _ = load(write(tmp_path, "pid,paid\na,1\n"), columns, archived(tmp_path, events, []))
    assert counts.to_publish == 1


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "0"], [1.0, 0.0]),
        (["1.5", "-2"], [1.5, -2.0]),
        (["true", "false"], [True, False]),
        (["yes", "no"], ["yes", "no"]),
        (["1", "late"], ["1", "late"]),
    ],
    ids=["integers", "floats", "booleans", "labels", "mixed"],
)
def test_outcomes_have_the_type_of_their_column(cells: list[str], values: list[object], tmp_path: Path) -> None:
    rows = "".join(f"{n},{cell}\n" for n, cell in enumerate(cells))
    _, events = load(write(tmp_path, f"pid,paid\n{rows}"), OutcomeColumns("paid", id="pid"))
    assert [(type(event.outcome), event.outcome) for event in events] == [(type(value), value) for value in values]


def test_ids_keep_their_zeros(tmp_path: Path) -> None:
    _, events = load(write(tmp_path, "pid,paid\n007,1\n"), OutcomeColumns("paid", id="pid"))
    assert events[0].prediction_id == "007"


@pytest.mark.parametrize(
    ("text", "name"),
    [(CSV.replace(",", ";"), "a.csv"), ("\ufeff" + CSV, "b.csv"), (CSV.replace(",", "\t"), "c.tsv")],
    ids=["semicolon", "bom", "tab"],
)
def test_other_csv_files_are_read(text: str, name: str, tmp_path: Path) -> None:
    assert load(write(tmp_path, text, name))[0].rows == 4


def test_parquet_with_pandas_types_is_read(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "pid": ["a", "b"],
            "n": [0.0, 1.0],
            "paid": [1.0, float("nan")],
            "at": pd.to_datetime(["2013-07-01T07:00+02:00", "2013-07-02T07:00+02:00"]),
        }
    )
    frame.to_parquet(tmp_path / "o.parquet")
    counts, (event,) = load(tmp_path / "o.parquet")
    assert (counts.rows, counts.without_outcome) == (2, 1)
    assert event.time == datetime(2013, 7, 1, 5, tzinfo=UTC)


def test_query_reads_the_file_or_others(tmp_path: Path) -> None:
    file = write(tmp_path, CSV)
    columns = OutcomeColumns("paid", id="pid")
    assert load(file, columns, sql="SELECT pid, paid FROM rows WHERE n = 0;")[0].rows == 3
    assert load(None, columns, sql=f"SELECT pid, paid FROM '{tmp_path}/*.csv'")[0].rows == 4  # noqa: S608


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pid,n,paid,at\n,0,1,2013-07-01\n", r"row 1, column pid"),
        ("pid,n,paid,at\na,0,1,2013-07-01\nb,-1,1,2013-07-01\n", r"row 2, column n"),
        ("pid,n,paid,at\na,0.5,1,2013-07-01\n", r"row 1, column n"),
        ("pid,n,paid,at\na,0,1.5,2013-07-01\nb,0,inf,2013-07-01\n", r"row 2, column paid"),
        ("pid,n,paid,at\na,0,1,2013-07-01\nb,0,1,soon\n", r"row 2, column at.*'soon'"),
        ("pid,n,paid,at\na,0,1,1900-07-01\n", r"row 1, column at"),
        ("pid,n,paid\na,0,1\n", "no column at; it has pid, n, paid"),
    ],
    ids=["no id", "negative row", "fraction", "infinite", "no time", "early", "no column"],
)
def test_invalid_rows_are_named(text: str, message: str, tmp_path: Path) -> None:
    with opened(write(tmp_path, text)) as source, pytest.raises(InvalidInput, match=message):
        prepare(source)


@pytest.mark.parametrize(
    ("name", "content"), [("a.parquet", b"no"), ("b.csv", b"\xff\xfe\x00\x01"), ("missing.csv", None)]
)
def test_unreadable_file_is_named(name: str, content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        write(tmp_path, content, name)
    with pytest.raises(InvalidInput, match=name), opened(tmp_path / name) as source:
        prepare(source)


def test_invalid_query_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="query"), opened(write(tmp_path, CSV), "SELECT nothing FROM rows"):
        pass


def test_outcomes_by_key_are_matched_with_rows_of_the_model(tmp_path: Path) -> None:
    columns = OutcomeColumns("paid", key="order")
    file = write(tmp_path, "order,paid\n001,1\n002,0\n003,1\n")
    rows = pd.DataFrame({KEY_COLUMN: ["001", "002", None], MODEL_COLUMN: ["m", "other", "m"]})
    rows.to_parquet(tmp_path / "predictions.parquet")
    with opened(file) as source:
        counts = prepare(source, columns, ArchiveFiles([tmp_path / "predictions.parquet"]))
        events = list(prepared_events(source, "events"))
    assert counts == OutcomeCounts(
        rows=3, without_outcome=0, repeated=0, matched=1, unmatched=2, to_publish=3, unmatched_examples=("002", "003")
    )
    assert [event.key for event in events] == ["001", "002", "003"]
    outcome = Outcome.model_validate_json(events[0].value)
    assert (outcome.model, outcome.key, outcome.outcome, outcome.message_key) == ("m", "001", 1, events[0].key)


def test_few_unmatched_names_are_examples_in_the_order_of_the_file(tmp_path: Path) -> None:
    rows = "".join(f"{order},1\n" for order in [9, 9, *range(8, 0, -1)])
    with opened(write(tmp_path, f"order,paid\n{rows}")) as source:
        counts = prepare(source, OutcomeColumns("paid", key="order"))
    assert (counts.unmatched, counts.unmatched_examples) == (10, ("9", "8", "7", "6", "5"))


@pytest.mark.parametrize("dry_run", [True, False])
def test_counts_are_printed_with_what_a_dry_run_means(dry_run: bool, capsys: pytest.CaptureFixture[str]) -> None:
    counts = OutcomeCounts(4, 1, 1, 0, 3, 2, ("a", "b"))
    print_outcome_counts(counts, 0 if dry_run else 2, dry_run=dry_run, as_json=False)
    printed = capsys.readouterr().out
    assert ("dry run: nothing is published" in printed) == dry_run
    assert "a, b" in printed
    assert len(printed.splitlines()) == 8 + dry_run
    print_outcome_counts(counts, 0, dry_run=dry_run, as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert (facts["unmatched"], facts["unmatched_examples"], facts["dry_run"]) == (3, ["a", "b"], dry_run)


def test_id_or_key_is_needed(tmp_path: Path) -> None:
    with opened(write(tmp_path, CSV)) as source, pytest.raises(InvalidInput, match="--id or --key"):
        prepare(source, OutcomeColumns("paid"))


def test_keys_of_outcomes_are_hashed_and_matched_as_the_predictor_has_hashed_them(tmp_path: Path) -> None:
    privacy = Privacy(hashes_keys=True, hash_key=b"k" * 32)
    file = write(tmp_path, "order,paid\no1,1\no2,0\n")
    archived = pd.DataFrame({KEY_COLUMN: privacy.treat_keys(["o1"]), MODEL_COLUMN: "m"})
    archived.to_parquet(tmp_path / "predictions.parquet")
    columns = OutcomeColumns("paid", key="order")
    with opened(file) as source:
        archive = ArchiveFiles([tmp_path / "predictions.parquet"], [])
        counts = prepare_outcomes(source, columns, "m", NOW, archive, privacy)
        texts = [event.value for event in prepared_events(source, "events")]
    assert (counts.matched, counts.unmatched, counts.to_publish) == (1, 1, 2)
    assert counts.unmatched_examples == (privacy.treat_key("o2"),)
    assert [json.loads(text)["key"] for text in texts] == [privacy.treat_key("o1"), privacy.treat_key("o2")]
