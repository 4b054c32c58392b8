"""The output of an estimator: one array, or a list of arrays if it predicts several outputs."""

from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from driftloop.events import PredictionValue


class ModelOutput(NamedTuple):
    """What an estimator's method returned for some rows."""

    arrays: list[npt.NDArray[Any]]
    """Arrays whose first axis is the rows: one, or several if the estimator returned a list, as ``predict_proba`` of
    a classifier with several outputs does."""
    is_list: bool
    """Whether the estimator returned a list."""
    is_binary_probability: bool
    """Whether the array has two columns, the class probabilities of a binary classifier."""

    @classmethod
    def from_model(cls, returned: Any, method: str) -> Self:
        """Wrap what an estimator's ``method`` returned.

        Raises:
            TypeError: It is not an array, or a list of arrays, of numbers or strings with one or two dimensions.
        """
        is_list = isinstance(returned, list) and bool(returned) and isinstance(returned[0], np.ndarray)
        arrays = [np.asarray(array) for array in (returned if is_list else [returned])]
        for array in arrays:
            if array.ndim not in (1, 2) or (array.dtype.kind not in "biufUO"):
                raise TypeError(f"{method} returned an array of {array.ndim} dimensions and type {array.dtype}")
        has_two_columns = not is_list and arrays[0].ndim == 2 and arrays[0].shape[1] == 2
        return cls(arrays, is_list, has_two_columns and method == "predict_proba")

    @property
    def is_finite(self) -> bool:
        """Whether all numbers are finite, so that JSON can represent them."""
        return all(bool(np.isfinite(array).all()) for array in self.arrays if array.dtype.kind == "f")

    def rows(self, start: int, end: int) -> "ModelOutput":
        """Return the output of the rows from ``start`` to before ``end``."""
        return ModelOutput([array[start:end] for array in self.arrays], self.is_list, self.is_binary_probability)

    @property
    def raw(self) -> Any:
        """The array, or the list of arrays, that the estimator returned."""
        return self.arrays if self.is_list else self.arrays[0]

    def to_lists(self) -> list[Any]:
        """Convert to nested lists with one entry per row."""
        if self.is_list:
            return [list(row) for row in zip(*(array.tolist() for array in self.arrays), strict=True)]
        return self.arrays[0].tolist()  # type: ignore[no-any-return]

    def scores(self) -> list[PredictionValue]:
        """Return one prediction per row, as an event holds it.

        That is the probability of the second class for a binary classifier, and a list for several outputs.
        """
        if self.is_binary_probability:
            values = self.arrays[0][:, 1]
        else:
            columns = np.hstack([array.reshape(len(array), -1) for array in self.arrays])
            values = columns[:, 0] if columns.shape[1] == 1 else columns
        scores: list[PredictionValue] = (values if values.dtype.kind in "UO" else values.astype(float)).tolist()
        return scores
