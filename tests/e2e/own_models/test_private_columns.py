"""Private values of requests are nowhere behind the predictor, while rows are joined and hashed columns compared."""

import json
import secrets
from collections.abc import Iterator
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from kafka import KafkaConsumer, TopicPartition

from driftloop.events import KEY_COLUMN, DriftVerdict, frame_to_columns
from driftloop.kafka import reader
from driftloop.privacy import hash_value
from driftloop.registry.recorded_privacy import TAG_FEATURES, TAG_HASH_KEY
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import load_reference
from stack import services
from stack.running import Stack
from tests.support.running_stack import isolated_settings, run_command, serves_version
from tests.support.waiting import wait_until
from usecases.flights import usecase

MARKER, NUMBER = "marker-5d1e", 98_765.4321
"""Private values that no training row has."""
HASH_KEY = secrets.token_hex(32)
HASHED, DROPPED = "dest", "dewp"
FIRST_DAY, DAYS, ROWS_PER_DAY = date(2013, 2, 16), 4, 400
WINDOW_ROWS = 200


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    extra = {
        "DRIFTLOOP_PRIVACY__FEATURES": f"{HASHED}=hash,{DROPPED}=drop",
        "DRIFTLOOP_PRIVACY__CONTEXT": "passenger=hash,note=drop",
        "DRIFTLOOP_PRIVACY__KEYS": "hash",
        "DRIFTLOOP_PRIVACY__HASH_KEY": HASH_KEY,
        "DRIFTLOOP_WINDOW__ROWS": str(WINDOW_ROWS),
        "DRIFTLOOP_WINDOW__IDLE_TIMEOUT_SECONDS": "2",
        "DRIFTLOOP_PREDICTOR__ALIAS_POLL_INTERVAL_SECONDS": "0.5",
        "DRIFTLOOP_POLICY__ENABLED": "false",
    }
    settings = isolated_settings(tmp_path_factory.mktemp("private"))
    with Stack(settings, print, extra, services_to_start=services.NAMES) as stack:
        yield stack


