"""References in the store: rows and drift profile of a version's training, and its evaluation at the gate.

The trainer saves the reference before an alias can name the version. The drift worker loads it by the version that an
event carries. So a new version brings its own reference, and no service has to be notified or reconfigured.

A version is its number and its run: after a model was deleted and made again, another version has the same number, and
a folder of its own below the number's. Who knows the number alone gets the reference that was saved last.
"""

from contextlib import suppress
from typing import NamedTuple

import numpy as np
import pandas as pd
from pydantic import ValidationError

from driftloop.drift.profile import DriftProfile
from driftloop.errors import ArchiveUnreadable, DriftloopError
from driftloop.events import Evaluation, require_name
from driftloop.storage.object_store import ObjectStore

MAX_ROWS = 200_000  # more rows would not change the statistics: distances to every second row are the same


class Reference(NamedTuple):
    """A version's reference: what its windows are compared with."""

    rows: pd.DataFrame
    """Features and prediction, in order of time."""
    profile: DriftProfile


class ReferenceUnavailable(DriftloopError):
    """A version has no readable reference; the message says which object is missing or wrong."""


class ReferenceMissing(ReferenceUnavailable):
    """A version has no reference in the store."""


def reference_prefix(model: str, version: str, run_id: str = "") -> str:
    """Return the folder of the store that holds the reference of a version, of a run if it is known.

    Raises:
        ValueError: A name would lead to another folder.
    """
    return "/".join(["references", *map(require_name, (model, version, *([run_id] if run_id else [])))])


def save_reference(store: ObjectStore, model: str, version: str, reference: Reference, run_id: str = "") -> str:
    """Save the reference of a version and its run; return its gs:// URL."""
    prefix = reference_prefix(model, version, run_id)
    store.write_parquet(f"{prefix}/rows.parquet", subsample_evenly(reference.rows))
    store.write(f"{prefix}/profile.json", reference.profile.model_dump_json().encode())
    store.write(_last_run_path(model, version), run_id.encode())
    return store.url(prefix)


def find_reference(store: ObjectStore, model: str, version: str, run_id: str = "") -> str:
    """Return the folder of a version's reference, which need not exist: of a run, or else the one saved last.

    Raises:
        StorageUnavailable: if the store does not answer.
    """
    if not run_id:
        with suppress(FileNotFoundError):
            run_id = store.read(_last_run_path(model, version)).decode()
    return reference_prefix(model, version, run_id)


def load_profile(store: ObjectStore, model: str, version: str, run_id: str = "") -> DriftProfile:
    """Load the drift profile of a version's reference, without the rows. Raises what :func:`load_reference` raises."""
    return _load_profile(store, model, version, find_reference(store, model, version, run_id))


def load_reference(store: ObjectStore, model: str, version: str, run_id: str = "") -> Reference:
    """Load the reference of a version, of a run if it is known.

    Raises:
        ReferenceMissing: if an object is missing.
        ReferenceUnavailable: if an object cannot be read.
        StorageUnavailable: if the store does not answer.
    """
    prefix = find_reference(store, model, version, run_id)
    profile = _load_profile(store, model, version, prefix)
    try:
        rows = store.read_parquet(f"{prefix}/rows.parquet")
    except FileNotFoundError as error:
        raise _missing(model, version, store.url(prefix)) from error
    except ArchiveUnreadable as error:
        raise _unreadable(model, version, error) from error
    missing = [column for column in profile.column_types if column not in rows.columns]
    if missing:
        raise ReferenceUnavailable(f"the reference of version {version} of {model} has no column {', '.join(missing)}")
    return Reference(rows, profile)


def _load_profile(store: ObjectStore, model: str, version: str, prefix: str) -> DriftProfile:
    try:
        return DriftProfile.model_validate_json(store.read(f"{prefix}/profile.json"))
    except FileNotFoundError as error:
        raise _missing(model, version, store.url(prefix)) from error
    except (ValidationError, OSError) as error:
        raise _unreadable(model, version, error) from error


def _missing(model: str, version: str, url: str) -> ReferenceMissing:
    return ReferenceMissing(f"version {version} of {model} has no reference: {url} is incomplete or missing")


def _unreadable(model: str, version: str, error: Exception) -> ReferenceUnavailable:
    return ReferenceUnavailable(f"the reference of version {version} of {model} cannot be read: {error}")


def save_gate_evaluation(
    store: ObjectStore, model: str, version: str, evaluation: Evaluation, run_id: str = ""
) -> None:
    """Save the evaluation of a version on the holdout, beside its reference."""
    prefix = find_reference(store, model, version, run_id)
    store.write(f"{prefix}/gate_evaluation.json", evaluation.model_dump_json().encode())


def load_gate_evaluation(store: ObjectStore, model: str, version: str, run_id: str = "") -> Evaluation | None:
    """Load the evaluation of a version on the holdout; ``None`` if it was never evaluated there.

    Raises:
        ReferenceUnavailable: if the object cannot be read.
        StorageUnavailable: if the store does not answer.
    """
    path = f"{find_reference(store, model, version, run_id)}/gate_evaluation.json"
    try:
        return Evaluation.model_validate_json(store.read(path))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ReferenceUnavailable(
            f"the gate evaluation of version {version} of {model} cannot be read: {error}"
        ) from error


def _last_run_path(model: str, version: str) -> str:
    """Return the path of the file that names the run whose reference was saved last for a version's number."""
    return f"{reference_prefix(model, version)}/last_run"


def subsample_evenly(rows: pd.DataFrame, max_rows: int = MAX_ROWS) -> pd.DataFrame:
    """Return at most ``max_rows`` rows, evenly spaced, in their order."""
    if len(rows) <= max_rows:
        return rows
    return rows.iloc[np.linspace(0, len(rows) - 1, max_rows).astype(int)]
