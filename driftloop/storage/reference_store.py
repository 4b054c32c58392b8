"""What a version's windows are compared with: rows and a drift profile of its training, and what its gate measured.

The trainer writes it before the version can be named by an alias; the drift worker reads it by the version that an
event carries. So a new version brings its own reference, and nothing has to be told to anybody.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from pydantic import ValidationError

from driftloop.drift.calibration import Profile
from driftloop.events import Measurement
from driftloop.storage.bucket import Bucket

MOST_ROWS = 200_000  # more would only be larger: distances to every second row are the same
PREDICTION = "prediction"
"""The column of what the version itself says: it is compared like a feature."""


class Reference(NamedTuple):
    """A version's reference."""

    rows: pd.DataFrame
    """Features and prediction, in order of time."""
    profile: Profile


class NoReference(Exception):
    """The version has no reference that could be read; says which object is missing or wrong."""


def folder(model: str, version: str) -> str:
    """Where a version's reference lies in the bucket."""
    return f"references/{model}/{version}"


def write(bucket: Bucket, model: str, version: str, reference: Reference) -> str:
    """Writes a version's reference; returns its address."""
    at = folder(model, version)
    bucket.write_parquet(f"{at}/rows.parquet", thinned(reference.rows))
    bucket.write(f"{at}/profile.json", reference.profile.model_dump_json().encode())
    return bucket.url(at)


def read(bucket: Bucket, model: str, version: str) -> Reference:
    """A version's reference. Raises :class:`NoReference`."""
    at = folder(model, version)
    try:
        profile = Profile.model_validate_json(bucket.read(f"{at}/profile.json"))
        rows = bucket.read_parquet(f"{at}/rows.parquet")
    except FileNotFoundError as error:
        raise NoReference(f"version {version} of {model} has no reference: {bucket.url(at)} lacks a file") from error
    except (ValidationError, OSError, ValueError) as error:
        raise NoReference(f"the reference of version {version} of {model} cannot be read: {error}") from error
    absent = [column for column in profile.kinds if column not in rows.columns]
    if absent:
        raise NoReference(f"the reference of version {version} of {model} lacks {', '.join(absent)}")
    return Reference(rows, profile)


def write_measured(bucket: Bucket, model: str, version: str, measured: Measurement) -> None:
    """Writes how good a version was on the rows that were held out."""
    bucket.write(f"{folder(model, version)}/measured.json", measured.model_dump_json().encode())


def read_measured(bucket: Bucket, model: str, version: str) -> Measurement | None:
    """How good a version was on held-out rows; ``None`` where nothing was measured. Raises :class:`NoReference`."""
    at = f"{folder(model, version)}/measured.json"
    try:
        return Measurement.model_validate_json(bucket.read(at))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise NoReference(f"what was measured of version {version} of {model} cannot be read: {error}") from error


def thinned(rows: pd.DataFrame, most: int = MOST_ROWS) -> pd.DataFrame:
    """At most so many rows, evenly spaced, in their order."""
    if len(rows) <= most:
        return rows
    return rows.iloc[np.linspace(0, len(rows) - 1, most).astype(int)]
