"""Files against real parts: scored under kills, loaded twice, imported; each event is on its topic once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from sklearn.tree import DecisionTreeClassifier

from driftloop.events import Event, Outcome, Prediction
from driftloop.kafka import reader
from driftloop.storage import labelled_archive
from driftloop.storage.object_store import ObjectStore
from driftloop_cli.files.scoring_job import CHUNK_ROWS
from stack.running import Stack
from tests.support.predictor_app import save_model
from tests.support.running_stack import isolated_settings, run_command
from tests.support.waiting import wait_until
from usecases.flights import usecase

KILLS = int(os.environ.get("FAULTS_KILLS", "4"))
CHUNKS = 3 * KILLS + 3  # a fast machine scores more than one between two looks
PAST_ROWS = 300

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200 + 60 * KILLS)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Broker, storage, registry and the drift worker, which archives what is published."""
    settings = {"DRIFTLOOP_WINDOW__ROWS": "100000", "DRIFTLOOP_WINDOW__IDLE_TIMEOUT_SECONDS": "2"}
    folder = tmp_path_factory.mktemp("files")
    with Stack(isolated_settings(folder), print, settings, services_to_start=("drift_worker",)) as stack:
        yield stack


@pytest.fixture(scope="module")
def version(stack: Stack) -> str:
    """A version of a small model, in service."""
    frame = pd.DataFrame({"x": np.arange(100.0), "n": np.zeros(100, int)})  # the label is in x alone
    estimator = DecisionTreeClassifier(max_depth=3, random_state=0).fit(frame, frame["x"] > 50)
    folder = save_model(stack.folder / "model", estimator, frame, "predict_proba")
    registry = stack.registry
    mlflow.set_experiment(registry.model)
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(folder), "model")
    client: MlflowClient = registry.client
    client.create_registered_model(registry.model)
    created = client.create_model_version(registry.model, f"{run.info.artifact_uri}/model", run_id=str(run.info.run_id))
    registry.promote(str(created.version))
    return str(created.version)


def events_of(stack: Stack, topic: str) -> list[Event]:
    return reader.read_last(stack.kafka, topic, 10_000_000)


def archived_rows(stack: Stack, topic: str) -> int:
    store = ObjectStore(stack.storage)
    return sum(len(store.read_parquet(path, ["_id"])) for path, *_ in store.list_objects(f"slices/{topic}/"))


