"""Targets: what a model predicts, and outcomes and predictions as arrays that metrics are computed from.

An outcome is a number, or the position of its class. A prediction is a number; the probability of the second of two
classes; or, for more classes, one probability for each. A predicted label is a probability of 1.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from driftloop.evaluation.metrics import FloatArray
from driftloop.events import Label

TargetKind = Literal["number", "binary", "multiclass"]
MAX_INFERRED_CLASSES = 1_000  # of texts: rows have a number for each class, and free text would fill the memory
MAX_UNKNOWN_LABELS = 20  # an event with the labels of a whole slice would be too large for the broker
OTHER_LABELS = "(other)"
DECODER = json.JSONDecoder(parse_int=float)  # an integer can be larger than any float


@dataclass(frozen=True)
class Target:
    """What a model predicts: a number, or one of some classes."""

    classes: tuple[Label, ...] | None = None
    """The classes in scikit-learn's order, which is sorted; the second of two is the positive one. ``None`` if the
    target is a number."""

    @property
    def kind(self) -> TargetKind:
        """Whether a number, one of two classes, or one of more classes is predicted."""
        if self.classes is None:
            return "number"
        return "binary" if len(self.classes) == 2 else "multiclass"

    @property
    def has_text_labels(self) -> bool:
        """Whether any class is a text."""
        return any(isinstance(label, str) for label in self.classes or ())

    def encode(self, outcomes: pd.Series) -> FloatArray:
        """Return outcomes as numbers, or as positions of their classes; NaN if missing or not one of the classes."""
        if self.classes is None:
            return pd.to_numeric(outcomes, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        positions = {label: float(position) for position, label in enumerate(self.classes)}
        return np.asarray(outcomes.astype(object).map(positions.get), dtype=np.float64)  # pandas casts a mapping's keys

    def decode(self, encoded: FloatArray) -> Any:
        """Return numbers or labels, as an estimator is fitted to them, of encoded outcomes without missing values."""
        if self.classes is None:
            return encoded
        return np.array(self.classes)[encoded.astype(np.int64)]

    def count_unknown(self, outcomes: pd.Series) -> dict[str, int]:
        """Count the outcomes that are not one of the classes, by outcome as text; missing ones are not counted.

        The most common ones have their own count, and the others one together.
        """
        unknown = outcomes[outcomes.notna() & np.isnan(self.encode(outcomes))].astype(str)
        counts = unknown.value_counts()
        found = {str(label): int(count) for label, count in counts.head(MAX_UNKNOWN_LABELS).items()}
        others = int(counts.iloc[MAX_UNKNOWN_LABELS:].sum())
        return {**found, OTHER_LABELS: others} if others else found

    def from_labels(self, labels: pd.Series) -> FloatArray:
        """Return predicted labels as probabilities of 0 and 1, or predicted numbers as they are."""
        positions = self.encode(labels)
        if self.kind != "multiclass":
            return positions
        probabilities = np.asarray(positions[:, None] == np.arange(len(self.classes or ())), dtype=np.float64)
        probabilities[np.isnan(positions)] = np.nan
        return probabilities

    def from_probabilities(self, probabilities: FloatArray, classes: Sequence[Label]) -> FloatArray:
        """Return an estimator's probabilities in the order of this target's classes.

        A class that the estimator does not know has the probability 0.

        Args:
            probabilities: One line for each row, with one probability for each of ``classes``.
            classes: The estimator's classes.
        """
        known = self.classes or ()
        aligned = np.zeros((len(probabilities), len(known)))
        for position, label in enumerate(classes):
            if label in known:
                aligned[:, known.index(label)] = probabilities[:, position]
        return aligned[:, 1] if self.kind == "binary" else aligned

    def from_archive(self, predictions: pd.Series, classes: pd.Series | None = None) -> FloatArray:
        """Return archived predictions as an array, with NaN for those that are not of this target.

        Args:
            predictions: A number or a label for each row, or the JSON text of a list of probabilities.
            classes: For each row the JSON text of the list of the model's classes; ``None`` where predictions are not
                probabilities.
        """
        if self.kind != "multiclass":
            numbers = NUMBER.encode(predictions)
            if self.kind == "number":
                return numbers
            labels = self.encode(predictions)
            is_label = ~np.isnan(labels) & (True if classes is None else classes.isna().to_numpy())
            return np.where(is_label, labels, numbers)
        decoded = self.from_labels(predictions)
        if classes is None:
            return decoded
        for text, cells in predictions.reset_index(drop=True).groupby(classes.to_numpy(dtype=object)):
            decoded[cells.index] = self._from_lists(cells, json.loads(str(text)))
        return decoded

    def _from_lists(self, cells: pd.Series, classes: Sequence[Label]) -> FloatArray:
        """Return the probabilities that cells have as JSON, NaN for a cell without one for each of ``classes``."""
        if len(set(classes)) < len(classes) or set(classes).isdisjoint(self.classes or ()):
            return np.full((len(cells), len(self.classes or ())), np.nan)
        probabilities = np.array([_parse_numbers(cell, len(classes)) for cell in cells], dtype=np.float64)
        aligned = self.from_probabilities(probabilities, classes)
        aligned[~np.isfinite(probabilities).all(axis=1)] = np.nan
        return aligned

    def to_column(self, predictions: FloatArray) -> pd.Series:
        """Return predictions as windows compare them: as numbers, or for several classes the most probable one.

        A missing prediction is missing there, too.
        """
        if predictions.ndim == 1:
            return pd.Series(predictions)
        names = [str(label) for label in self.classes or ()]
        most_probable = pd.Series([names[place] for place in predictions.argmax(axis=1)], dtype=object)
        return most_probable.where(pd.DataFrame(predictions).notna().all(axis=1))

    def predict(self, estimator: Any, method: str, features: pd.DataFrame) -> FloatArray:
        """Return an estimator's predictions for rows.

        Args:
            estimator: A fitted estimator.
            method: The name of its method that predicts.
            features: The rows.
        """
        returned = np.asarray(getattr(estimator, method)(features))
        if self.classes is not None and method == "predict_proba":
            known = getattr(estimator, "classes_", None)
            return self.from_probabilities(returned, self.classes if known is None else known.tolist())
        return self.from_labels(pd.Series(returned.ravel()))


NUMBER = Target()
BINARY = Target((0, 1))


def infer_target(outcomes: pd.Series, predictions: pd.Series, classes: Sequence[Label] | None) -> Target:
    """Return the target of archived rows: of the model's classes, if known, otherwise by their values.

    Args:
        outcomes: What happened, by row.
        predictions: What was predicted, by row.
        classes: The model's classes; ``None`` if it predicts no probabilities.
    """
    if classes:
        return Target(tuple(dict.fromkeys(classes)))
    if pd.api.types.is_numeric_dtype(outcomes) or pd.api.types.is_numeric_dtype(predictions):
        known = pd.to_numeric(outcomes, errors="coerce")
        known = known[known.notna() | outcomes.isna()]  # a text among them is no outcome of this target
        numbers = pd.to_numeric(predictions, errors="coerce")
        return BINARY if known.isin((0, 1)).all() and numbers.between(0, 1).all() else NUMBER
    labels = Counter([*outcomes.dropna().astype(str), *predictions.dropna().astype(str)])
    return Target(tuple(sorted(label for label, _ in labels.most_common(MAX_INFERRED_CLASSES))))


def _parse_numbers(cell: object, count: int) -> list[float]:
    """Return the ``count`` numbers of a list in JSON; NaN in their place if the cell is anything else."""
    try:
        numbers = DECODER.decode(str(cell))
    except (ValueError, RecursionError):
        numbers = None
    is_valid = isinstance(numbers, list) and len(numbers) == count and set(map(type, numbers)) == {float}
    return numbers if is_valid else [math.nan] * count
