"""A column of a frame as the texts that scikit-learn's vectorizers take."""

from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin


class TextColumn(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Turn a frame of one column into an array of texts; a missing text becomes an empty one.

    Vectorizers refuse missing values, and imputers return frames of two dimensions, which vectorizers refuse.
    """

    def fit(self, column: pd.DataFrame, target: object = None) -> Self:  # noqa: ARG002  # as scikit-learn calls it
        """Learn the column's name."""
        (name,) = column.columns
        self.feature_names_in_ = np.array([str(name)], dtype=object)
        self.n_features_in_ = 1
        return self

    def transform(self, column: pd.DataFrame) -> npt.NDArray[np.object_]:
        """Return the column's texts."""
        texts = column.iloc[:, 0]
        return texts.where(texts.notna(), "").astype(str).to_numpy(dtype=object)
