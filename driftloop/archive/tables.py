"""Make the rows that the archive has of events."""

import json
from collections.abc import Sequence
from itertools import accumulate, chain
from types import NoneType
from typing import Any

import numpy as np
import pyarrow as pa

from driftloop.events import (
    CLASSES_COLUMN,
    CONTEXT_COLUMN,
    ID_COLUMN,
    KEY_COLUMN,
    LABEL_COLUMN,
    MODEL_COLUMN,
    OFFSET_COLUMN,
    PREDICTION_COLUMN,
    RESERVED_COLUMNS,
    ROW_COLUMN,
    RUN_COLUMN,
    TIME_COLUMN,
    VERSION_COLUMN,
    FeatureValue,
    Label,
    Outcome,
    Prediction,
    PredictionValue,
)

TIME = pa.timestamp("ns", "UTC")  # the resolution of pandas


def predictions_table(events: Sequence[Prediction], offsets: Sequence[int]) -> pa.Table:
    """Return one row per instance: the archive's own columns, then the features by name. Each event has an offset.

    Classes are the JSON text of the list of the model's classes, where predictions are probabilities.
    """
    event_per_row = [event for event in events for _ in event.predictions]
    table = {
        ID_COLUMN: pa.array([event.id for event in event_per_row], pa.string()),
        ROW_COLUMN: pa.array([row for event in events for row in range(len(event.predictions))], pa.int64()),
        TIME_COLUMN: pa.array([event.time for event in event_per_row], TIME),
        MODEL_COLUMN: pa.array([event.model for event in event_per_row], pa.string()),
        VERSION_COLUMN: pa.array([event.version for event in event_per_row], pa.string()),
        RUN_COLUMN: pa.array([event.run_id for event in event_per_row], pa.string()),
        PREDICTION_COLUMN: _arrow_column([prediction for event in events for prediction in event.predictions]),
        CLASSES_COLUMN: pa.array([_json_or_none(event.classes) for event in event_per_row], pa.string()),
        LABEL_COLUMN: pa.array(
            [_label_text(label) for event in events for label in _cells(event, event.labels)], pa.string()
        ),
        KEY_COLUMN: pa.array([key for event in events for key in _cells(event, event.keys)], pa.string()),
        CONTEXT_COLUMN: pa.array([text for event in events for text in _context_texts(event)], pa.string()),
        OFFSET_COLUMN: pa.array(
            [offset for event, offset in zip(events, offsets, strict=True) for _ in event.predictions], pa.int64()
        ),
    }
    first_rows = [0, *accumulate(len(event.predictions) for event in events)]
    names = set().union(*(event.features for event in events)) - RESERVED_COLUMNS
    for name in sorted(names):
        table[name] = _feature_column(name, events, first_rows)
    return pa.table(table)


def _feature_column(name: str, events: Sequence[Prediction], first_rows: Sequence[int]) -> pa.Array:
    """Return a feature's cells, null in the rows of events that do not have it.

    Those nulls are not made as objects: one event with ten thousand columns would make ten million of a slice.

    Args:
        name: The feature's name.
        events: The events.
        first_rows: The first row of each event, and the number of all rows.
    """
    having = [number for number, event in enumerate(events) if name in event.features]
    column = _arrow_column(list(chain.from_iterable(events[number].features[name] for number in having)))
    if len(having) == len(events):
        return column
    position = np.full(first_rows[-1], -1)
    position[list(chain.from_iterable(range(first_rows[n], first_rows[n + 1]) for n in having))] = range(len(column))
    return column.take(pa.array(position, mask=position < 0))


def _cells(event: Prediction, cells: Sequence[Any] | None) -> Sequence[Any]:
    """Return one cell for each row of an event that may have none."""
    return [None] * len(event.predictions) if cells is None else cells


def _label_text(label: Label | None) -> str | None:
    """Return a label as text: a text as it is, and others as in JSON."""
    return label if label is None or isinstance(label, str) else json.dumps(label)


def _context_texts(event: Prediction) -> Sequence[str | None]:
    """Return the context of each row as a JSON object, as clients choose the names of its columns."""
    if not event.context:
        return _cells(event, None)
    rows = zip(*event.context.values(), strict=True)
    return [json.dumps(dict(zip(event.context, row, strict=True)), ensure_ascii=False) for row in rows]


def _arrow_column(cells: Sequence[FeatureValue | PredictionValue]) -> pa.Array:
    """Return values as one column with one type, though versions in a slice may differ in a column's type.

    Integers with floats become floats, other mixtures text; predictions with several outputs become JSON, and labels of
    other versions beside them stay as they are.
    """
    kinds = set(map(type, cells)) - {NoneType}
    if list in kinds:
        return pa.array([cell if isinstance(cell, str) else json.dumps(cell) for cell in cells])
    try:
        if kinds == {int, float}:  # floats hold any integer, if not exactly; text would be worse
            return pa.array(np.array(cells, np.float64), from_pandas=True)
        if len(kinds) <= 1:
            return pa.array(cells, from_pandas=True)
    except OverflowError:  # an integer that 64 bits cannot hold
        pass
    return pa.array([None if cell is None else str(cell) for cell in cells])


def outcomes_table(events: Sequence[Outcome], offsets: Sequence[int]) -> pa.Table:
    """Return one row per outcome, which has an id and a row, or a model and a key; its time is when it became known.

    Each event has an offset.

    An outcome that is a number or a boolean is in ``outcome``, and one that is a text in ``outcome_label``.
    """
    return pa.table(
        {
            ID_COLUMN: pa.array([event.prediction_id for event in events], pa.string()),
            ROW_COLUMN: pa.array([event.index for event in events], pa.int64()),
            TIME_COLUMN: pa.array([event.time for event in events], TIME),
            MODEL_COLUMN: pa.array([event.model for event in events], pa.string()),
            KEY_COLUMN: pa.array([event.key for event in events], pa.string()),
            "outcome": pa.array([_number_or_none(event.outcome) for event in events], pa.float64()),
            "outcome_label": pa.array([_text_or_none(event.outcome) for event in events], pa.string()),
            OFFSET_COLUMN: pa.array(offsets, pa.int64()),
        }
    )


def _json_or_none(classes: Sequence[Label] | None) -> str | None:
    return None if classes is None else json.dumps(classes)


def _number_or_none(outcome: Label) -> float | None:
    return None if isinstance(outcome, str) else float(outcome)


def _text_or_none(outcome: Label) -> str | None:
    return outcome if isinstance(outcome, str) else None
