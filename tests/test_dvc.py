"""The dataset is under DVC: whoever has the repository's files and the bucket gets it by plain ``dvc pull``."""

import shutil
import subprocess
import sys
from hashlib import md5
from pathlib import Path

from stack.running import Stack
from trainer import dataset
from usecases.flights import usecase

ROOT = Path(__file__).parent.parent


def test_plain_dvc_pulls_the_dataset_from_the_bucket(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", tmp_path / ".dvc")
    # what a user sets who has a server that speaks GCS's protocol instead of GCS
    (tmp_path / ".dvc" / "config.local").write_text(
        "[core]\n    no_scm = true\n['remote \"bucket\"']\n"
        f"    endpointurl = {stack.storage.endpoint}\n    allow_anonymous_login = true\n"
    )
    shutil.copy(usecase.pointer, tmp_path)
    dvc = Path(sys.executable).with_name("dvc")
    subprocess.run([str(dvc), "pull", usecase.pointer.name], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    digest = md5((tmp_path / "flights.parquet").read_bytes(), usedforsecurity=False).hexdigest()
    assert f"md5: {digest}\n" in usecase.pointer.read_text()


def test_the_trainer_pulls_what_the_pointer_names(stack: Stack) -> None:
    assert dataset.pull(stack.storage, usecase.pointer).equals(usecase.rows())
