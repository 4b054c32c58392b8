"""Archived predictions and outcomes in memory, and which prediction each outcome belongs to."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from drift_worker.windows.archive import run_ids
from driftloop.events import (
    CLASSES_COLUMN,
    ID_COLUMN,
    KEY_COLUMN,
    MODEL_COLUMN,
    PREDICTION_COLUMN,
    ROW_COLUMN,
    RUN_COLUMN,
    TIME_COLUMN,
    VERSION_COLUMN,
)
from driftloop.times import MAX_CLOCK_SKEW

NO_KEY = np.uint64(0)
PREDICTION_COLUMNS = [
    ID_COLUMN,
    ROW_COLUMN,
    TIME_COLUMN,
    MODEL_COLUMN,
    VERSION_COLUMN,
    RUN_COLUMN,
    PREDICTION_COLUMN,
    CLASSES_COLUMN,
    KEY_COLUMN,
]
OUTCOME_COLUMNS = [ID_COLUMN, ROW_COLUMN, TIME_COLUMN, MODEL_COLUMN, KEY_COLUMN, "outcome", "outcome_label"]


def prediction_rows(rows: pd.DataFrame, slice_name: str) -> pd.DataFrame:
    """Return what is kept in memory of a slice of archived predictions."""
    return pd.DataFrame(
        {
            "row_hash": _row_hashes(rows),
            "key_hash": _key_hashes(rows),
            "predicted_at": rows[TIME_COLUMN].astype("datetime64[ns, UTC]"),
            "prediction_slice": pd.Series(slice_name, index=rows.index, dtype=object),
            MODEL_COLUMN: rows[MODEL_COLUMN].astype(object),
            VERSION_COLUMN: rows[VERSION_COLUMN].astype(object),
            RUN_COLUMN: run_ids(rows).astype("category").astype(object),  # equal texts become one object
            PREDICTION_COLUMN: rows[PREDICTION_COLUMN],
            CLASSES_COLUMN: rows[CLASSES_COLUMN].astype("category").astype(object),
        }
    )


def outcome_rows(rows: pd.DataFrame, slice_name: str) -> pd.DataFrame:
    """Return what is kept in memory of a slice of archived outcomes."""
    outcomes, labels = rows["outcome"], rows["outcome_label"]
    return pd.DataFrame(
        {
            "row_hash": _row_hashes(rows),
            "key_hash": _key_hashes(rows),
            "reported_at": rows[TIME_COLUMN].astype("datetime64[ns, UTC]"),
            "outcome_slice": pd.Series(slice_name, index=rows.index, dtype=object),
            "outcome": labels.astype(object).where(labels.notna(), outcomes) if labels.notna().any() else outcomes,
        }
    )


def name_rows(outcomes: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the outcomes, sorted by time, with the row that each one with a key belongs to.

    That is the model's row of this key with the latest time that is not after the outcome's. An outcome without such a
    row keeps the hash of its key, which is no row's.
    """
    has_key = outcomes["key_hash"].to_numpy() != NO_KEY
    if not has_key.any():
        return outcomes
    keyed = predictions[predictions["key_hash"] != NO_KEY].sort_values("predicted_at", kind="stable")
    # By position: a missing one turns integers into floats, which a hash of 64 bits would not survive.
    position = pd.merge_asof(
        outcomes.loc[has_key, ["key_hash", "reported_at"]],
        keyed[["key_hash", "predicted_at"]].assign(position=np.arange(len(keyed), dtype=np.float64)),
        left_on="reported_at",
        right_on="predicted_at",
        by="key_hash",
    )["position"].to_numpy()
    is_found = ~np.isnan(position)
    named = outcomes.loc[has_key, "key_hash"].to_numpy(copy=True)
    named[is_found] = keyed["row_hash"].to_numpy()[position[is_found].astype(np.int64)]
    row_hashes = outcomes["row_hash"].to_numpy(copy=True)
    row_hashes[has_key] = named
    return outcomes.assign(row_hash=row_hashes)


def known_last(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return outcomes, sorted by time, in the order in which the last one of a row counts.

    Those from the future come first: they cannot be known yet, and would beat every later correction.
    """
    is_past = outcomes["reported_at"] <= pd.Timestamp.now("UTC") + MAX_CLOCK_SKEW
    return outcomes if is_past.all() else outcomes.iloc[np.argsort(is_past.to_numpy(), kind="stable")]


def _row_hashes(rows: pd.DataFrame) -> npt.NDArray[np.uint64]:
    """Return id and row as one number of 64 bits, an eighth of their size; among millions, two hardly ever collide."""
    row_numbers = pd.to_numeric(rows[ROW_COLUMN]).fillna(0).to_numpy(dtype=np.uint64)
    return np.asarray(_text_hashes(rows[ID_COLUMN]) + row_numbers, dtype=np.uint64)


def _key_hashes(rows: pd.DataFrame) -> npt.NDArray[np.uint64]:
    """Return model and key as one number, :data:`NO_KEY` for rows without a key."""
    keys = rows[KEY_COLUMN]
    hashes = _text_hashes(keys) * np.uint64(31) + _text_hashes(rows[MODEL_COLUMN])
    return np.where(keys.isna(), NO_KEY, hashes)


def _text_hashes(texts: pd.Series) -> npt.NDArray[np.uint64]:
    return pd.util.hash_array(np.where(texts.isna(), "", texts.to_numpy(dtype=object)))
