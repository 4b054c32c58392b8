"""The library versions that a model was saved with, and those that load it."""

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from mlflow.models import Model

from driftloop.errors import Rejected

# Distributions that have a library, the usual one first.
LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "scikit-learn": ("scikit-learn",),
    "skops": ("skops",),
    "mlflow": ("mlflow", "mlflow-skinny"),
    "numpy": ("numpy",),
    "scipy": ("scipy",),
    "pandas": ("pandas",),
    "lightgbm": ("lightgbm",),
    "xgboost": ("xgboost", "xgboost-cpu"),
    "catboost": ("catboost",),
}
# Types that load and predict without an error, but not the same, since a version of scikit-learn. Of 122 estimators
# saved with 1.5, this is the only one whose predictions 1.9 changed in silence: 1.6 took away SAMME.R, its default.
CHANGED_SINCE = {"sklearn.ensemble._weight_boosting.AdaBoostClassifier": (1, 6)}


class IncompatibleVersion(Rejected):
    """The model was saved with a version of a library whose models cannot be loaded; the message says which."""


@dataclass(frozen=True)
class LibraryVersion:
    """The version of a library that a model was saved with, and the one in this process."""

    saved: str
    running: str | None
    """``None`` if the library is not installed."""


def read_schema(file: Path) -> dict[str, Any]:
    """Return the description of the objects in a skops file."""
    with ZipFile(file) as archive:
        schema: dict[str, Any] = json.loads(archive.read("schema.json"))
    return schema


def library_versions(folder: Path, description: Model, schema: Mapping[str, Any]) -> dict[str, LibraryVersion]:
    """Return the versions of each library of which the model's files name one, and of Python.

    Args:
        folder: The model's folder; its ``requirements.txt`` counts where it has exact versions.
        description: The content of the file ``MLmodel``.
        schema: The schema of the skops file.
    """
    saved = _pinned_versions(folder / "requirements.txt") | {
        "scikit-learn": description.flavors.get("sklearn", {}).get("sklearn_version"),
        "skops": schema.get("_skops_version"),
        "mlflow": description.mlflow_version,
        "python": description.flavors.get("python_function", {}).get("python_version"),
    }
    return {
        library: LibraryVersion(str(saved[library]), _running_version(library))
        for library in ("python", *LIBRARIES)
        if saved.get(library)
    }


def require_compatible(versions: Mapping[str, LibraryVersion], schema: Mapping[str, Any]) -> None:
    """Raise :class:`IncompatibleVersion` for a file that would load, and is known not to predict what it did.

    It is of another major version of scikit-learn, or has a type of :data:`CHANGED_SINCE`. Other differences between
    versions are missing names and attributes: loading or the first prediction fails. skops itself rejects files of its
    own newer protocols.
    """
    pair = versions.get("scikit-learn")
    if pair is None or pair.running is None:
        return
    saved, running = _release(pair.saved), _release(pair.running)
    changed = [name for name, since in CHANGED_SINCE.items() if saved < since <= running and _contains(schema, name)]
    if changed or saved[:1] != running[:1]:
        reason = f"{changed[0]} has changed" if changed else "models of another major version are not loaded"
        raise IncompatibleVersion(
            f"{reason} ({describe_versions({'scikit-learn': pair})}): train the model again with scikit-learn "
            f"{pair.running}, or install scikit-learn=={pair.saved} here"
        )


def mismatches(versions: Mapping[str, LibraryVersion]) -> dict[str, LibraryVersion]:
    """Return the libraries whose version differs."""
    return {library: pair for library, pair in versions.items() if pair.saved != pair.running}


def mismatch_note(versions: Mapping[str, LibraryVersion]) -> str:
    """Return the versions that differ, in brackets, for an error that they may have caused; empty if none does."""
    other = mismatches(versions)
    return f" ({describe_versions(other)})" if other else ""


def describe_versions(versions: Mapping[str, LibraryVersion]) -> str:
    """Return versions as text, such as ``saved with scikit-learn 1.5.2; here: scikit-learn 1.9.1``."""
    saved = ", ".join(f"{library} {pair.saved}" for library, pair in versions.items())
    running = ", ".join(f"{library} {pair.running or 'missing'}" for library, pair in versions.items())
    return f"saved with {saved}; here: {running}"


def _pinned_versions(requirements: Path) -> dict[str, str | None]:
    lines = requirements.read_text().splitlines() if requirements.exists() else []
    matches = (re.fullmatch(r"([\w.-]+)(?:\[.*\])?==([\w.+!-]+)", line) for line in lines)
    pinned = {match[1]: match[2] for match in matches if match}
    return {
        library: next((pinned[name] for name in distributions if name in pinned), None)
        for library, distributions in LIBRARIES.items()
    }


def _running_version(library: str) -> str | None:
    if library == "python":
        return platform.python_version()
    for distribution in LIBRARIES[library]:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None


def _release(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, such as (1, 9) of 1.9rc1."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def _contains(schema: object, name: str) -> bool:
    """Return whether a schema has an object of a type."""
    match schema:
        case dict():
            return f"{schema.get('__module__')}.{schema.get('__class__')}" == name or any(
                _contains(value, name) for value in schema.values()
            )
        case list():
            return any(_contains(value, name) for value in schema)
        case _:
            return False
