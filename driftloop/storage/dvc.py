"""Versions of datasets: Parquet files in the bucket, under DVC, each named by the text of its ``.dvc`` file, a pointer.

Whoever has a pointer gets the exact bytes back, with these functions or with plain ``dvc pull``. The pointer of what a
model version was trained on lies among the artifacts of its MLflow run.
"""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow.parquet as pq
import yaml

from driftloop.settings import Storage
from driftloop.storage.bucket import Bucket

if TYPE_CHECKING:
    from driftloop.registry.model_registry import Registry

FOLDER = "datasets"  # DVC's remote, in the bucket
ARTIFACTS = "dataset"  # where a run has its pointer
NEEDED = "pip install 'driftloop[datasets]'"
IMPORTS = (
    *("dvc.repo", "dvc.repo.index", "dvc.scm", "dvc_gs", "dvc_render"),
    *("gcsfs", "gcsfs.extended_gcsfs", "networkx", "ruamel.yaml"),
)
"""What DVC imports when it is first used: a process that has them puts a file into the bucket in 0.4 s, and not 1.8."""


class Lost(Exception):
    """A dataset version cannot be brought back: its pointer, or the file that it names, is not there or not right."""


class Pointed(NamedTuple):
    """The file that a pointer names."""

    name: str
    md5: str


class Restored(NamedTuple):
    """A file that was brought back."""

    path: Path
    rows: int
    md5: str


def push(storage: Storage, file: Path) -> str:
    """Puts a file into the bucket as a dataset version; returns its pointer.

    The same bytes under the same name are the same version. Raises :class:`~driftloop.storage.bucket.Away`.
    """
    with _repository(storage) as (folder, repo):
        here = folder / file.name
        shutil.copyfile(file, here)
        repo.add(targets=[str(here)])
        repo.push(targets=[str(here)])
        return here.with_name(f"{here.name}.dvc").read_text()


def pull(storage: Storage, pointer: str, into: Path) -> Path:
    """Brings the file that a pointer names back from the bucket, byte for byte, into a folder.

    If it lies there already, it stays. Raises :class:`Lost`, also where the folder has another file of its name, and
    :class:`~driftloop.storage.bucket.Away` where the bucket does not answer.
    """
    named = pointed(pointer)
    there = into / named.name
    if there.exists():
        if (md5 := _md5(there)) != named.md5:
            raise Lost(f"{there} is there already, and is another file: its md5 is {md5}, and not {named.md5}")
        return there
    with _repository(storage) as (folder, repo):
        from dvc.exceptions import DvcException  # noqa: PLC0415  # see _repository

        here = folder / named.name
        here.with_name(f"{named.name}.dvc").write_text(pointer)
        try:
            repo.pull(targets=[f"{here}.dvc"])
        except DvcException as error:
            raise Lost(
                f"gs://{storage.bucket}/{FOLDER} does not have {named.name} with md5 {named.md5}: "
                f"{type(error).__name__} of DVC"
            ) from error
        if (md5 := _md5(here)) != named.md5:
            raise Lost(
                f"gs://{storage.bucket}/{FOLDER} has {here.stat().st_size:,} bytes of another file in place of "
                f"{named.name}: their md5 is {md5}, and not {named.md5}"
            )
        into.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(here, there))


def restore(storage: Storage, pointer: str, into: Path) -> Restored:
    """The same, with the pointer beside the file, as plain DVC has them."""
    path = pull(storage, pointer, into)
    path.with_name(f"{path.name}.dvc").write_text(pointer)
    return Restored(path, pq.read_metadata(path).num_rows, pointed(pointer).md5)


def pointed(pointer: str) -> Pointed:
    """What a pointer names. Raises :class:`Lost` where it is not that of one file, as :func:`push` makes them.

    It may come from an artifact that anybody wrote: a path or an address in it leads nowhere.
    """
    try:
        match yaml.safe_load(pointer):
            case {"outs": [{"md5": str(md5), "path": str(path), **others}], **rest} if (
                rest.keys() <= {"md5"} and others.keys() <= {"size", "hash"} and Path(path).name == path
            ):
                return Pointed(path, md5)
    except yaml.YAMLError:
        pass
    raise Lost(f"no .dvc file of one file that was added by itself: {pointer[:200]!r}")


def artifact(file: Path) -> str:
    """Where a run has the pointer of a file."""
    return f"{ARTIFACTS}/{file.name}.dvc"


def of_version(registry: "Registry", version: str) -> str:
    """The pointer of what a model version was trained on.

    Raises :class:`Lost` where there is none, and what MLflow raises where it does not answer.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  # whoever has a registry has it

    try:
        run_id = registry.client.get_model_version(registry.model, version).run_id
        found = registry.client.list_artifacts(run_id, ARTIFACTS) if run_id else []
    except MlflowException as error:
        if error.get_http_status_code() in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND):
            raise Lost(f"{registry.model} has no version {version}, or its run is gone: {error}") from error
        raise
    paths = [file.path for file in found if file.path.endswith(".dvc")]
    if len(paths) != 1:
        raise Lost(
            f"the run of version {version} names no dataset: it has {len(paths)} .dvc files below {ARTIFACTS}/, not one"
        )
    with tempfile.TemporaryDirectory(prefix="driftloop-pointer-") as folder:
        return Path(registry.client.download_artifacts(run_id, paths[0], folder)).read_text()


def _md5(file: Path) -> str:
    with file.open("rb") as content:
        return file_digest(content, "md5").hexdigest()


@contextmanager
def _repository(storage: Storage) -> Iterator[tuple[Path, Any]]:
    """A DVC repository for once, whose remote is the bucket: a pointer is all that it takes."""
    try:
        from dvc.repo import Repo  # noqa: PLC0415  # the command has use for it in one of its parts only
    except ImportError as error:
        raise ImportError(f"datasets need DVC, which is not installed: {NEEDED}") from error

    logging.getLogger("dvc").setLevel(logging.WARNING)  # it tells of each repository made, and ours live for seconds
    Bucket(storage).exists(FOLDER)  # DVC would try for long, and without a word; gcsfs is set up by this, too
    remote: dict[str, object] = {"url": f"gs://{storage.bucket}/{FOLDER}"}
    if storage.endpoint:
        remote |= {"endpointurl": storage.endpoint, "allow_anonymous_login": True}
    with tempfile.TemporaryDirectory(prefix="driftloop-dataset-") as name:
        folder = Path(name) / "repository"
        (folder / ".dvc").mkdir(parents=True)
        core = {"remote": "bucket", "no_scm": True, "analytics": False, "site_cache_dir": f"{name}/cache"}
        repo = Repo(str(folder), config={"core": core, "remote": {"bucket": remote}})
        try:
            yield folder, repo
        finally:
            repo.close()
