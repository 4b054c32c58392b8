"""SQL that joins archived predictions with their outcomes, with or without a use case.

Each row of a prediction counts once, however often it was archived. Of its outcomes, which may arrive late, twice, out
of order or as a correction, the one that became known last counts; among several of the same time, the last one in the
archive's order. One whose time is in the future counts only if there is no other: it cannot be known yet, and would
beat every later correction. An outcome that names a key belongs to the row of this key that the model predicted last,
but not after the outcome became known.
"""

# ruff: noqa: S608  # quoted as described in driftloop.storage.duckdb_sql

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from driftloop.events import (
    ID_COLUMN,
    KEY_COLUMN,
    MODEL_COLUMN,
    PREDICTION_COLUMN,
    ROW_COLUMN,
    TIME_COLUMN,
    VERSION_COLUMN,
)
from driftloop.storage.duckdb_sql import (
    POSITION_COLUMNS,
    TIMESTAMP_TYPE,
    Connection,
    column_types,
    quote_literal,
    try_cast_sql,
)
from driftloop.times import MAX_CLOCK_SKEW

POSITION_SQL = ", ".join(POSITION_COLUMNS)
ORDER_COLUMNS = ("time", *POSITION_COLUMNS)
EMPTY_ROWS = f"SELECT '' AS {ID_COLUMN}, 0 AS {ROW_COLUMN}, now()::{TIMESTAMP_TYPE} AS {TIME_COLUMN}, " + ", ".join(
    f"0 AS {name}" for name in POSITION_COLUMNS
)
EMPTY_PREDICTIONS = (
    f"{EMPTY_ROWS}, '' AS {MODEL_COLUMN}, '' AS {VERSION_COLUMN}, 0::DOUBLE AS {PREDICTION_COLUMN} LIMIT 0"
)
EMPTY_OUTCOMES = f"{EMPTY_ROWS}, 0.0 AS outcome, '' AS outcome_label LIMIT 0"


def timestamp_literal(when: datetime) -> str:
    """Return a time with a time zone as an SQL literal."""
    return f"{quote_literal(when.isoformat())}::{TIMESTAMP_TYPE}"


def of_model_sql(model: str | None) -> str:
    """Return an SQL condition for the rows of a model, or of any if it is ``None``."""
    return "true" if model is None else f"{MODEL_COLUMN} = {quote_literal(model)}"


def create_outcomes(connection: Connection, scanned: str, types: Mapping[str, str], values: Mapping[str, str]) -> None:
    """Create the view ``outcomes`` of archived outcomes: what they name, their time, and values.

    Args:
        connection: The database.
        scanned: SQL for the archived rows, with their position columns.
        types: The types of their columns.
        values: SQL for each value of an outcome, by its name in the view.
    """
    named = ", ".join(f"{value} AS {name}" for name, value in values.items())
    connection.execute(
        f"CREATE VIEW outcomes AS SELECT {ID_COLUMN} AS id, {ROW_COLUMN} AS row, {TIME_COLUMN} AS time, "
        f"{try_cast_sql(MODEL_COLUMN, types, 'VARCHAR')} AS model, "
        f"{try_cast_sql(KEY_COLUMN, types, 'VARCHAR')} AS key, "
        f"{named}, {POSITION_SQL} FROM ({scanned})"
    )


def join_outcomes(
    connection: Connection, model: str | None, values: Sequence[str], keyed_predictions: str = "predictions"
) -> None:
    """Create the table ``duplicates`` and the view ``latest_outcomes`` from the views ``predictions`` and ``outcomes``.

    ``duplicates`` has the positions of rows of which there is an earlier copy. ``latest_outcomes`` has, by ``id`` and
    ``row``, the values of the outcome that counts, and ``report_count``, the number of all outcomes of the row.

    Args:
        connection: The database.
        model: Only rows of this model are looked at; of all models if it is ``None``.
        values: The columns of ``outcomes`` that an outcome's values are.
        keyed_predictions: A view of the predictions that keys can name: also of those after the rows that are wanted.
    """
    of_model = f"predictions WHERE {of_model_sql(model)}"
    identity = ", ".join([*([MODEL_COLUMN] if model is None else []), ID_COLUMN, ROW_COLUMN])
    # Deduplicate by ids only: whole rows, three million of them, did not fit into a gigabyte.
    connection.execute(
        f"CREATE TEMP TABLE duplicates AS SELECT {POSITION_SQL} FROM {of_model} "
        f"QUALIFY row_number() OVER (PARTITION BY {identity} ORDER BY {POSITION_SQL}) > 1"
    )
    _name_rows_of_outcomes(connection, model, values, keyed_predictions)
    is_past = f"time <= {timestamp_literal(datetime.now(UTC) + MAX_CLOCK_SKEW)}"
    latest_first = ", ".join(f"{column} DESC" for column in (is_past, *ORDER_COLUMNS))
    connection.execute(
        f"CREATE VIEW latest_outcomes AS SELECT id, row, {', '.join(values)}, "
        "count(*) OVER (PARTITION BY id, row) AS report_count FROM named_outcomes "
        f"QUALIFY row_number() OVER (PARTITION BY id, row ORDER BY {latest_first}) = 1"
    )


def _name_rows_of_outcomes(connection: Connection, model: str | None, values: Sequence[str], predictions: str) -> None:
    """Create the view ``named_outcomes``: the outcomes by id and row, also those that name a key.

    An outcome with a key belongs to the model's row of that key with the latest time that is not after its own. If
    there is none, it gets an id and a row that no prediction has.
    """
    key = try_cast_sql(KEY_COLUMN, column_types(connection, predictions), "VARCHAR")
    last_first = ", ".join(f"{column} DESC" for column in POSITION_COLUMNS)
    connection.execute(
        f"CREATE VIEW keyed_rows AS SELECT {MODEL_COLUMN} AS model, {key} AS key, "
        f"{TIME_COLUMN}::{TIMESTAMP_TYPE} AS predicted_at, {ID_COLUMN} AS id, {ROW_COLUMN} AS row "
        f"FROM {predictions} WHERE {of_model_sql(model)} AND {key} IS NOT NULL "
        f"QUALIFY row_number() OVER (PARTITION BY {MODEL_COLUMN}, {key}, {TIME_COLUMN} ORDER BY {last_first}) = 1"
    )
    reports = "true" if model is None else f"model = {quote_literal(model)}"
    selected = ", ".join(("time", *values, *POSITION_COLUMNS))
    connection.execute(
        f"CREATE VIEW named_outcomes AS SELECT id, row, {selected} FROM outcomes WHERE key IS NULL UNION ALL "
        f"SELECT coalesce(keyed_rows.id, reports.key), coalesce(keyed_rows.row, -1), {selected} "
        f"FROM (FROM outcomes WHERE key IS NOT NULL AND {reports}) reports ASOF LEFT JOIN keyed_rows "
        "ON reports.model = keyed_rows.model AND reports.key = keyed_rows.key "
        "AND reports.time >= keyed_rows.predicted_at"
    )