def counts_of(stack: Stack, *arguments: str) -> dict[str, Any]:
    done = run_command(stack, "driftloop", *arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    counts: dict[str, Any] = json.loads(done.stdout)
    return counts


def test_killed_score_goes_on_and_publishes_each_row_once(
    stack: Stack, version: str, tmp_path: Path, random_source: random.Random
) -> None:
    rows = CHUNK_ROWS * CHUNKS - 7
    frame = pd.DataFrame({"x": np.arange(rows) % 100 / 1.0, "n": np.arange(rows), "order": np.arange(rows)})
    frame.to_parquet(tmp_path / "in.parquet", row_group_size=CHUNK_ROWS * 2 - 11)
    output, parts = tmp_path / "out.parquet", tmp_path / "out.parquet.scoring"
    command = [str(Path(sys.executable).with_name("driftloop")), "score", str(tmp_path / "in.parquet"), str(output)]
    command += ["--key", "order"]

    def finished_chunks() -> int:
        return len(list(parts.glob("*-*.parquet")))

    for kill in range(KILLS):
        before = finished_chunks()
        process = subprocess.Popen(
            command, env={**os.environ, **stack.environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if kill % 3 != 1:  # otherwise it may be killed while it starts
            wait_until(
                lambda: finished_chunks() > before or process.poll() is not None or None,  # noqa: B023  # called here
                "the next chunk is scored",
            )
        time.sleep(random_source.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
    summary = counts_of(stack, *command[1:])
    assert (summary["version"], summary["rows"]) == (version, rows)
    assert summary["rows_before"] > 0

    events = [event for event in events_of(stack, stack.topics.predictions) if isinstance(event, Prediction)]
    seen = Counter(n for event in events for n in event.features["n"])
    assert len(seen) == rows
    assert set(seen.values()) == {1}
    assert max(Counter(event.id for event in events).values()) == 1
    assert {(event.model, event.version) for event in events} == {(stack.registry.model, version)}
    scored = pd.read_parquet(output)
    pd.testing.assert_frame_equal(scored[list(frame)], frame)
    assert (scored["prediction"] == (scored["x"] > 50)).all()
    by_id = {event.id: event for event in events}
    for row in scored.iloc[random_source.sample(range(rows), 100)].to_dict("records"):
        event, position = by_id[row["prediction_id"]], row["prediction_row"]
        assert event.features["n"][position] == row["n"]
        assert event.predictions[position] == row["prediction"]
    assert not parts.exists()
    again = run_command(stack, "driftloop", *command[1:])
    assert again.returncode == 7, again.stdout + again.stderr

    # Its outcomes are named by the columns of the output.
    wait_until(lambda: archived_rows(stack, stack.topics.predictions) == rows or None, "the rows are archived", 600)
    labelled = scored.iloc[:: rows // 1000].assign(outcome=lambda chosen: (chosen["x"] > 50).astype(int))
    labelled.to_parquet(tmp_path / "outcomes.parquet")
    load: tuple[str, ...] = ("outcomes", "load", str(tmp_path / "outcomes.parquet"), "--outcome", "outcome")
    load += ("--id", "prediction_id", "--row", "prediction_row")
    dry = counts_of(stack, *load, "--dry-run")
    assert (dry["rows"], dry["matched"], dry["unmatched"], dry["published"]) == (len(labelled), len(labelled), 0, 0)
    assert events_of(stack, stack.topics.outcomes) == []
    assert counts_of(stack, *load)["published"] == len(labelled)
    counts_of(stack, *load)  # the first ones may be archived already, or not yet
    outcomes = [event for event in events_of(stack, stack.topics.outcomes) if isinstance(event, Outcome)]
    assert len({event.id for event in outcomes}) == len(labelled)
    assert len({(event.prediction_id, event.index) for event in outcomes}) == len(labelled)
    wait_until(lambda: archived_rows(stack, stack.topics.outcomes) >= len(labelled) or None, "they are archived")
    assert wait_until(
        lambda: counts if (counts := counts_of(stack, *load))["published"] == 0 else None, "all are known"
    )


def test_imported_past_is_archived_once(stack: Stack, tmp_path: Path, random_source: random.Random) -> None:
    known = usecase.load_rows().dropna(subset=[usecase.target])[:PAST_ROWS]
    chances = [random_source.random() for _ in range(PAST_ROWS)]
    past = known.assign(score=chances).sample(frac=1, random_state=random_source.randrange(2**32))
    past.to_parquet(tmp_path / "past.parquet")
    load: tuple[str, ...] = (
        "import",
        "predictions",
        str(tmp_path / "past.parquet"),
        "--prediction",
        "score",
        "--time",
        "time",
    )
    load += ("--outcome", usecase.target, "--version", "old system")
    first = counts_of(stack, *load)
    assert (first["rows"], first["published"], first["with_outcome"]) == (PAST_ROWS, PAST_ROWS, PAST_ROWS)
    counts_of(stack, *load)

    events = [event for event in events_of(stack, stack.topics.predictions) if isinstance(event, Prediction)]
    imported = list({event.id: event for event in events if event.imported}.values())
    assert len(imported) == PAST_ROWS
    assert {event.version for event in imported} == {"old system"}
    assert [event.time for event in imported] == sorted(known["time"].dt.to_pydatetime())
    assert sorted(float(str(event.predictions[0])) for event in imported) == sorted(chances)

    def counts() -> labelled_archive.ArchiveCounts:
        with labelled_archive.open_archive(ObjectStore(stack.storage), stack.topics, usecase) as archive:
            return archive.counts(labelled_archive.ArchiveQuery(versions=("old system",)))

    wait_until(lambda: counts().labelled == PAST_ROWS or None, "the rows are archived with their outcomes")
    assert counts().rows == PAST_ROWS
    again = counts_of(stack, *load)
    assert (again["repeated"], again["published"]) == (PAST_ROWS, 0)
