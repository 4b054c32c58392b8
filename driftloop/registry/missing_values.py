"""Which object stands for a missing value in each column of objects of a model: NaN or ``None``.

The columns are those of texts, and of booleans with missing values; see :mod:`driftloop.registry.fitted_transformers`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog

from driftloop.registry.fitted_transformers import MissingValue, find_missing_values
from driftloop.setting_values import MissingValues

log = structlog.get_logger(__name__)

PredictNull = Callable[[str, Mapping[str, MissingValue]], Any]
"""Predicts for a row in which a column, the first argument, is missing; the second argument has the missing values of
columns. What it returns can be compared with ``==``."""


def declared_missing_values(
    estimator: Any, columns: Sequence[str], names: Iterable[str], setting: MissingValues
) -> dict[str, MissingValue]:
    """Return the missing value of each of ``names`` that the setting or a fitted transformer tells.

    Args:
        estimator: The fitted estimator.
        columns: All columns that it takes, in their order.
        names: The columns of objects among them that may be missing.
        setting: ``nan`` or ``none`` for all of them, or ``auto``.
    """
    if setting != "auto":
        return dict.fromkeys(names, setting)
    found = find_missing_values(estimator, columns)
    return {name: found[name] for name in names if name in found}


def tried_missing_values(
    names: Iterable[str], known: Mapping[str, MissingValue], predict_null: PredictNull, version: str
) -> dict[str, MissingValue]:
    """Return the missing value of each column that no transformer tells, by trying both on a row.

    If only one of them can be predicted for, it is that. If the predictions differ, nobody can know, and NaN is what
    pandas reads from files.

    Args:
        names: The columns of objects that may be missing.
        known: What :func:`declared_missing_values` returned; these columns are left out.
        predict_null: Predicts for a row.
        version: The model's version, for the log.
    """
    found: dict[str, MissingValue] = {}
    for name in set(names) - known.keys():
        outputs: dict[MissingValue, Any] = {}
        for missing_value in ("nan", "none"):
            with suppress(Exception):  # an estimator is user code and may raise anything
                outputs[missing_value] = predict_null(name, {**known, name: missing_value})
        found[name] = "none" if set(outputs) == {"none"} else "nan"
        if len(outputs) == 2 and outputs["nan"] != outputs["none"]:
            log.warning(
                "model.missing_value_ambiguous",
                version=version,
                column=name,
                effect="a null is NaN to the model; DRIFTLOOP_PREDICTOR__MISSING_VALUES=none makes it None",
            )
    return found
