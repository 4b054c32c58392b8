"""Select one version's rows of a window."""

import pandas as pd

from driftloop.events import MODEL_COLUMN, VERSION_COLUMN


def rows_of_version(rows: pd.DataFrame, model: str, version: str) -> pd.DataFrame:
    """Return the rows that a version of a model has predicted."""
    return rows[(rows[MODEL_COLUMN] == model) & (rows[VERSION_COLUMN] == version)]
