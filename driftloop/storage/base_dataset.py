"""Publish a use case's base dataset: the file that its ``.dvc`` file points to, in the store."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.errors import InvalidInput, Rejected
from driftloop.settings import PREFIX, StorageSettings
from driftloop.storage import dvc
from driftloop.usecase import UseCase
from driftloop.usecase_setting import UseCaseSetting

POINTER_SUFFIX = ".dvc"


class PublishSettings(BaseSettings):
    """All settings that publishing needs."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", frozen=True)

    use_case: UseCaseSetting
    storage: StorageSettings = StorageSettings()


class BaseDatasetDiffers(Rejected):
    """The store lacks the version that the pointer names, and the use case's rows are another one."""


class PublishedDataset(NamedTuple):
    """The base dataset as the store has it now."""

    name: str
    md5: str
    action: Literal["kept", "uploaded", "pointed"]
    """Whether the store had it already, it was uploaded, or the ``.dvc`` file was written for it as well."""
    local_differs: bool = False
    """Whether the file beside the ``.dvc`` file is another version than the one that is used."""


def publish(storage: StorageSettings, use_case: UseCase, *, replace: bool = False) -> PublishedDataset:
    """Make sure that the store has the dataset version that the use case's ``.dvc`` file names.

    The dataset is the file beside the ``.dvc`` file, which has its name without the suffix. If there is none, it is
    made of the rows that the use case loads. Without a ``.dvc`` file, one is written for it.

    Args:
        storage: The store.
        use_case: The use case.
        replace: Publish the present file or rows as a new version, and point to that instead.

    Raises:
        InvalidInput: The use case's ``dvc_file`` has another suffix, or cannot be written.
        DatasetVersionNotFound: The ``.dvc`` file is not one of a single file.
        BaseDatasetDiffers: The store does not have the version, and it cannot be made of the present rows.
        StorageUnavailable: The store does not answer.
    """
    if use_case.dvc_file.suffix != POINTER_SUFFIX:
        raise InvalidInput(
            f"the use case {use_case.name} has the dvc_file {use_case.dvc_file}: its name must end in .dvc"
        )
    data = use_case.dvc_file.with_suffix("")
    wanted = None
    if use_case.dvc_file.exists() and not replace:
        wanted = dvc.parse_pointer(use_case.dvc_file.read_text())
        if dvc.is_pushed(storage, wanted):
            return PublishedDataset(wanted.name, wanted.md5, "kept", data.exists() and dvc.md5_of(data) != wanted.md5)
    with _dataset_file(use_case, data) as file:
        if wanted is not None and (md5 := dvc.md5_of(file)) != wanted.md5:
            raise BaseDatasetDiffers(
                f"the object store does not have {wanted.name} with md5 {wanted.md5}, which {use_case.dvc_file} points "
                f"to, and the rows of {use_case.name} are another version, with md5 {md5}: delete {data} if it is out "
                "of date, or publish these rows as a new version: driftloop data publish --replace"
            )
        text = dvc.push(storage, file)
    pushed = dvc.parse_pointer(text)
    if wanted is not None:
        return PublishedDataset(pushed.name, pushed.md5, "uploaded")
    _write(use_case.dvc_file, text)
    return PublishedDataset(pushed.name, pushed.md5, "pointed")


@contextmanager
def _dataset_file(use_case: UseCase, data: Path) -> Iterator[Path]:
    """Give the file with the dataset; one that is written for this only is deleted afterwards."""
    if data.exists():
        yield data
        return
    rows = use_case.load_rows()
    if data.exists():  # some use cases build it when they load it
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="driftloop-dataset-") as folder:
        file = Path(folder) / data.name
        rows.to_parquet(file, index=False)
        yield file


def _write(path: Path, text: str) -> None:
    """Write a file that is replaced as a whole."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.{os.getpid()}")
        new.write_text(text)
        new.replace(path)
    except OSError as error:
        raise InvalidInput(f"{path}, the use case's dvc_file, cannot be written: {error.strerror}") from error
