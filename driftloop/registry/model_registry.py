"""The MLflow registry: which version serves, and loading a version without trusting what it says of itself."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from driftloop import settings
from driftloop.events import ModelChange
from driftloop.settings import TRUSTED_TYPES

# A server that is away is met again at the next poll: no use in MLflow's own ten minutes of tries.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # standard error has the log, one line each

FLAVOR = "sklearn"
PREVIOUS = "previous"  # the alias of the version that was in service before
CHALLENGER = "challenger"  # the alias of the latest version that was registered
RETRAIN = "retrain_id"  # tags of a version
OUTCOME = "outcome"
ROLLED_BACK = "rolled_back"
LEARNED_UNTIL = "last_time"  # parameter of a run


class StoredModel(NamedTuple):
    """A version as it lies in the registry."""

    estimator: Any
    """A scikit-learn estimator."""
    description: Model
    """What MLflow's own tools know of it, its signature among them."""
    example: pd.DataFrame | npt.NDArray[Any] | None

    @property
    def signature(self) -> ModelSignature:
        """The columns that it takes."""
        return self.description.signature

    @property
    def predict_fn(self) -> str:
        """The estimator's method that answers, such as ``predict`` or ``predict_proba``."""
        return str(self.description.flavors.get("python_function", {}).get("predict_fn", "predict"))


class Refused(Exception):
    """The version cannot be served; says why."""


class Registry:
    """One registered model and the alias that names its version in service."""

    def __init__(self, registry: settings.Registry) -> None:
        """Connects at the first use."""
        self.model = registry.model
        self.alias = registry.alias
        # models:/ addresses are looked up where the whole process looks them up.
        mlflow.set_tracking_uri(registry.uri)
        mlflow.set_registry_uri(registry.uri)
        self.client = MlflowClient(tracking_uri=registry.uri, registry_uri=registry.uri)

    def champion(self) -> str | None:
        """The version in service; ``None`` while there is none."""
        return self.named(self.alias)

    def previous(self) -> str | None:
        """The version that was in service before; ``None`` where there is none to go back to."""
        return self.named(PREVIOUS)

    def named(self, alias: str) -> str | None:
        """The version behind an alias; ``None`` while there is none."""
        try:
            return str(self.client.get_model_version_by_alias(self.model, alias).version)
        except MlflowException as error:
            if error.error_code in (ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), "INVALID_PARAMETER_VALUE"):
                return None  # no such model yet, or a model without the alias
            raise

    def create_version(self, source: str, retrain_id: str, figures: Mapping[str, float]) -> str:
        """Registers a logged model as a new version, the challenger, with its figures; returns its number."""
        tags = {RETRAIN: retrain_id, **{name: f"{value:.6g}" for name, value in figures.items()}}
        version = str(mlflow.register_model(source, self.model, tags=tags).version)
        self.client.set_registered_model_alias(self.model, CHALLENGER, version)
        return version

    def record(self, version: str, change: ModelChange) -> None:
        """Writes how the version's retrain ended onto the version, where the MLflow UI shows it."""
        self.client.update_model_version(self.model, version, f"{change.state}: {change.why}")
        self.client.set_model_version_tag(self.model, version, OUTCOME, change.model_dump_json())

    def outcome_of(self, retrain_id: str) -> ModelChange | None:
        """What :meth:`record` wrote for a retrain; ``None`` where it has not ended."""
        for version in self._versions_of(retrain_id):
            if OUTCOME in version.tags:
                return ModelChange.model_validate_json(version.tags[OUTCOME])
        return None

    def traceparent(self, version: str) -> str | None:
        """The span of the retrain that a version came of; ``None`` where it was not traced, or not ended."""
        outcome = self.client.get_model_version(self.model, version).tags.get(OUTCOME)
        return ModelChange.model_validate_json(outcome).traceparent if outcome else None

    def abandon(self, retrain_id: str) -> None:
        """Deletes what a retrain left that was killed before its outcome was recorded: it begins anew."""
        for version in self._versions_of(retrain_id):
            if OUTCOME not in version.tags:
                self.client.delete_model_version(self.model, version.version)
        experiment = self.client.get_experiment_by_name(self.model)
        if experiment is not None:
            unfinished = f"tags.{RETRAIN} = '{retrain_id}' and attributes.status = 'RUNNING'"
            for run in self.client.search_runs([experiment.experiment_id], unfinished):
                self.client.set_terminated(run.info.run_id, "KILLED")

    def _versions_of(self, retrain_id: str) -> list[ModelVersion]:
        return list(self.client.search_model_versions(f"name = '{self.model}' and tags.{RETRAIN} = '{retrain_id}'"))

    def learned_until(self, version: str) -> pd.Timestamp:
        """The time of the latest row that a version has learned from; the year 1970 where its run does not say."""
        run_id = self.client.get_model_version(self.model, version).run_id
        known = self.client.get_run(run_id).data.params.get(LEARNED_UNTIL) if run_id else None
        return pd.Timestamp(known or 0, tz=None if known else "UTC")

    def promote(self, version: str) -> None:
        """Moves the alias: the version goes into service with the predictors' next look.

        The version that it replaces is named first, so that there is always one to go back to.
        """
        champion = self.champion()
        if champion not in (None, version):
            self.client.set_registered_model_alias(self.model, PREVIOUS, champion)
        self.client.set_registered_model_alias(self.model, self.alias, version)

    def withdraw(self, version: str, change: ModelChange) -> None:
        """Moves the alias from one version back to another, as the change says; nothing leads back to the first.

        It is written onto the version before: what is killed in between leaves what is to be told.
        """
        description = self.client.get_model_version(self.model, version).description or ""
        self.client.update_model_version(self.model, version, f"{description}\n\n{change.state}: {change.why}".strip())
        self.client.set_model_version_tag(self.model, version, ROLLED_BACK, change.model_dump_json())
        self.client.set_registered_model_alias(self.model, self.alias, change.version)
        self.client.delete_registered_model_alias(self.model, PREVIOUS)

    def withdrawn(self) -> list[ModelChange]:
        """How versions went out of service again, as :meth:`withdraw` wrote it."""
        found = self.client.search_model_versions(f"name = '{self.model}'")
        told = [version.tags[ROLLED_BACK] for version in found if ROLLED_BACK in version.tags]
        return [ModelChange.model_validate_json(change) for change in told]

    def versions(self) -> list[str]:
        """All that there are, in their order."""
        found = self.client.search_model_versions(f"name = '{self.model}'")
        return [str(number) for number in sorted(int(version.version) for version in found)]

    def retrain_of(self, version: str) -> str:
        """The id of the retrain that a version came of; empty where it came in another way."""
        return str(self.client.get_model_version(self.model, version).tags.get(RETRAIN, ""))

    def load(self, version: str, trusted: Sequence[str] = TRUSTED_TYPES) -> StoredModel:
        """Fetches and loads a version; see :meth:`fetch` and :func:`read`."""
        with tempfile.TemporaryDirectory(prefix="driftloop-model-") as folder:
            return read(self.fetch(version, Path(folder)), trusted)

    def fetch(self, version: str, into: Path) -> Path:
        """Copies a version's files below the folder ``into``; returns the model's own folder.

        Raises :class:`Refused` where the registry answers and the version or its files are not there, and otherwise
        what MLflow raises: the registry or the store is out of reach.
        """
        return fetched(f"models:/{self.model}/{version}", into)


