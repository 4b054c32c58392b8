"""Publishing a base dataset: the pointer is written, kept or refused; against a server with GCS's protocol."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from driftloop.errors import InvalidInput
from driftloop.exit_codes import ExitCode
from driftloop.settings import StorageSettings
from driftloop.storage import base_dataset, dvc
from driftloop.storage.base_dataset import BaseDatasetDiffers
from driftloop.storage.object_store import ObjectStore
from driftloop.usecase import UseCase
from driftloop_cli.main import app
from tests.support.synthetic_usecase import make_use_case

ROWS = pd.DataFrame({"at": pd.date_range("2026-01-01", periods=3, tz="UTC"), "x": [1.0, 2.0, 3.0], "y": [0, 1, 0]})


@pytest.fixture
def use_case(tmp_path: Path) -> UseCase:
    """A use case without a pointer, whose rows are no file."""
    return replace(make_use_case(), dvc_file=tmp_path / "new folder" / "m.parquet.dvc", load_rows=ROWS.copy)


@pytest.mark.integration
def test_use_case_without_pointer_gets_one_for_its_rows(storage: StorageSettings, use_case: UseCase) -> None:
    first = base_dataset.publish(storage, use_case)
    assert (first.name, first.action) == ("m.parquet", "pointed")
    pointer = use_case.dvc_file.read_text()
    assert dvc.parse_pointer(pointer).md5 == first.md5
    assert [file.name for file in use_case.dvc_file.parent.iterdir()] == ["m.parquet.dvc"]
    again = base_dataset.publish(storage, use_case)
    assert (again.action, again.md5, again.local_differs) == ("kept", first.md5, False)
    restored = dvc.pull(storage, pointer, use_case.dvc_file.parent / "restored")
    pd.testing.assert_frame_equal(pd.read_parquet(restored), ROWS)


@pytest.mark.integration
def test_version_that_the_bucket_lacks_is_uploaded_only_if_the_file_is_that_version(
    storage: StorageSettings, use_case: UseCase
) -> None:
    published = base_dataset.publish(storage, use_case)
    ObjectStore(storage).delete(f"{dvc.REMOTE_PREFIX}/files/md5/{published.md5[:2]}/{published.md5[2:]}")
    assert base_dataset.publish(storage, use_case) == published._replace(action="uploaded")
    file = use_case.dvc_file.with_suffix("")
    ROWS.head(2).to_parquet(file, index=False)
    assert base_dataset.publish(storage, use_case).local_differs
    pointer = use_case.dvc_file.read_text()
    use_case.dvc_file.write_text(pointer.replace(published.md5, "f" * 32))
    with pytest.raises(BaseDatasetDiffers) as error:
        base_dataset.publish(storage, use_case)
    assert str(file) in str(error.value)
    assert "--replace" in str(error.value)
    replaced = base_dataset.publish(storage, use_case, replace=True)
    assert (replaced.action, replaced.md5) == ("pointed", dvc.md5_of(file))
    assert dvc.parse_pointer(use_case.dvc_file.read_text()).md5 == replaced.md5


def test_dvc_file_with_another_suffix_is_refused(use_case: UseCase) -> None:
    with pytest.raises(InvalidInput, match=r"must end in \.dvc"):
        base_dataset.publish(StorageSettings(), replace(use_case, dvc_file=Path("m.parquet")))


@pytest.mark.integration
def test_command_publishes_and_refuses_with_its_exit_code(
    storage: StorageSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOURLY_POINTER", str(tmp_path / "hourly.parquet.dvc"))
    monkeypatch.setenv("DRIFTLOOP_STORAGE__URL", storage.url)
    monkeypatch.setenv("DRIFTLOOP_STORAGE__ENDPOINT", str(storage.endpoint))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "published_usecase.py").write_text(
        "from dataclasses import replace\nfrom pathlib import Path\n"
        "from tests.support.regression_usecase import usecase as hourly\n"
        "usecase = replace(hourly, dvc_file=Path(__file__).with_name('hourly.parquet.dvc'))\n"
    )
    monkeypatch.setenv("DRIFTLOOP_USE_CASE", "published_usecase:usecase")
    pointer = tmp_path / "hourly.parquet.dvc"
    done = CliRunner().invoke(app, ["data", "publish"])
    assert (done.exit_code, pointer.exists()) == (ExitCode.SUCCESS, True), done.output
    pointer.write_text(pointer.read_text().replace(dvc.parse_pointer(pointer.read_text()).md5, "f" * 32))
    assert CliRunner().invoke(app, ["data", "publish"]).exit_code == ExitCode.REFUSED
    assert CliRunner().invoke(app, ["data", "publish", "--replace"]).exit_code == ExitCode.SUCCESS
