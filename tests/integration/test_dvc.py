"""Datasets under DVC: plain ``dvc pull`` needs only the repository's files and access to the bucket."""

import os
import shutil
import subprocess
import sys
from hashlib import md5
from pathlib import Path

import pytest

from driftloop.storage import dvc
from stack.running import Stack
from tests.support.running_stack import run_command
from usecases.flights import usecase

ROOT = Path(__file__).resolve().parents[2]
# The emulator does not support hierarchical namespaces.
GCS_EMULATOR_ENVIRONMENT = {**os.environ, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}


def test_plain_dvc_pulls_the_dataset_from_the_bucket(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", tmp_path / ".dvc")
    # The settings of a user who has a server with GCS's protocol instead of GCS.
    (tmp_path / ".dvc" / "config.local").write_text(
        "[core]\n    no_scm = true\n['remote \"bucket\"']\n"
        f"    endpointurl = {stack.storage.endpoint}\n    allow_anonymous_login = true\n"
    )
    shutil.copy(usecase.dvc_file, tmp_path)
    dvc = Path(sys.executable).with_name("dvc")
    subprocess.run(
        [str(dvc), "pull", usecase.dvc_file.name],
        cwd=tmp_path,
        env=GCS_EMULATOR_ENVIRONMENT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    digest = md5((tmp_path / "flights.parquet").read_bytes(), usedforsecurity=False).hexdigest()
    assert f"md5: {digest}\n" in usecase.dvc_file.read_text()


@pytest.fixture(scope="module")
def training_file(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Push a dataset for version 1 of a model, whose run has the pointer; version 2 has none. Return the file."""
    file = tmp_path_factory.mktemp("trained") / "restored.parquet"
    usecase.load_rows().head(1_000).to_parquet(file, index=False)
    client = stack.registry.client
    experiment = client.create_experiment("restored")
    with_pointer, without = (client.create_run(experiment).info.run_id for _ in range(2))
    client.log_text(with_pointer, dvc.push(stack.storage, file), dvc.artifact_path(file))
    client.create_registered_model("restored")
    for run in (with_pointer, without):
        client.create_model_version("restored", source=f"runs:/{run}/model", run_id=run)
    return file


def restore(stack: Stack, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run ``driftloop data restore`` for the model ``restored``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(stack.environment, "DRIFTLOOP_REGISTRY__MODEL", "restored")
        return run_command(stack, "driftloop", "data", "restore", *arguments)


def test_data_restore_fetches_dataset_of_a_version(stack: Stack, training_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new folder"
    result = restore(stack, "1", "--to", str(folder))
    assert result.returncode == 0, result.stdout + result.stderr
    content = (folder / "restored.parquet").read_bytes()
    assert content == training_file.read_bytes()
    assert result.stdout.strip() == (
        f"{folder / 'restored.parquet'}: 1,000 rows, md5 {md5(content, usedforsecurity=False).hexdigest()}"
    )
    assert sorted(file.name for file in folder.iterdir()) == ["restored.parquet", "restored.parquet.dvc"]


def test_plain_dvc_restores_dataset_by_pointer_of_the_run(stack: Stack, training_file: Path, tmp_path: Path) -> None:
    """Run the commands of ``driftloop data restore --help``, with two more lines for a server that is not GCS."""
    run = stack.registry.client.get_model_version("restored", "1").run_id
    script = f"""
    mlflow artifacts download --run-id {run} --artifact-path dataset --dst-path .
    cd dataset && dvc init --no-scm && dvc remote add --default store {stack.storage.url}/datasets
    dvc remote modify store endpointurl {stack.storage.endpoint}
    dvc remote modify store allow_anonymous_login true
    dvc pull *.dvc
    """
    environment = {
        **GCS_EMULATOR_ENVIRONMENT,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": stack.components["mlflow"].url,
    }
    result = subprocess.run(
        ["/bin/bash", "-ec", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "dataset" / "restored.parquet").read_bytes() == training_file.read_bytes()


def test_data_restore_keeps_equal_file_and_refuses_to_overwrite_another(
    stack: Stack, training_file: Path, tmp_path: Path
) -> None:
    existing_file = tmp_path / training_file.name
    shutil.copy(training_file, existing_file)
    assert restore(stack, "1", "--to", str(tmp_path)).returncode == 0
    existing_file.write_bytes(b"another file")
    result = restore(stack, "1", "--to", str(tmp_path))
    assert result.returncode == 7
    assert "exists already and is another file" in result.stderr
    assert existing_file.read_bytes() == b"another file"


@pytest.mark.parametrize(
    ("version", "expected_error"),
    [("2", "version 2 names no dataset"), ("9", "has no version 9"), ("one", "has no version one")],
)
def test_data_restore_reports_version_without_dataset(
    stack: Stack, training_file: Path, version: str, expected_error: str
) -> None:
    assert training_file.exists()
    result = restore(stack, version)
    assert result.returncode == 7, result.stderr
    assert expected_error in result.stderr
