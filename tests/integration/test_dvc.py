"""The dataset is under DVC: the repository's files and access to the bucket suffice for plain ``dvc pull``."""

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
NOT_GCS = {**os.environ, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}  # for a server that only speaks its protocol


def test_plain_dvc_pulls_the_dataset_from_the_bucket(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", tmp_path / ".dvc")
    # what a user sets who has a server that speaks GCS's protocol instead of GCS
    (tmp_path / ".dvc" / "config.local").write_text(
        "[core]\n    no_scm = true\n['remote \"bucket\"']\n"
        f"    endpointurl = {stack.storage.endpoint}\n    allow_anonymous_login = true\n"
    )
    shutil.copy(usecase.dvc_file, tmp_path)
    dvc = Path(sys.executable).with_name("dvc")
    subprocess.run(
        [str(dvc), "pull", usecase.dvc_file.name],
        cwd=tmp_path,
        env=NOT_GCS,
        check=True,
        capture_output=True,
        timeout=120,
    )
    digest = md5((tmp_path / "flights.parquet").read_bytes(), usedforsecurity=False).hexdigest()
    assert f"md5: {digest}\n" in usecase.dvc_file.read_text()


@pytest.fixture(scope="module")
def trained_on(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of version 1 of a model, in the bucket and with its pointer on the run; version 2 has no pointer."""
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


def restore(stack: Stack, *words: str) -> "subprocess.CompletedProcess[str]":
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(stack.environment, "DRIFTLOOP_REGISTRY__MODEL", "restored")
        return run_command(stack, "driftloop", "data", "restore", *words)


def test_data_restore_fetches_dataset_of_a_version(stack: Stack, trained_on: Path, tmp_path: Path) -> None:
    folder = tmp_path / "of its own"
    done = restore(stack, "1", "--to", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    content = (folder / "restored.parquet").read_bytes()
    assert content == trained_on.read_bytes()
    assert done.stdout.strip() == (
        f"{folder / 'restored.parquet'}: 1,000 rows, md5 {md5(content, usedforsecurity=False).hexdigest()}"
    )
    assert sorted(file.name for file in folder.iterdir()) == ["restored.parquet", "restored.parquet.dvc"]


def test_plain_dvc_restores_dataset_by_pointer_of_the_run(stack: Stack, trained_on: Path, tmp_path: Path) -> None:
    """The commands that ``driftloop data restore --help`` names, and two lines for a server that is not GCS."""
    run = stack.registry.client.get_model_version("restored", "1").run_id
    script = f"""
    mlflow artifacts download --run-id {run} --artifact-path dataset --dst-path .
    cd dataset && dvc init --no-scm && dvc remote add --default bucket gs://{stack.storage.bucket}/datasets
    dvc remote modify bucket endpointurl {stack.storage.endpoint}
    dvc remote modify bucket allow_anonymous_login true
    dvc pull *.dvc
    """
    environment = {
        **NOT_GCS,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": stack.components["mlflow"].url,
    }
    done = subprocess.run(
        ["/bin/bash", "-ec", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "dataset" / "restored.parquet").read_bytes() == trained_on.read_bytes()


def test_data_restore_keeps_equal_file_and_refuses_to_overwrite_another(
    stack: Stack, trained_on: Path, tmp_path: Path
) -> None:
    there = tmp_path / trained_on.name
    shutil.copy(trained_on, there)
    assert restore(stack, "1", "--to", str(tmp_path)).returncode == 0
    there.write_bytes(b"somebody's own")
    done = restore(stack, "1", "--to", str(tmp_path))
    assert done.returncode == 7
    assert "exists already and is another file" in done.stdout
    assert there.read_bytes() == b"somebody's own"


@pytest.mark.parametrize(
    ("version", "why"), [("2", "version 2 names no dataset"), ("9", "has no version 9"), ("one", "has no version one")]
)
def test_data_restore_reports_version_without_dataset(stack: Stack, trained_on: Path, version: str, why: str) -> None:
    assert trained_on.exists()
    done = restore(stack, version)
    assert done.returncode == 7, done.stderr
    assert why in done.stdout
