"""The output of an estimator: one array, or a list of arrays if it predicts several outputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from driftloop.errors import InvalidInput
from driftloop.events import Label, PredictionValue

OutputKind = Literal["number", "label", "probability", "log_probability"]

KINDS_BY_METHOD: dict[str, OutputKind] = {
    "predict_proba": "probability",
    "predict_log_proba": "log_probability",
}
FITTED_ON_A_SERIES = (
    "the estimator was probably fitted on a Series or a list of texts, and is called with a frame: name the text "
    'column in a ColumnTransformer, such as make_column_transformer((TfidfVectorizer(), "text"))'
)


class InvalidOutput(InvalidInput):
    """An estimator returned something that is not one prediction for each row; the message says what."""


class ModelOutput(NamedTuple):
    """What an estimator's method returned for some rows."""

    arrays: list[npt.NDArray[Any]]
    """Arrays whose first axis is the rows: one, or several if the estimator returned a list, as ``predict_proba`` of
    a classifier with several outputs does."""
    is_list: bool
    """Whether the estimator returned a list."""
    is_binary_probability: bool
    """Whether the array has two columns, the class probabilities of a binary classifier."""
    labels: list[Label] | None = None
    """The class that the model decides for, by row, if the arrays are probabilities of known classes."""

    @classmethod
    def from_model(cls, returned: Any, method: str, row_count: int) -> Self:
        """Wrap what an estimator's ``method`` returned for ``row_count`` rows.

        Raises:
            InvalidOutput: It is not an array, or a list of arrays, with one prediction for each row that JSON can
                represent: finite numbers, booleans or strings, in one or two dimensions.
        """
        is_list = isinstance(returned, list) and bool(returned) and isinstance(returned[0], np.ndarray)
        if isinstance(returned, tuple):
            raise InvalidOutput(f"{method} returned a tuple of {len(returned)} values instead of an array")
        arrays = [_to_array(array, method, row_count) for array in (returned if is_list else [returned])]
        has_two_columns = not is_list and arrays[0].ndim == 2 and arrays[0].shape[1] == 2
        return cls(arrays, is_list, has_two_columns and method == "predict_proba")

    def rows(self, start: int, end: int) -> "ModelOutput":
        """Return a copy of the output of the rows from ``start`` to before ``end``."""
        return self._replace(
            arrays=[array[start:end].copy() for array in self.arrays],
            labels=None if self.labels is None else self.labels[start:end],
        )

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

        That is the probability of the second class for a binary classifier, and a list for several outputs. Labels
        keep their type.
        """
        if self.is_binary_probability:
            columns = [self.arrays[0][:, 1].tolist()]
        else:
            columns = [column.tolist() for array in self.arrays for column in array.reshape(len(array), -1).T]
        return columns[0] if len(columns) == 1 else [list(row) for row in zip(*columns, strict=True)]


@dataclass(frozen=True)
class OutputDescription:
    """What the predictions of a version mean."""

    kind: OutputKind
    """``label`` for the classes that a classifier predicts, ``number`` for what other estimators predict."""
    classes: list[Label] | None
    """The class of each probability that the estimator returns for a row. ``None`` if it returns something else, or
    several outputs."""
    size: int
    """Number of values in the prediction of a row; 1 for a single value."""

    @property
    def probability_classes(self) -> list[Label] | None:
        """The classes whose probabilities the predictions are; ``None`` if they are logarithms or something else."""
        return self.classes if self.kind == "probability" else None

    def incompatibilities_with(self, new: "OutputDescription") -> list[str]:
        """Return why clients that read predictions of this kind would misread those of ``new``."""
        reasons = []
        if new.kind != self.kind:
            reasons.append(f"the predictions have changed from {self.kind} to {new.kind}")
        elif new.classes != self.classes:
            reasons.append(f"the classes of the probabilities have changed from {self.classes} to {new.classes}")
        elif new.size != self.size:
            reasons.append(f"a prediction has changed from {self.size} values to {new.size}")
        return reasons


def describe_output(estimator: Any, method: str, example: ModelOutput) -> OutputDescription:
    """Describe the predictions of a fitted estimator.

    Args:
        estimator: The estimator; its ``classes_`` are the labels of probabilities.
        method: The name of its method that predicts.
        example: The output for any rows.
    """
    kind = KINDS_BY_METHOD.get(method, "label" if hasattr(estimator, "classes_") else "number")
    classes = _probability_classes(estimator, example) if method in KINDS_BY_METHOD else None
    (first,) = example.rows(0, 1).scores()
    return OutputDescription(kind, classes, len(first) if isinstance(first, list) else 1)


def _probability_classes(estimator: Any, example: ModelOutput) -> list[Label] | None:
    classes = getattr(estimator, "classes_", None)
    if example.is_list or not isinstance(classes, np.ndarray) or example.arrays[0].shape[1:] != classes.shape:
        return None
    labels: list[Label] = classes.tolist()
    return labels


def _to_array(returned: Any, method: str, row_count: int) -> npt.NDArray[Any]:
    """Return one of the estimator's arrays, with one row for each row that it was given.

    Raises:
        InvalidOutput: It is something else, or has a value that JSON cannot represent.
    """
    try:
        array = np.asarray(returned.toarray() if hasattr(returned, "toarray") else returned)  # a sparse matrix
    except ValueError as error:  # lists of unequal lengths
        raise InvalidOutput(f"{method} returned what is no array: {error}") from error
    if array.ndim not in (1, 2) or array.dtype.kind not in "biufUO":
        raise InvalidOutput(f"{method} returned an array of {array.ndim} dimensions and type {array.dtype}")
    if len(array) != row_count:
        reason = f"; {FITTED_ON_A_SERIES}" if len(array) == 1 else ""
        raise InvalidOutput(f"{method} returned {len(array)} predictions for {row_count} rows{reason}")
    if array.ndim == 2 and array.shape[1] == 0:
        raise InvalidOutput(f"{method} returned an array without columns")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidOutput("the model's prediction is not a finite number")
    if array.dtype.kind == "O":
        _require_labels(array.ravel().tolist(), method)
    return array


def _require_labels(cells: Sequence[Any], method: str) -> None:
    for cell in cells:
        if type(cell) not in (str, int, bool) and not (type(cell) is float and np.isfinite(cell)):
            raise InvalidOutput(f"{method} returned {cell!r:.100}, which is neither a finite number nor a text")
