"""A key is erased while the drift worker runs, and then is nowhere but in the topics' own log."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from driftloop.events import DriftVerdict, Event, Outcome, Prediction
from driftloop.kafka import reader, topics
from driftloop.kafka.publisher import Publisher
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import save_reference
from stack.running import Stack
from tests.support.running_stack import isolated_settings
from tests.support.waiting import wait_until
from tests.support.worker_group import MODEL, ROWS, make_features, make_predictions, make_reference

pytestmark = pytest.mark.integration

KEY = "somebody-5d1e7a"
EVENT_ROWS, WINDOWS = 20, 8
PASS_SECONDS = 150  # until the worker's next pass over the archive, which comes once a minute


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Kafka, the object store and a drift worker."""
    extra = {"DRIFTLOOP_WINDOW__ROWS": str(ROWS), "DRIFTLOOP_WINDOW__IDLE_TIMEOUT_SECONDS": "3"}
    stack = Stack(isolated_settings(tmp_path_factory.mktemp("erase")), print, extra, services_to_start=())
    try:
        for name in ("kafka", "gcs"):
            stack.start(name)
        topics.create(stack.kafka, stack.topics)
        stack.start("drift_worker")
        yield stack
    finally:
        stack.stop()


def events(source: np.random.Generator, number: int, *, shifted: bool) -> Iterator[Event]:
    """Yield the predictions of a window, of which some rows have the key, and their outcomes."""
    for _ in range(ROWS // EVENT_ROWS):
        features = make_features(source, number, EVENT_ROWS)
        if shifted:
            features["x"] = [None if cell is None else float(cell) + 9 for cell in features["x"]]  # type: ignore[arg-type]
        prediction = Prediction(
            model=MODEL,
            version="1",
            features=features,
            predictions=make_predictions(source, features),
            keys=[KEY, *(f"other-{row}" for row in range(1, EVENT_ROWS))],
        )
        yield prediction
        yield Outcome(model=MODEL, key=KEY, outcome=1)
        yield Outcome(prediction_id=prediction.id, index=0, outcome=1)


def driftloop(stack: Stack, *arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(Path(sys.executable).with_name("driftloop")), *arguments],
        env={**os.environ, **stack.environment, "COLUMNS": "200"},
        input=given,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def objects_with_key(store: ObjectStore) -> list[str]:
    """Return the paths of all objects whose bytes, or whose values if they are Parquet files, have the key."""
    found = []
    for path in store.list_paths(""):
        try:
            content = store.read(path)
        except FileNotFoundError:  # merged meanwhile
            continue
        if content.startswith(b"PAR1"):
            content += pd.read_parquet(BytesIO(content)).to_csv().encode()
        if KEY.encode() in content:
            found.append(path)
    return found


def files_with_key(folder: Path) -> list[str]:
    """Return the files of the stack, without Kafka's log, that have the key."""
    found = []
    for file in folder.rglob("*"):
        if (folder / "kafka") in file.parents:
            continue
        try:
            if file.is_file() and KEY.encode() in file.read_bytes():
                found.append(str(file))
        except FileNotFoundError:
            continue
    return found


@pytest.mark.timeout(1_800)
def test_erased_key_is_nowhere_but_in_the_log_of_the_topics(stack: Stack) -> None:
    store, source = ObjectStore(stack.storage), np.random.default_rng(5)
    save_reference(store, MODEL, "1", make_reference())
    with Publisher(stack.kafka, stack.topics, "test") as publisher:
        for number in range(WINDOWS):
            publisher.publish(*events(source, number, shifted=number == WINDOWS - 1))

        def drifted() -> DriftVerdict | None:
            found = [event for event in reader.read_last(stack.kafka, "drift", 100) if isinstance(event, DriftVerdict)]
            return next((event for event in found if event.verdict == "drift"), None)

        verdict = wait_until(drifted, "a window has drifted", seconds=300)
        pages = stack.components["drift_worker"].url
        report = f"{pages}/reports/{MODEL}/1/{verdict.window.name}"
        wait_until(
            lambda: True if httpx.get(report, timeout=60).status_code == 200 else None, "there is a report", seconds=600
        )
        wait_until(
            lambda: True if any(path.startswith("slices/outcomes/") for path in objects_with_key(store)) else None,
            "outcomes are archived",
            seconds=120,
        )
        publisher.publish(*list(events(source, WINDOWS, shifted=False))[:6])  # in the open window

    dry = driftloop(stack, "archive", "erase", "--keys-from", "-", "--reason", "asked", "--dry-run", given=KEY)
    assert dry.returncode == 0, dry.stderr
    done = driftloop(stack, "archive", "erase", "--keys-from", "-", "--reason", "asked", "--yes", given=KEY)
    assert done.returncode == 0, done.stderr
    assert KEY not in dry.stdout + dry.stderr + done.stdout + done.stderr
    assert f"reports/{MODEL}/1/{verdict.window.name}.html" in done.stdout
    wait_until(lambda: True if not objects_with_key(store) else None, "the bucket is clean", seconds=PASS_SECONDS)

    with Publisher(stack.kafka, stack.topics, "test") as publisher:  # the open window closes without the erased rows
        other = next(events(source, WINDOWS + 1, shifted=False))
        assert isinstance(other, Prediction)
        later = [other.model_copy(update={"id": f"{other.id[:-2]}{number:02}", "keys": None}) for number in range(9)]
        publisher.publish(*later)
    last = later[-1].id
    wait_until(
        lambda: (
            True
            if any(last in set(store.read_parquet(path)["_id"]) for path in store.list_paths("slices/predictions/"))
            else None
        ),
        "the worker goes on",
        seconds=120,
    )
    assert objects_with_key(store) == []
    rows = pd.concat([store.read_parquet(path) for path in store.list_paths("slices/predictions/")])
    assert not rows.duplicated(["_offset", "_row"]).any()
    expected = WINDOWS * ROWS - WINDOWS * (ROWS // EVENT_ROWS) + 2 * (EVENT_ROWS - 1) + 9 * EVENT_ROWS
    assert len(rows) == expected

    for path in (
        "/",
        f"/windows/{verdict.window.name}/{MODEL}/1",
        f"/reports/{MODEL}/1/{verdict.window.name}",
        "/metrics",
    ):
        assert KEY not in httpx.get(pages + path, timeout=60).text, path
    assert files_with_key(stack.folder) == []
    explained = driftloop(stack, "explain", KEY)
    assert explained.returncode == 7, explained.stdout
    again = driftloop(stack, "archive", "erase", "--keys-from", "-", "--reason", "asked", "--yes", given=KEY)
    assert (again.returncode, again.stdout) == (0, "nothing was found\n"), again.stderr
    listed = driftloop(stack, "archive", "erasures")
    assert "asked" in listed.stdout
    messages = reader.read_last(stack.kafka, "predictions", 10_000)
    assert any(KEY in (event.keys or ()) for event in messages if isinstance(event, Prediction))  # as is said


def test_commands_end_soon_when_a_part_is_away(stack: Stack, tmp_path: Path) -> None:
    for setting, value in (
        ("DRIFTLOOP_STORAGE__URL", (tmp_path / "missing").as_uri()),
        ("DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9"),
    ):
        environment = {**os.environ, **stack.environment, setting: value}
        if setting == "DRIFTLOOP_STORAGE__URL":
            environment.pop("DRIFTLOOP_STORAGE__ENDPOINT", None)
        began = datetime.now(UTC)
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("driftloop")),
                "archive",
                "erase",
                "--id",
                "a",
                "--reason",
                "r",
                "--yes",
            ],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 6, done.stderr
        assert "Traceback" not in done.stderr
        assert setting in done.stderr
        assert datetime.now(UTC) - began < timedelta(seconds=30)  # fifteen, and what Python takes to import
