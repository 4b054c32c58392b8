"""Download a model and load it without trusting its author."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from driftloop.errors import Rejected
from driftloop.registry.client import translate_errors

FLAVOR = "sklearn"


class LoadedModel(NamedTuple):
    """A model in memory, with the metadata that was stored with it."""

    estimator: Any
    """A scikit-learn estimator."""
    description: Model
    """MLflow's metadata of the model, such as its signature."""
    example: pd.DataFrame | npt.NDArray[Any] | None
    """The input example that was logged with the model."""

    @property
    def signature(self) -> ModelSignature:
        """The columns and types that the model accepts."""
        return self.description.signature

    @property
    def predict_fn(self) -> str:
        """The name of the estimator's method that makes predictions, such as ``predict`` or ``predict_proba``."""
        return str(self.description.flavors.get("python_function", {}).get("predict_fn", "predict"))


class ModelRejected(Rejected):
    """The model cannot be served; the message says why."""


@translate_errors()
def download_model(uri: str, into: Path) -> Path:
    """Download a model's files below the folder ``into`` and return the model's own folder.

    Args:
        uri: MLflow's address of the model's files, or of a logged model that is not registered yet.
        into: An existing folder.

    Raises:
        ModelRejected: The registry answers, but has no such model or no files of it.
        RegistryUnavailable: The registry or the artifact store does not answer.
    """
    with reject_missing():
        return Path(download_artifacts(uri, dst_path=str(into)))


@contextmanager
def reject_missing() -> Iterator[None]:
    """Raise :class:`ModelRejected` if MLflow answers in the block that it does not have what is requested."""
    try:
        yield
    except MlflowException as error:
        if error.get_http_status_code() == 404 or error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise ModelRejected(f"the registry does not have it: {error}") from error
        raise


def load_model(folder: Path, trusted: Sequence[str]) -> LoadedModel:
    """Load a model from its folder.

    Only the format skops is loaded: a pickle runs whatever code its author has put into it.

    Args:
        folder: The folder with the file ``MLmodel``.
        trusted: The types that the files may contain besides those that skops trusts itself. The list that is stored
            with the model is ignored, because it is its author's.

    Raises:
        ModelRejected: The files are broken, not in the format skops, without a signature, or contain other types.
    """
    import skops.io  # noqa: PLC0415  # takes seconds, and most users of the registry load nothing
    from skops.io.exceptions import UntrustedTypesFoundException  # noqa: PLC0415

    try:
        description = Model.load(str(folder))
        flavor = description.flavors.get(FLAVOR)
        if flavor is None or flavor.get("serialization_format") != "skops":
            raise ModelRejected("only scikit-learn models saved with serialization_format='skops' are loaded")
        if description.signature is None or description.signature.inputs is None:
            raise ModelRejected("the model has no signature: log it with one, requests are checked against it")
        estimator = skops.io.load(folder / flavor["pickled_model"], trusted=list(trusted))
        example = description.load_input_example(str(folder))
    except ModelRejected:
        raise
    except UntrustedTypesFoundException as error:
        raise ModelRejected(f"{error} (the setting DRIFTLOOP_PREDICTOR__TRUSTED_TYPES)") from error
    except Exception as error:  # broken files, and files of other versions, raise errors of many types
        raise ModelRejected(f"the model's files cannot be loaded: {type(error).__name__}: {error}") from error
    return LoadedModel(estimator, description, example if isinstance(example, pd.DataFrame | np.ndarray) else None)
