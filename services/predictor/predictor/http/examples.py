"""Examples of prediction requests that the version in service answers, one for each form of each protocol."""

import csv
from io import StringIO
from typing import Any, NamedTuple, Self

from pydantic_core import to_jsonable_python

from driftloop.privacy import NO_PRIVACY, Privacy
from predictor.serving.serving_model import ServingModel

JsonObject = dict[str, Any]

PLACEHOLDERS = {"f": 0.0, "i": 0, "b": False, "o": "text", "d": "2026-01-01T00:00:00"}
"""A value of a type, by the first letter of its dtype."""


class RequestExamples(NamedTuple):
    """The same row in each form; empty if no version is in service."""

    native: JsonObject
    """For ``/predict`` and KServe V1."""
    tensors: JsonObject
    """For the Open Inference Protocol."""
    mlflow: JsonObject
    """For ``/invocations``, by the name of the form."""
    csv: str
    """For ``/invocations``."""

    @classmethod
    def of(cls, serving: ServingModel, privacy: Privacy = NO_PRIVACY) -> Self:
        """Build the examples from the first row of the version's input example, or else from its signature.

        The input example is a row of the training data: private columns have a placeholder in place of its value.
        """
        columns = serving.schema.columns
        row = _row(serving, privacy)
        tensors = [
            {"name": name, "datatype": columns[name].type.tensor_datatype, "shape": [1], "data": [value]}
            for name, value in row.items()
        ]
        native, open_inference = {"instances": [row]}, {"inputs": tensors}
        if serving.schema.is_matrix:
            matrix = [list(row.values())]
            return cls(native, open_inference, {form: {form: matrix} for form in ("instances", "inputs")}, _csv(row))
        forms = {
            "dataframe_split": {"columns": list(row), "data": [list(row.values())]},
            "dataframe_records": [row],
            "instances": [row],
            "inputs": {name: [value] for name, value in row.items()},
        }
        return cls(native, open_inference, {form: {form: rows} for form, rows in forms.items()}, _csv(row))


NO_EXAMPLES = RequestExamples({}, {}, {}, "")


def _row(serving: ServingModel, privacy: Privacy) -> JsonObject:
    """Return one row; optional columns that have no value in the input example are left out."""
    placeholders = {name: PLACEHOLDERS[column.type.dtype[0]] for name, column in serving.schema.columns.items()}
    example = serving.loaded.example
    if example is None or not len(example):
        return placeholders
    row: JsonObject = {}
    for name, (value, *_) in serving.schema.frame_to_columns(example[:1]).items():
        column = serving.schema.columns[name]
        if value is not None:
            # A column of integers is one of floats if a row of the example has no value.
            if isinstance(value, float) and column.type.dtype.startswith("int"):
                value = int(value)  # noqa: PLW2901
            is_private = privacy.feature_policy.treatment(name) != "keep"
            row[name] = placeholders[name] if is_private else value
        elif column.required:
            row[name] = placeholders[name]
    json_row: JsonObject = to_jsonable_python(row)
    return json_row or placeholders


def _csv(row: JsonObject) -> str:
    """Return the row as CSV."""
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([row.keys(), row.values()])
    return text.getvalue()
