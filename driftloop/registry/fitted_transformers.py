"""What the fitted transformers of an estimator know about its columns: their categories and their missing values.

scikit-learn takes NaN, as pandas reads files, and ``None`` for different categories in columns of objects, that is of
texts, and of booleans with missing values: an encoder that was fitted with NaN has never seen ``None``.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator

MissingValue = Literal["nan", "none"]
"""The object that stands for a missing value in a frame: ``float("nan")`` or ``None``."""


class FittedTransformer(NamedTuple):
    """A fitted estimator within another one."""

    attributes: Mapping[str, Any]
    """Its parameters and what it has learned, by name."""
    columns: tuple[str, ...]
    """The columns that it gets, in their order, as far as they are known."""

    def categories(self) -> Iterator[tuple[str, Any]]:
        """Yield each category of an encoder with its column."""
        categories = self.attributes.get("categories_")
        if isinstance(categories, list) and len(categories) == len(self.columns):
            for column, of_column in zip(self.columns, categories, strict=True):
                for category in of_column:
                    yield column, category

    def imputed_columns(self) -> Iterator[tuple[str, Any]]:
        """Yield each column of an imputer with the value that it replaces."""
        if "missing_values" in self.attributes:
            for column in self.columns:
                yield column, self.attributes["missing_values"]


def find_categories(estimator: Any, columns: Sequence[str]) -> dict[str, Any]:
    """Return a category of each of ``columns`` that a fitted encoder of the estimator knows."""
    return {
        column: category
        for transformer in _fitted_transformers(estimator, tuple(columns), set())
        for column, category in transformer.categories()
        if _missing_value(category) is None
    }


def find_missing_values(estimator: Any, columns: Sequence[str]) -> dict[str, MissingValue]:
    """Return the missing value of each of ``columns`` for which a fitted transformer of the estimator shows it.

    An encoder that has the missing value among its categories counts before an imputer, whose parameter may have been
    left at its default. A column is left out if nothing shows its missing value, or if two transformers contradict one
    another.
    """
    transformers = list(_fitted_transformers(estimator, tuple(columns), set()))
    of_imputers = _unanimous(cell for transformer in transformers for cell in transformer.imputed_columns())
    of_encoders = _unanimous(cell for transformer in transformers for cell in transformer.categories())
    return {column: value for column, value in {**of_imputers, **of_encoders}.items() if value is not None}


def _unanimous(cells: Iterator[tuple[str, Any]]) -> dict[str, MissingValue | None]:
    """Return the missing value among the cells of each column; ``None`` if a column has both."""
    found: dict[str, MissingValue | None] = {}
    for column, cell in cells:
        if (value := _missing_value(cell)) is not None:
            found[column] = value if found.get(column, value) == value else None
    return found


def _missing_value(cell: Any) -> MissingValue | None:
    if cell is None:
        return "none"
    return "nan" if isinstance(cell, float) and math.isnan(cell) else None


def _fitted_transformers(value: Any, columns: tuple[str, ...], visited: set[int]) -> Iterator[FittedTransformer]:
    """Yield every estimator within ``value``, itself included, with the columns that it gets."""
    if id(value) in visited:
        return
    visited.add(id(value))
    if isinstance(value, list | tuple):
        for item in value:
            yield from _fitted_transformers(item, columns, visited)
    if not isinstance(value, BaseEstimator):
        return
    attributes = vars(value)
    names = attributes.get("feature_names_in_")
    own_columns = columns if names is None else tuple(map(str, names))
    yield FittedTransformer(attributes, own_columns)
    for _, transformer, selected in attributes.get("transformers_", ()):  # of a ColumnTransformer
        yield from _fitted_transformers(transformer, _selected_columns(selected, own_columns), visited)
    for name, attribute in attributes.items():
        if name not in ("transformers", "transformers_"):  # the former are not fitted
            yield from _fitted_transformers(attribute, own_columns, visited)


def _selected_columns(selected: Any, columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns that a fitted ColumnTransformer gives to one of its transformers.

    It keeps what its user has given: a name, a position, a slice of positions, or a list of names, positions or
    booleans.
    """
    if isinstance(selected, slice):
        return columns[selected] if not isinstance(selected.start or selected.stop, str) else ()
    keys = [selected] if isinstance(selected, str | int) else list(selected)
    if keys and all(isinstance(key, bool | np.bool_) for key in keys):
        return tuple(column for column, key in zip(columns, keys, strict=False) if key)
    return tuple(
        key if isinstance(key, str) else columns[int(key)]
        for key in keys
        if isinstance(key, str) or int(key) < len(columns)
    )
