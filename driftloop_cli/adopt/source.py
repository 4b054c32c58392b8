"""The version to adopt: where it comes from, and in which format its file is."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from mlflow.models import Model

from driftloop.errors import Rejected
from driftloop.registry.library_versions import LibraryVersion, library_versions
from driftloop.registry.loading import ModelFilesUnreadable
from driftloop.registry.model_registry import ModelRegistry

PickleFormat = Literal["pickle", "cloudpickle"]
NativeFormat = Literal["xgboost", "catboost"]
ModelFormat = Literal["skops"] | PickleFormat | NativeFormat
PICKLE_FORMATS: tuple[PickleFormat, ...] = get_args(PickleFormat)
NATIVE_ESTIMATORS: dict[NativeFormat, tuple[str, ...]] = {
    "catboost": ("CatBoostClassifier", "CatBoostRegressor"),
    "xgboost": ("XGBClassifier", "XGBRFClassifier", "XGBRFRegressor", "XGBRegressor"),
}
"""Estimators for scikit-learn that a library saves in a format of its own, which is no Python."""


class NotAdoptable(Rejected):
    """The version, or the rows, cannot be adopted; the message says why."""


class SourceModel(NamedTuple):
    """A registered version, downloaded."""

    model: str
    version: str
    run_id: str
    """The run that logged it; empty if MLflow does not say."""
    logged_by: str
    """The user whose run it is; empty if MLflow does not say."""
    created: datetime
    """When the version was registered: its training had ended by then."""
    description: Model
    file: Path
    """The file with the estimator."""
    format: ModelFormat
    estimator_class: str
    """The estimator's class, of a library's own format; else empty."""
    library_versions: dict[str, LibraryVersion]
    """The versions of libraries that the model was saved with, and those here."""

    @property
    def is_pickle(self) -> bool:
        """Whether loading the file runs code that the file chooses."""
        return self.format in PICKLE_FORMATS

    @property
    def column_names(self) -> list[str] | None:
        """The names of the signature's columns; None without a signature, or if its columns have no names."""
        signature = self.description.signature
        if signature is None or signature.inputs is None or not signature.inputs.has_input_names():
            return None
        return [str(name) for name in signature.inputs.input_names()]


def fetch_source(registry: ModelRegistry, version: str | None, folder: Path) -> SourceModel:
    """Download a version, by default the latest one.

    Raises:
        NotAdoptable: There is no such version, or it is of a kind that cannot be adopted.
        ModelRejected: The registry has no files of it.
        RegistryUnavailable: The registry does not answer.
    """
    versions = registry.versions()
    if not versions:
        raise NotAdoptable(f"the registry has no version of a model {registry.model} (DRIFTLOOP_REGISTRY__URI)")
    version = version or versions[-1]
    if version not in versions:
        raise NotAdoptable(f"{registry.model} has no version {version}; its versions are {', '.join(versions)}")
    model_folder = registry.fetch(version, folder)
    try:
        description = Model.load(str(model_folder))
    except Exception as error:  # a broken file raises errors of many types
        raise ModelFilesUnreadable(f"the file MLmodel cannot be read: {type(error).__name__}: {error}") from error
    name, file_format, estimator_class = _find_file(description)
    if not (file := model_folder / name).is_file():
        raise ModelFilesUnreadable(f"the model's files lack {name}, which MLmodel names")
    origin = registry.origin(version)
    return SourceModel(
        model=registry.model,
        version=version,
        run_id=origin.run_id,
        logged_by=origin.user,
        created=origin.created,
        description=description,
        file=file,
        format=file_format,
        estimator_class=estimator_class,
        library_versions=library_versions(model_folder, description, {}),
    )


def _find_file(description: Model) -> tuple[str, ModelFormat, str]:
    """Return the name, the format and, of a library's own format, the class of the estimator's file."""
    flavors = description.flavors
    if "sklearn" in flavors:
        flavor = flavors["sklearn"]
        return flavor["pickled_model"], _python_format(flavor.get("serialization_format", "pickle")), ""
    if "lightgbm" in flavors:
        flavor = flavors["lightgbm"]
        _require_estimator("lightgbm", flavor.get("model_class", ""), ("LGBMClassifier", "LGBMRegressor"))
        return flavor["data"], _python_format(flavor.get("serialization_format", "cloudpickle")), ""
    for library, key in (("xgboost", "model_class"), ("catboost", "model_type")):
        if library in flavors:
            flavor = flavors[library]
            native: NativeFormat = "xgboost" if library == "xgboost" else "catboost"
            name = _require_estimator(library, flavor.get(key, ""), NATIVE_ESTIMATORS[native])
            return flavor["data"], native, name
    others = sorted(set(flavors) - {"python_function"})
    kind = f"mlflow.{others[0]}" if others else "mlflow.pyfunc"
    raise NotAdoptable(
        f"it was logged with {kind}, and only estimators of scikit-learn, and those that LightGBM, XGBoost and "
        "CatBoost have for it, are served: put what it does into a scikit-learn pipeline, and log that"
    )


def _python_format(name: str) -> ModelFormat:
    if name == "skops":
        return "skops"
    if name in PICKLE_FORMATS:
        return "pickle" if name == "pickle" else "cloudpickle"
    raise NotAdoptable(f"its file is in the format {name}; known are skops, {', '.join(PICKLE_FORMATS)}")


def _require_estimator(library: str, full_name: str, allowed: Sequence[str]) -> str:
    name = full_name.rpartition(".")[2]
    if name not in allowed:
        raise NotAdoptable(
            f"it is {library}'s {name or 'Booster'}, which has no methods of scikit-learn: train and log "
            f"{' or '.join(f'{library}.{estimator}' for estimator in allowed[:2])} in its place"
        )
    return name