def command(stack: Stack, *arguments: str) -> str:
    """Run the operator's command; return what it prints."""
    done = run_command(stack, "driftloop", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def key_of(day: int, row: int) -> str:
    return f"{MARKER}-key-{day}-{row}"


def send_day(stack: Stack, rows: pd.DataFrame, number: int, marked: slice) -> pd.DataFrame:
    """Request predictions for rows of a day, of which some have the private values; return the rows."""
    day = FIRST_DAY + timedelta(days=number)
    of_day = usecase.rows_between(rows, day, day + timedelta(days=1))
    of_day = of_day[of_day[usecase.target].notna()].head(ROWS_PER_DAY).reset_index(drop=True)
    of_day[HASHED] = of_day[HASHED].astype(object)
    of_day.loc[of_day.index[marked], HASHED] = MARKER
    of_day.loc[of_day.index[marked], DROPPED] = NUMBER
    columns = frame_to_columns(of_day[usecase.features])
    instances = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    response = httpx.post(
        f"{stack.components['predictor'].url}/predict",
        json={
            "instances": instances,
            "keys": [key_of(number, row) for row in of_day.index],
            "context": [{"passenger": MARKER, "note": MARKER, "gate": "A1"}] * len(of_day),
        },
        headers={"Driftloop-Time": of_day[usecase.timestamp].iloc[0].isoformat()},
        timeout=60,
    )
    assert response.status_code == 200, response.text
    return of_day


def message_bytes(stack: Stack) -> bytes:
    """Return keys, values and headers of all messages of all topics."""
    consumer = KafkaConsumer(bootstrap_servers=stack.kafka.bootstrap_servers, enable_auto_commit=False)
    try:
        partitions = [
            TopicPartition(topic, partition)
            for topic in consumer.topics()
            for partition in consumer.partitions_for_topic(topic) or ()
        ]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        consumer.seek_to_beginning(*partitions)
        found: list[bytes] = []
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            for messages in consumer.poll(1_000).values():
                for message in messages:
                    headers = [part for name, value in message.headers for part in (name.encode(), value or b"")]
                    found += [message.key or b"", message.value or b"", *headers]
        return b"\n".join(found)
    finally:
        consumer.close()


def object_bytes(store: ObjectStore) -> dict[str, bytes]:
    """Return all objects of the bucket; of Parquet files the values, too, which are compressed in them."""
    found = {}
    for path, *_ in store.list_objects(""):
        content = store.read(path)
        text = b""
        if content.startswith(b"PAR1"):
            text = pd.read_parquet(BytesIO(content)).to_csv().encode()
        found[path] = content + b"\n" + text
    return found


def file_bytes(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a running stack; some of them may be gone by the time they are read."""
    for file in folder.rglob("*"):
        try:
            if file.is_file():
                yield str(file), file.read_bytes()
        except FileNotFoundError:
            continue


def require_no_marker(name: str, content: bytes | str) -> None:
    content = content.encode() if isinstance(content, str) else content
    for marker in (MARKER, str(NUMBER)):
        assert marker.encode() not in content, f"{marker} is in {name}"


@pytest.mark.timeout(1_800)
def test_private_values_are_nowhere_behind_the_predictor(stack: Stack, tmp_path: Path) -> None:
    hashed = hash_value(HASH_KEY.encode(), MARKER)
    assert hashed is not None
    trained = command(
        stack, "retrain", "--reason", "the first", "--wait", "--from", "2013-01-01", "--to", str(FIRST_DAY)
    )
    assert f"the archive is left out: DRIFTLOOP_PRIVACY__FEATURES hides {HASHED}, {DROPPED}" in trained
    wait_until(lambda: serves_version(stack, "1"), "the first version serves")

    rows = usecase.load_rows()
    days = [send_day(stack, rows, number, slice(0, 1 if number < DAYS - 1 else None)) for number in range(DAYS)]
    predictor, drift_worker = (stack.components[name].url for name in ("predictor", "drift_worker"))
    refused = httpx.post(f"{predictor}/predict", json={"instances": [{HASHED: MARKER, DROPPED: MARKER}]}, timeout=30)
    assert refused.status_code == 422
    report_outcomes(stack, days[:2], tmp_path)
    publish_files(stack, days[-1], tmp_path)

    def drifted() -> DriftVerdict | None:
        events = reader.read_last(stack.kafka, "drift", 100)
        found = (event for event in events if isinstance(event, DriftVerdict) and HASHED in event.drifted_columns)
        return next(found, None)

    verdict = wait_until(drifted, "a verdict says that the hashed column has drifted")
    assert DROPPED not in {finding.column for finding in verdict.findings}
    assert "not compared" not in verdict.explanation
    store = ObjectStore(stack.storage)

    def archived(topic: str) -> pd.DataFrame:
        files = [path for path, *_ in store.list_objects(f"slices/{topic}/")]
        return pd.concat([pd.DataFrame(), *map(store.read_parquet, files)], ignore_index=True)

    def joined() -> pd.DataFrame | None:
        predictions, known = archived("predictions"), archived("outcomes")
        if predictions.empty or known.empty:
            return None
        rows = predictions.merge(known, on=KEY_COLUMN)
        return rows if len(rows) == len(days[0]) + len(days[1]) else None

    matched = wait_until(joined, "each reported outcome finds its row by the hash of its key")
    assert DROPPED not in matched
    assert matched.loc[matched[KEY_COLUMN] == hash_value(HASH_KEY.encode(), key_of(0, 0)), HASHED].tolist() == [hashed]
    explained = command(stack, "explain", key_of(0, 0))
    assert hashed in explained
    assert "known at" in explained
    model_version, name = f"{verdict.model}/{verdict.version}", verdict.window.name
    report = f"{drift_worker}/reports/{model_version}/{name}"
    wait_until(
        lambda: True if httpx.get(report, timeout=60).status_code == 200 else None,
        "the report is rendered",
        seconds=600,  # it is rendered with a low priority
    )

    reference = load_reference(store, usecase.name, "1")
    assert DROPPED not in reference.rows
    assert reference.rows[HASHED].dropna().map(len).unique().tolist() == [len(hashed)]
    assert reference.profile.privacy.features == {HASHED: "hash", DROPPED: "drop"}
    tags = stack.registry.version_tags("1")
    assert {TAG_FEATURES, TAG_HASH_KEY} <= tags.keys()
    assert HASH_KEY not in json.dumps(tags) + reference.profile.model_dump_json()

    require_nowhere(stack, store, hashed, verdict)


def report_outcomes(stack: Stack, days: list[pd.DataFrame], folder: Path) -> None:
    """Report the outcomes of a day by key to the predictor, and those of the next one from a file."""
    first, second = (day[usecase.target].astype(int) for day in days)
    outcomes = [{"key": key_of(0, row), "outcome": late} for row, late in enumerate(first.tolist())]
    url = stack.components["predictor"].url
    httpx.post(f"{url}/outcomes", json={"outcomes": outcomes}, timeout=60).raise_for_status()
    reported = pd.DataFrame({"key": [key_of(1, row) for row in second.index], "late": second})
    reported.to_csv(folder / "outcomes.csv", index=False)
    command(stack, "outcomes", "load", str(folder / "outcomes.csv"), "--key", "key", "--outcome", "late")


def publish_files(stack: Stack, rows: pd.DataFrame, folder: Path) -> None:
    """Score a file, and import another one."""
    few = rows[[*usecase.features, usecase.timestamp]].head(3).assign(key=[key_of(9, row) for row in range(3)])
    few.to_parquet(folder / "few.parquet")
    command(stack, "score", str(folder / "few.parquet"), str(folder / "scored.parquet"), "--key", "key")
    few.assign(answer=0.5).to_parquet(folder / "past.parquet")
    columns = ("--prediction", "answer", "--time", usecase.timestamp, "--key", "key")
    command(stack, "import", "predictions", str(folder / "past.parquet"), *columns)


def require_nowhere(stack: Stack, store: ObjectStore, hashed: str, verdict: DriftVerdict) -> None:
    """Search topics, bucket, pages and files of a stack for the private values."""
    predictor, drift_worker = (stack.components[name].url for name in ("predictor", "drift_worker"))
    model_version, name = f"{verdict.model}/{verdict.version}", verdict.window.name
    messages, objects = message_bytes(stack), object_bytes(store)
    assert hashed.encode() in messages  # the search finds what is there
    assert any(path.startswith("slices/") and hashed.encode() in content for path, content in objects.items())
    require_no_marker("the topics", messages)
    assert {path.split("/")[0] for path in objects} >= {"slices", "references", "reports"}
    for path, content in objects.items():
        require_no_marker(path, content)
    pages = {
        predictor: ("/openapi.json", "/docs", "/models", "/readyz", "/metrics", f"/v2/models/{usecase.name}"),
        drift_worker: ("/", f"/windows/{name}/{model_version}", f"/reports/{model_version}/{name}", "/metrics"),
    }
    for url, paths in pages.items():
        for path in paths:
            response = httpx.get(url + path, timeout=60)
            assert response.status_code == 200, f"{path}: {response.status_code}"
            require_no_marker(path, response.text)
    for path, content in file_bytes(stack.folder):
        require_no_marker(path, content)
    for url in (predictor, drift_worker):
        readiness: dict[str, Any] = httpx.get(f"{url}/readyz", timeout=30).json()
        assert "privacy" not in json.dumps(readiness)