def fetched(model: str, into: Path) -> Path:
    """The same of a model by its address, which may be that of a logged one that is no version yet."""
    try:
        return Path(download_artifacts(model, dst_path=str(into)))
    except MlflowException as error:
        if error.get_http_status_code() == 404 or error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise Refused(f"the registry does not have it: {error}") from error
        raise


def read(folder: Path, trusted: Sequence[str]) -> StoredModel:
    """Loads a model from its folder.

    Only skops is read, with the caller's list of trusted types: a pickle runs whatever its author wrote, and the
    list that is stored with a model is its author's too. Raises :class:`Refused`.
    """
    import skops.io  # noqa: PLC0415  # takes seconds, and most users of the registry load nothing
    from skops.io.exceptions import UntrustedTypesFoundException  # noqa: PLC0415

    try:
        stored = Model.load(str(folder))
        flavor = stored.flavors.get(FLAVOR)
        if flavor is None or flavor.get("serialization_format") != "skops":
            raise Refused("only scikit-learn models saved with serialization_format='skops' are loaded")
        if stored.signature is None or stored.signature.inputs is None:
            raise Refused("the model has no signature: log it with one, requests are checked against it")
        estimator = skops.io.load(folder / flavor["pickled_model"], trusted=list(trusted))
        example = stored.load_input_example(str(folder))
    except Refused:
        raise
    except UntrustedTypesFoundException as error:
        raise Refused(f"{error} (the setting DRIFTLOOP_PREDICTOR__TRUSTED_TYPES)") from error
    except Exception as error:  # broken files, or those of other versions, fail in as many ways as there are types
        raise Refused(f"the model's files cannot be loaded: {type(error).__name__}: {error}") from error
    return StoredModel(estimator, stored, example if isinstance(example, pd.DataFrame | np.ndarray) else None)
