"""``driftloop archive``: what is shown, merged and deleted of an archive in a folder; the broker's answer is given."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from driftloop.archive.layout import list_all_merged, list_slices
from driftloop.errors import BrokerUnavailable, StorageUnavailable
from driftloop.evaluation import quality_settings
from driftloop.exit_codes import ExitCode
from driftloop.kafka import reader
from driftloop.kafka.transactional_producer import CommittedPosition
from driftloop.storage.object_store import ObjectStore
from driftloop_cli.archive import expire_command, status_command
from driftloop_cli.main import app
from tests.support.archived_slices import TOPIC, archive_slices, expected_ids, read_ids, slice_window
from tests.support.folder_store import folder_store

KEPT = 20
"""Latest slices that are not touched; in production 300."""
OLD = 40
"""Slices before them, which are final."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """An archive of 40 old slices, of the first two days of November, and 20 later ones, all committed."""
    made = folder_store(tmp_path / "store")
    archive_slices(made, range(OLD + KEPT))
    monkeypatch.setenv("DRIFTLOOP_STORAGE__URL", (tmp_path / "store").as_uri())
    monkeypatch.setenv("DRIFTLOOP_QUALITY__PREDICTION_LOOKBACK_SLICES", "1")
    monkeypatch.setattr(quality_settings, "COMMITTED_SLICES", KEPT)
    commit(monkeypatch, {(TOPIC, 0): CommittedPosition((OLD + KEPT) * 10)})
    for module in (expire_command, status_command):
        monkeypatch.setattr(module, "now", lambda: datetime(2026, 11, 20, tzinfo=UTC))
    return made


def commit(monkeypatch: pytest.MonkeyPatch, positions: dict[tuple[str, int], CommittedPosition]) -> None:
    monkeypatch.setattr(reader, "committed_positions", lambda *_: positions)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["archive", *arguments])


def facts(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_compact_merges_the_days_that_are_over_and_a_second_time_nothing(store: ObjectStore) -> None:
    planned = facts("compact", "--dry-run")
    assert list_all_merged(store, TOPIC) == []
    done = facts("compact")
    windows = [slice_window(0, 23).name]
    assert [file["window"] for file in planned["files"]] == [file["window"] for file in done["files"]] == windows
    assert (planned["slices"], done["slices"], done["dry_run"]) == (24, 24, False)
    assert done["bytes_after"] < done["bytes_before"]
    assert read_ids(store) == expected_ids(range(OLD + KEPT))
    assert facts("compact")["files"] == []


def test_compact_leaves_what_is_not_final_alone(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(monkeypatch, {(TOPIC, 0): CommittedPosition(230)})
    assert facts("compact")["files"] == []
    commit(monkeypatch, {})
    result = run("compact")
    assert result.exit_code == 0
    assert f"{TOPIC}-0: the drift workers have committed nothing" in result.stderr
    assert len(list_slices(store, TOPIC)) == OLD + KEPT


@pytest.mark.usefixtures("store")
def test_status_shows_what_can_be_merged_and_what_would_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = facts("status")["partitions"]
    assert {name: found[name] for name in ("topic", "partition", "slices", "merged_files", "small_file_share")} == {
        "topic": TOPIC,
        "partition": 0,
        "slices": OLD + KEPT,
        "merged_files": 0,
        "small_file_share": 1,
    }
    assert (found["final_slices"], found["retention_days"], found["expired_files"]) == (OLD, None, 0)
    assert (found["oldest_day"], found["newest_day"]) == ("2026-11-01", "2026-11-03")
    facts("compact")
    monkeypatch.setenv("DRIFTLOOP_ARCHIVE__PREDICTION_RETENTION_DAYS", "18")
    (found,) = facts("status")["partitions"]
    assert (found["merged_files"], found["final_slices"], found["expired_files"]) == (1, OLD - 24, 1)
    assert found["bytes"] == found["slice_bytes"] + found["merged_bytes"]
    table = run("status")
    assert table.exit_code == 0
    assert f"{TOPIC}-0" in table.stdout
    assert "18 days" in table.stdout


def test_expire_deletes_old_days_once_merged_or_not(store: ObjectStore) -> None:
    facts("compact")
    options = ("expire", "--predictions-days", "17")  # days before the third
    assert (facts(*options, "--dry-run")["files"], len(read_ids(store))) == (1 + 16, (OLD + KEPT) * 10)
    done = facts(*options)
    assert (done["files"], done["partitions"][0]["first_kept_day"]) == (1 + 16, "2026-11-03")
    assert read_ids(store) == expected_ids(range(OLD, OLD + KEPT))
    assert facts(*options)["files"] == 0


@pytest.mark.usefixtures("store")
def test_expire_uses_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_ARCHIVE__PREDICTION_RETENTION_DAYS", "18")
    assert facts("expire")["files"] == 24


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ((), {}, "the archive is kept for ever: set DRIFTLOOP_ARCHIVE__PREDICTION_RETENTION_DAYS or "),
        (("--predictions-days", "3"), {}, "3 is less than the days that quality is measured on"),
        ((), {"PREDICTION": "0"}, "DRIFTLOOP_ARCHIVE__PREDICTION_RETENTION_DAYS: 0 is no number of days to keep"),
        ((), {"OUTCOME": "2"}, "DRIFTLOOP_ARCHIVE__OUTCOME_RETENTION_DAYS: 2 is less than"),
    ],
)
def test_expire_refuses_what_it_cannot_do(
    arguments: tuple[str, ...],
    environment: dict[str, str],
    message: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(f"DRIFTLOOP_ARCHIVE__{name}_RETENTION_DAYS", value)
    result = run("expire", *arguments)
    assert result.exit_code == ExitCode.USAGE
    assert message in " ".join((result.stderr + capfd.readouterr().err).split())


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("command", [("status",), ("compact",), ("expire", "--predictions-days", "9")])
def test_unavailable_dependency_is_a_sentence_and_an_exit_code(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "list_objects", raising(StorageUnavailable("the store is away")))
        result = run(*command)
    assert (result.exit_code, result.stderr.strip()) == (
        ExitCode.UNAVAILABLE,
        "the store is away (DRIFTLOOP_STORAGE__URL)",
    )
    monkeypatch.setattr(reader, "committed_positions", raising(BrokerUnavailable("Kafka is away")))
    result = run(*command)
    assert (result.exit_code, result.stderr.strip()) == (ExitCode.UNAVAILABLE, "Kafka is away")


@pytest.mark.parametrize("command", ["compact", "status"])
def test_unreadable_file_is_named(store: ObjectStore, command: str) -> None:
    path = list_slices(store, TOPIC)[0].path
    store.write(path, b"no Parquet file")
    result = run(command)
    assert (result.exit_code, result.stdout) == (ExitCode.ERROR, "")
    assert f"{path} is not a readable Parquet file; restore or delete it" in result.stderr.replace("\n", "")
