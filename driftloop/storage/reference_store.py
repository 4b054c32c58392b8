"""References in the bucket: rows and drift profile of a version's training, and its evaluation at the gate.

The trainer saves the reference before an alias can name the version. The drift worker loads it by the version that an
event carries. So a new version brings its own reference, and no service has to be notified or reconfigured.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from pydantic import ValidationError

from driftloop.drift.profile import DriftProfile
from driftloop.errors import DriftloopError
from driftloop.events import Evaluation
from driftloop.storage.bucket import Bucket

MAX_ROWS = 200_000  # more rows would not change the statistics: distances to every second row are the same


class Reference(NamedTuple):
    """A version's reference: what its windows are compared with."""

    rows: pd.DataFrame
    """Features and prediction, in order of time."""
    profile: DriftProfile


class ReferenceUnavailable(DriftloopError):
    """A version has no readable reference; the message says which object is missing or wrong."""


class ReferenceMissing(ReferenceUnavailable):
    """A version has no reference in the bucket."""


def reference_prefix(model: str, version: str) -> str:
    """Return the folder of the bucket that holds a version's reference."""
    return f"references/{model}/{version}"


def save_reference(bucket: Bucket, model: str, version: str, reference: Reference) -> str:
    """Save a version's reference and return its gs:// URL."""
    prefix = reference_prefix(model, version)
    bucket.write_parquet(f"{prefix}/rows.parquet", subsample_evenly(reference.rows))
    bucket.write(f"{prefix}/profile.json", reference.profile.model_dump_json().encode())
    return bucket.url(prefix)


def load_profile(bucket: Bucket, model: str, version: str) -> DriftProfile:
    """Load the drift profile of a version's reference, without the rows. Raises what :func:`load_reference` raises."""
    prefix = reference_prefix(model, version)
    try:
        return DriftProfile.model_validate_json(bucket.read(f"{prefix}/profile.json"))
    except FileNotFoundError as error:
        raise _missing(bucket, model, version) from error
    except (ValidationError, OSError) as error:
        raise _unreadable(model, version, error) from error


def load_reference(bucket: Bucket, model: str, version: str) -> Reference:
    """Load a version's reference.

    Raises:
        ReferenceMissing: if an object is missing.
        ReferenceUnavailable: if an object cannot be read.
        StorageUnavailable: if the bucket does not answer.
    """
    profile = load_profile(bucket, model, version)
    try:
        rows = bucket.read_parquet(f"{reference_prefix(model, version)}/rows.parquet")
    except FileNotFoundError as error:
        raise _missing(bucket, model, version) from error
    except (OSError, ValueError) as error:
        raise _unreadable(model, version, error) from error
    missing = [column for column in profile.column_types if column not in rows.columns]
    if missing:
        raise ReferenceUnavailable(f"the reference of version {version} of {model} has no column {', '.join(missing)}")
    return Reference(rows, profile)


def _missing(bucket: Bucket, model: str, version: str) -> ReferenceMissing:
    url = bucket.url(reference_prefix(model, version))
    return ReferenceMissing(f"version {version} of {model} has no reference: {url} is incomplete or missing")


def _unreadable(model: str, version: str, error: Exception) -> ReferenceUnavailable:
    return ReferenceUnavailable(f"the reference of version {version} of {model} cannot be read: {error}")


def save_gate_evaluation(bucket: Bucket, model: str, version: str, evaluation: Evaluation) -> None:
    """Save the evaluation of a version on the holdout."""
    bucket.write(f"{reference_prefix(model, version)}/gate_evaluation.json", evaluation.model_dump_json().encode())


def load_gate_evaluation(bucket: Bucket, model: str, version: str) -> Evaluation | None:
    """Load the evaluation of a version on the holdout; ``None`` if it was never evaluated there.

    Raises:
        ReferenceUnavailable: if the object cannot be read.
        StorageUnavailable: if the bucket does not answer.
    """
    path = f"{reference_prefix(model, version)}/gate_evaluation.json"
    try:
        return Evaluation.model_validate_json(bucket.read(path))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ReferenceUnavailable(
            f"the gate evaluation of version {version} of {model} cannot be read: {error}"
        ) from error


def subsample_evenly(rows: pd.DataFrame, max_rows: int = MAX_ROWS) -> pd.DataFrame:
    """Return at most ``max_rows`` rows, evenly spaced, in their order."""
    if len(rows) <= max_rows:
        return rows
    return rows.iloc[np.linspace(0, len(rows) - 1, max_rows).astype(int)]
