"""Download a model and load it without trusting its author."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import structlog
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from requests import RequestException

from driftloop.errors import RegistryUnavailable, Rejected
from driftloop.registry.client import translate_errors
from driftloop.registry.file_contents import require_harmless, require_plain_keys
from driftloop.registry.library_versions import (
    LibraryVersion,
    library_versions,
    mismatch_note,
    mismatches,
    read_schema,
    require_compatible,
)
from driftloop.registry.model_kinds import FLAVOR, predict_method, require_prediction_method, require_supported
from driftloop.registry.trusted_types import TRUSTED_TYPES
from driftloop.registry.untrusted_types import explain_missing_package, explain_untrusted

log = structlog.get_logger(__name__)


class LoadedModel(NamedTuple):
    """A model in memory, with the metadata that was stored with it."""

    estimator: Any
    """A scikit-learn estimator."""
    description: Model
    """MLflow's metadata of the model, such as its signature."""
    example: pd.DataFrame | npt.NDArray[Any] | None
    """The input example that was logged with the model."""
    library_versions: Mapping[str, LibraryVersion] = MappingProxyType({})
    """The versions of libraries that the model was saved with, and those of this process."""

    @property
    def signature(self) -> ModelSignature:
        """The columns and types that the model accepts."""
        return self.description.signature

    @property
    def predict_fn(self) -> str:
        """The name of the estimator's method that makes predictions, such as ``predict`` or ``predict_proba``."""
        return predict_method(self.description)

    @property
    def version_note(self) -> str:
        """The versions that differ, in brackets, for an error that they may have caused; empty if none does."""
        return mismatch_note(self.library_versions)


class ModelRejected(Rejected):
    """The model cannot be served; the message says why."""


class ModelFilesUnreadable(ModelRejected):
    """The model's files are missing or broken. They may be complete later, if their upload has not ended."""


@translate_errors()
def download_model(uri: str, into: Path) -> Path:
    """Download a model's files below the folder ``into`` and return the model's own folder.

    Args:
        uri: MLflow's address of the model's files, or of a logged model that is not registered yet.
        into: An existing folder.

    Raises:
        ModelFilesUnreadable: The registry answers, but has no such model or no files of it.
        RegistryUnavailable: The registry or the artifact store does not answer, or refuses access.
    """
    with reject_missing():
        try:
            return Path(download_artifacts(uri, dst_path=str(into)))
        except (MlflowException, RequestException):
            raise
        except Exception as error:  # each artifact store has a client library with errors of its own
            raise RegistryUnavailable(
                f"the artifacts of {uri} cannot be downloaded: {type(error).__name__}: {error}"
            ) from error


@contextmanager
def reject_missing() -> Iterator[None]:
    """Raise :class:`ModelFilesUnreadable` if MLflow answers in the block that it does not have what is requested."""
    try:
        yield
    except MlflowException as error:
        if error.get_http_status_code() == 404 or error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise ModelFilesUnreadable(f"the registry does not have it: {error}") from error
        raise


def load_model(folder: Path, added_types: Sequence[str] = ()) -> LoadedModel:
    """Load a model from its folder, and log it if it was saved with other versions of libraries.

    Only the format skops is loaded: a pickle runs whatever code its author has put into it. The list of trusted types
    that is stored with the model is ignored, because it is its author's.

    Args:
        folder: The folder with the file ``MLmodel``.
        added_types: Types of the setting ``DRIFTLOOP_REGISTRY__TRUSTED_TYPES``, trusted besides
            :data:`~driftloop.registry.trusted_types.TRUSTED_TYPES`.

    Raises:
        ModelFilesUnreadable: The files are missing or broken.
        ModelRejected: The model is of another kind, of an incompatible version, without a signature or a method that
            predicts, or its files contain other types or harmful values.
    """
    versions: dict[str, LibraryVersion] = {}
    with _reject_unloadable(versions):
        description = Model.load(str(folder))
        require_supported(description)
        file = folder / description.flavors[FLAVOR]["pickled_model"]
        schema = read_schema(file)
        versions |= library_versions(folder, description, schema)
        _log_mismatches(description, versions)
        require_compatible(versions, schema)
        estimator = _load_file(file, schema, added_types, versions)
        require_prediction_method(estimator, description)
        example = description.load_input_example(str(folder))
    rows = example if isinstance(example, pd.DataFrame | np.ndarray) else None
    return LoadedModel(estimator, description, rows, versions)


def load_estimator(file: Path, added_types: Sequence[str] = ()) -> Any:
    """Load the estimator in a skops file, as :func:`load_model` does; nothing else about the model is known.

    Raises:
        ModelFilesUnreadable: The file is missing or broken.
        ModelRejected: The file contains types that are not trusted, or harmful values.
    """
    with _reject_unloadable({}):
        return _load_file(file, read_schema(file), added_types, {})


def untrusted_types(file: Path, added_types: Sequence[str] = ()) -> list[str]:
    """Return the types in a skops file that are not trusted, sorted; the file is not loaded.

    Raises:
        ModelFilesUnreadable: The file is missing or broken.
    """
    import skops.io  # noqa: PLC0415  # takes seconds, and most users of the registry load nothing

    with _reject_unloadable({}):
        return sorted(set(skops.io.get_untrusted_types(file=file)) - {*TRUSTED_TYPES, *added_types})


def _load_file(
    file: Path, schema: dict[str, Any], added_types: Sequence[str], versions: Mapping[str, LibraryVersion]
) -> Any:
    import skops.io  # noqa: PLC0415  # takes seconds, and most users of the registry load nothing
    from skops.io.exceptions import UntrustedTypesFoundException  # noqa: PLC0415

    require_plain_keys(schema)
    try:
        estimator = skops.io.load(file, trusted=[*TRUSTED_TYPES, *added_types])
    except UntrustedTypesFoundException as error:
        raise ModelRejected(explain_untrusted(untrusted_types(file, added_types), added_types, versions)) from error
    require_harmless(estimator)
    return estimator


@contextmanager
def _reject_unloadable(versions: Mapping[str, LibraryVersion]) -> Iterator[None]:
    """Raise :class:`ModelRejected` for whatever is wrong with a model's files in the block."""
    try:
        yield
    except ModelRejected:
        raise
    except Rejected as error:
        raise ModelRejected(str(error)) from error
    except ModuleNotFoundError as error:
        raise ModelRejected(explain_missing_package(error.name or str(error), versions)) from error
    except Exception as error:  # broken files, and files of other versions, raise errors of many types
        problem = f"{type(error).__name__}: {error}{mismatch_note(versions)}"
        raise ModelFilesUnreadable(f"the model's files cannot be loaded: {problem}") from error


def _log_mismatches(description: Model, versions: Mapping[str, LibraryVersion]) -> None:
    if other := mismatches(versions):
        log.warning(
            "model.version_mismatch",
            model_id=description.model_id,
            saved={library: pair.saved for library, pair in other.items()},
            running={library: pair.running for library, pair in other.items()},
        )
