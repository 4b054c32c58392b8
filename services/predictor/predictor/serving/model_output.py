"""What an estimator answers: an array, or one for each output."""

from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from driftloop.events import Score


class Output(NamedTuple):
    """What an estimator's method returned for some rows."""

    arrays: list[npt.NDArray[Any]]
    """One array, whose first axis is the rows; several where the estimator gave a list, as ``predict_proba`` does of
    a classifier of several outputs."""
    listed: bool
    """Whether it was a list."""
    positive_class: bool
    """Whether the two columns of the array are the probabilities of a classifier of two classes."""

    @classmethod
    def of(cls, returned: Any, method: str) -> Self:
        """Raises :class:`TypeError` for what is no array, or list of arrays, of words or numbers."""
        listed = isinstance(returned, list) and bool(returned) and isinstance(returned[0], np.ndarray)
        arrays = [np.asarray(array) for array in (returned if listed else [returned])]
        for array in arrays:
            if array.ndim not in (1, 2) or (array.dtype.kind not in "biufUO"):
                raise TypeError(f"{method} gives an array of {array.ndim} dimensions and type {array.dtype}")
        pair = not listed and arrays[0].ndim == 2 and arrays[0].shape[1] == 2
        return cls(arrays, listed, pair and method == "predict_proba")

    @property
    def finite(self) -> bool:
        """Whether JSON can carry it."""
        return all(bool(np.isfinite(array).all()) for array in self.arrays if array.dtype.kind == "f")

    def rows(self, start: int, end: int) -> "Output":
        """Those of some of the rows."""
        return Output([array[start:end] for array in self.arrays], self.listed, self.positive_class)

    @property
    def given(self) -> Any:
        """As the estimator returned it."""
        return self.arrays if self.listed else self.arrays[0]

    def lists(self) -> list[Any]:
        """As nested lists, one entry a row."""
        if self.listed:
            return [list(row) for row in zip(*(array.tolist() for array in self.arrays), strict=True)]
        return self.arrays[0].tolist()  # type: ignore[no-any-return]

    def scores(self) -> list[Score]:
        """One a row: of two classes the probability of the second, of several outputs a list."""
        if self.positive_class:
            numbers = self.arrays[0][:, 1]
        else:
            columns = np.hstack([array.reshape(len(array), -1) for array in self.arrays])
            numbers = columns[:, 0] if columns.shape[1] == 1 else columns
        scores: list[Score] = (numbers if numbers.dtype.kind in "UO" else numbers.astype(float)).tolist()
        return scores
