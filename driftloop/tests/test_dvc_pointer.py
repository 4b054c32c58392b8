"""DVC pointers of dataset versions. The files themselves: tests/integration/test_dvc.py and the trainer's tests."""

import sys
from pathlib import Path

import pytest

from driftloop.settings import StorageSettings
from driftloop.storage import dvc
from driftloop.storage.dvc import DatasetVersionNotFound, DvcPointer

pytestmark = pytest.mark.integration

POINTER = "outs:\n- md5: d9e66d0e619760ef25a4b2050a3c1ab5\n  size: 4251102\n  hash: md5\n  path: flights.parquet\n"


def test_parse_pointer_returns_name_md5_and_size() -> None:
    pointer = DvcPointer("flights.parquet", "d9e66d0e619760ef25a4b2050a3c1ab5", 4251102)
    assert dvc.parse_pointer(POINTER) == pointer
    assert dvc.parse_pointer(POINTER.replace("  size: 4251102\n", "")) == pointer._replace(size=None)


@pytest.mark.parametrize(
    "pointer",
    [
        "",
        "- a\n- b\n",
        "a: b: c",
        POINTER.replace("flights.parquet", "../flights.parquet"),
        POINTER.replace("flights.parquet", "/etc/flights.parquet"),
        POINTER + "wdir: /etc\n",
        POINTER + "  remote: another\n",
        POINTER + "deps:\n- path: https://example.org/flights.parquet\n",
        POINTER + "- md5: d9e66d0e619760ef25a4b2050a3c1ab5\n  path: another.parquet\n",
    ],
)
def test_dvc_pull_rejects_pointer_that_leads_elsewhere(pointer: str, storage: StorageSettings, tmp_path: Path) -> None:
    with pytest.raises(DatasetVersionNotFound, match=r"not a \.dvc file of a single file"):
        dvc.pull(storage, pointer, tmp_path)


def test_dvc_pull_returns_pushed_bytes(storage: StorageSettings, tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    file.write_bytes(bytes(range(256)) * 1_000)
    pointer = dvc.push(storage, file)
    assert dvc.push(storage, file) == pointer
    back = dvc.pull(storage, pointer, tmp_path / "back")
    assert (back.name, back.read_bytes()) == (file.name, file.read_bytes())


def test_dvc_pull_without_dvc_says_what_to_install(
    storage: StorageSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dvc.repo", None)
    with pytest.raises(ImportError, match=r"pip install 'driftloop\[datasets\]'"):
        dvc.pull(storage, POINTER, tmp_path)
