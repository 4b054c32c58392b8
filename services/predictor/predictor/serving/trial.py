"""The trial of a version before it serves: it predicts for rows like those that it will get."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from itertools import cycle, islice
from typing import Any

import numpy as np
import structlog

from driftloop.events import FeatureValue
from driftloop.privacy import NO_PRIVACY, Privacy
from driftloop.registry.fitted_transformers import MissingValue, find_categories
from driftloop.registry.labelling import choose_labelling
from driftloop.registry.loading import ModelRejected
from driftloop.registry.missing_values import declared_missing_values, tried_missing_values
from driftloop.registry.model_output import ModelOutput, describe_output
from driftloop.registry.signature_columns import Column
from driftloop.setting_values import MissingValues
from predictor.serving.schema import Columns
from predictor.serving.serving_model import ServingModel

log = structlog.get_logger(__name__)

MADE_FROM_SIGNATURE = "a row made from its signature; log it with an input_example to have it tried on that"
BATCH_SIZES = (1, 8, 64, 512)
MAX_ROWS_TRIED = 20  # of a request that the version before has answered
EXAMPLE_CELLS: dict[str, FeatureValue] = {
    "float64": 0.0,
    "float32": 0.0,
    "int64": 0,
    "int32": 0,
    "bool": False,
    "object": "",
    "datetime64[ns]": datetime(2000, 1, 1),
}
"""A value of each type of column, for a row that is made from the signature alone."""


def try_model(
    model: ServingModel,
    served: ServingModel | None,
    missing_values: MissingValues,
    *,
    has_served: bool,
    privacy: Privacy = NO_PRIVACY,
) -> ServingModel:
    """Predict for rows in batches of several sizes; return the model with a description of its output.

    The rows are the model's input example; or else rows that the version in service has answered; or else a row made
    from the signature.

    Args:
        model: The version to try.
        served: The version in service, if there is one.
        missing_values: Which object stands for a missing value in columns of objects; ``auto`` finds it out.
        has_served: Whether the version has served before, so that a row which nobody has sent cannot reject it.
        privacy: Decides whether errors have the messages of exceptions, which may quote values of the rows.

    Raises:
        ModelRejected: The model fails for all rows.
    """
    rows, origin = _trial_rows(model, served, privacy)
    model.schema.missing_values = declared_missing_values(
        model.loaded.estimator, list(model.schema.columns), _object_columns(model), missing_values
    )
    try:
        rows, output = _first_success(model, rows, origin, privacy)
    except ModelRejected as error:
        if not has_served or origin != MADE_FROM_SIGNATURE:
            raise
        log.warning("model.trial_failed", version=model.version, error=str(error), effect="it has served before")
        return model
    try:
        for size in BATCH_SIZES:
            model.predict({name: list(islice(cycle(cells), size)) for name, cells in rows.items()})
    except Exception as error:
        raise ModelRejected(
            f"it fails on {origin}: {privacy.describe_error(error)}{model.loaded.version_note}"
        ) from error
    if missing_values == "auto":
        model.schema.missing_values = {**_tried_missing_values(model, rows), **model.schema.missing_values}
    estimator, method = model.loaded.estimator, model.loaded.predict_fn
    description = describe_output(estimator, method, output)
    labelling = choose_labelling(estimator, method, description.classes, model.schema.columns_to_frame(rows))
    return replace(model, output=description, labelling=labelling, example_output=output)


def _trial_rows(model: ServingModel, served: ServingModel | None, privacy: Privacy) -> tuple[Columns, str]:
    """Return rows to try, and their origin in words."""
    example = model.loaded.example
    if example is not None and len(example):
        try:
            return model.schema.frame_to_columns(example), "its own input example"
        except Exception as error:
            reason = str(error) if not privacy.has_private_features else privacy.describe_error(error)
            raise ModelRejected(f"its input example does not fit its signature: {reason}") from error
    if served is not None and (answered := served.record.last_columns):
        count = min(MAX_ROWS_TRIED, len(next(iter(answered.values()))))
        return {
            name: answered[name][:count] if name in answered else [None] * count for name in model.schema.columns
        }, f"the rows that version {served.version} has answered"
    categories = find_categories(model.loaded.estimator, list(model.schema.columns))
    row = {name: [_example_cell(column, categories)] for name, column in model.schema.columns.items()}
    return row, MADE_FROM_SIGNATURE


def _example_cell(column: Column, categories: dict[str, Any]) -> FeatureValue:
    """Return a category that an encoder knows if the column can hold it, or else any value of the column's type."""
    placeholder = EXAMPLE_CELLS[column.type.dtype]
    category = categories.get(column.name, placeholder)
    cell: FeatureValue = category.item() if isinstance(category, np.generic) else category
    return cell if type(cell) is type(placeholder) else placeholder


def _first_success(model: ServingModel, rows: Columns, origin: str, privacy: Privacy) -> tuple[Columns, ModelOutput]:
    """Return the first row that the model can predict for, or all rows if it can for all, with the output of one."""
    error: Exception | None = None
    for candidate in _candidates(rows):
        try:
            output = model.predict(candidate)
        except Exception as failure:  # noqa: BLE001  # an estimator is user code and may raise anything
            error = error or failure
        else:
            return candidate, output.rows(0, 1)
    reason = privacy.describe_error(error) if error else "it has no rows"
    raise ModelRejected(f"it fails on {origin}: {reason}{model.loaded.version_note}") from error


def _candidates(rows: Columns) -> Iterator[Columns]:
    yield rows
    for row in range(len(next(iter(rows.values())))):
        yield {name: [cells[row]] for name, cells in rows.items()}


def _object_columns(model: ServingModel) -> list[str]:
    return [
        name
        for name, column in model.schema.columns.items()
        if column.type.nullable_dtype == "object" and not column.required
    ]


def _tried_missing_values(model: ServingModel, rows: Columns) -> dict[str, MissingValue]:
    """Return the missing value of each column that no transformer tells, by trying both on a row."""
    known = model.schema.missing_values

    def predict_null(name: str, missing_values: Mapping[str, MissingValue]) -> list[Any]:
        model.schema.missing_values = missing_values
        return model.predict({other: cells[:1] for other, cells in rows.items()} | {name: [None]}).to_lists()

    found = tried_missing_values(_object_columns(model), known, predict_null, model.version)
    model.schema.missing_values = known
    return found
