"""Outcomes from a file: checked by column, matched with the archive, and prepared as events.

An event's id is a hash of what it says, so a file that is loaded twice gives the same events again. What the archive
has already is not published; of what is published twice, drift worker and trainer count one.
"""

# ruff: noqa: S608  # quoted as described in driftloop.storage.duckdb_sql

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from driftloop.errors import InvalidInput
from driftloop.events import ID_COLUMN, KEY_COLUMN, MODEL_COLUMN, ROW_COLUMN, TIME_COLUMN
from driftloop.privacy import NO_PRIVACY, Privacy
from driftloop.storage.archive_files import ArchiveFiles
from driftloop.storage.duckdb_sql import POSITION_COLUMNS, fetch_row, quote_identifier, quote_literal
from driftloop_cli.files.options import OUTCOME_VALUE_COLUMNS
from driftloop_cli.files.private_sql import PrivateSql
from driftloop_cli.files.source import (
    NUMBER,
    Check,
    Source,
    archive_sql,
    is_text,
    key_check,
    key_sql,
    time_check,
    time_sql,
    utc_text_sql,
    value_checks,
    value_sql,
)

MAX_ROW = 2**31 - 1  # of driftloop.events.RowIndex
SHOWN_UNMATCHED = 5


class OutcomeColumns(NamedTuple):
    """Where a source has what an outcome's event says. It names the row by an id or by a key."""

    outcome: str
    id: str | None = None
    """Column with the prediction's id."""
    row: str | None = None
    """Column with the position of the row in the request; without it every position is 0."""
    key: str | None = None
    """Column with the client's own key of the row."""
    time: str | None = None
    """Column with when the outcome became known."""


class OutcomeCounts(NamedTuple):
    """What a source of outcomes has."""

    rows: int
    without_outcome: int
    """Rows whose outcome is missing, because it is not known yet."""
    repeated: int
    """Rows that say the same as an earlier row, or as an outcome in the archive; they are not published."""
    matched: int
    """Rows with an outcome whose prediction is in the archive."""
    unmatched: int
    """Rows with an outcome whose prediction is not in the archive, or not yet; they are published, too."""
    to_publish: int
    """Events that are published: one for each row with an outcome that is not repeated."""
    unmatched_examples: tuple[str, ...] = ()
    """The ids or keys of the first unmatched rows."""


def prepare_outcomes(
    source: Source,
    columns: OutcomeColumns,
    model: str,
    known_at: datetime,
    archive: ArchiveFiles,
    privacy: Privacy = NO_PRIVACY,
) -> OutcomeCounts:
    """Check all rows of a source, and create the table ``outcomes`` of the events that it gives.

    Args:
        source: The rows.
        columns: The columns to use.
        model: The registered model whose rows have the keys.
        known_at: When the outcomes became known, if no column says it.
        archive: What they are matched with.
        privacy: What becomes of keys, as it did in the predictions.

    Raises:
        InvalidInput: Columns are missing or have invalid values; the message names rows and columns.
    """
    if (columns.id is None) == (columns.key is None):
        raise InvalidInput("name the column with the prediction's id, or the one with the row's own key: --id or --key")
    source.require_columns(*columns)
    source.require(list(_checks(source, columns)))
    connection, private = source.connection, PrivateSql(privacy)
    private.register(connection)
    names = {"id": ID_COLUMN, "row": ROW_COLUMN} if columns.id else {"key": KEY_COLUMN}
    time = time_sql(columns.time) if columns.time else f"{quote_literal(known_at.isoformat())}::TIMESTAMPTZ"
    value, kind = value_sql(source, columns.outcome), source.types[columns.outcome]
    connection.execute(
        f"CREATE TEMP TABLE known AS SELECT {NUMBER}, {_name_sql(source, columns, private)}, {value} AS outcome, "
        f"{comparable_sql(value, kind)} AS value, {time} AS time FROM source WHERE {value} IS NOT NULL"
    )
    # Without times of their own, the same outcomes are the same whenever they are loaded.
    same = ", ".join([*names, "value", *(["time"] if columns.time else [])])
    of_model = f"{MODEL_COLUMN} = {quote_literal(model)}" if columns.key else "true"
    own = archive_sql(
        connection, archive.outcomes, [*names.values(), MODEL_COLUMN, TIME_COLUMN, *OUTCOME_VALUE_COLUMNS]
    )
    # Of a row that was corrected, only the last outcome is still known.
    last = (
        f"QUALIFY row_number() OVER (PARTITION BY {', '.join(names.values())} "
        f"ORDER BY {TIME_COLUMN} DESC, {' DESC, '.join(POSITION_COLUMNS)} DESC) = 1"
    )
    renamed = ", ".join(f"{archived} AS {name}" for name, archived in names.items())
    connection.execute(
        f"CREATE VIEW archived AS SELECT {renamed}, {OUTCOME_VALUE_COLUMNS[is_text(kind)]} AS value, "
        f"{TIME_COLUMN}::TIMESTAMPTZ AS time FROM ({own}) WHERE {of_model} {'' if columns.time else last}"
    )
    connection.execute(
        f"CREATE TEMP TABLE outcomes AS SELECT * FROM (SELECT * FROM known "
        f"QUALIFY row_number() OVER (PARTITION BY {same} ORDER BY {NUMBER}) = 1) ANTI JOIN archived USING ({same})"
    )
    predictions = archive_sql(connection, archive.predictions, [*names.values(), MODEL_COLUMN])
    matching = " AND ".join(f"{name} = {archived}" for name, archived in names.items())
    connection.execute(
        f"CREATE TEMP TABLE unmatched AS SELECT {NUMBER}, {next(iter(names))} AS name FROM known ANTI JOIN "
        f"(SELECT * FROM ({predictions}) WHERE {of_model}) ON {matching}"
    )
    (rows, with_outcome, unmatched, to_publish) = fetch_row(
        connection,
        "SELECT (SELECT count(*) FROM source), (SELECT count(*) FROM known), (SELECT count(*) FROM unmatched), "
        "(SELECT count(*) FROM outcomes)",
    )
    examples = connection.execute(
        f"SELECT name FROM unmatched GROUP BY name ORDER BY min({NUMBER}) LIMIT {SHOWN_UNMATCHED}"
    ).fetchall()
    _prepare_events(source, columns, model, same)
    return OutcomeCounts(
        rows=rows,
        without_outcome=rows - with_outcome,
        repeated=with_outcome - to_publish,
        matched=with_outcome - unmatched,
        unmatched=unmatched,
        to_publish=to_publish,
        unmatched_examples=tuple(name for (name,) in examples),
    )


def _prepare_events(source: Source, columns: OutcomeColumns, model: str, same: str) -> None:
    """Create the view ``events`` of the table ``outcomes``."""
    fields = {"prediction_id": "id", "index": "row"} if columns.id else {"model": quote_literal(model), "key": "key"}
    source.connection.execute(
        f"CREATE VIEW events AS SELECT {'id' if columns.id else 'key'} AS key, "
        f"{outcome_event_sql(fields, same.split(', '))} FROM outcomes ORDER BY {NUMBER}"
    )


def outcome_event_sql(fields: Mapping[str, str], same: Sequence[str]) -> str:
    """Return SQL for the columns ``event_id``, ``event_time`` and ``text`` of outcomes.

    Args:
        fields: Names of fields that name the row in the event, with SQL of their values.
        same: SQL of columns; two outcomes with the same values in them are the same event.
    """
    texts = ", ".join(f"{'epoch_us(time)' if name == 'time' else name}::VARCHAR" for name in same)
    event_id = f"'outcome-' || left(sha256(to_json([{texts}])::VARCHAR), 32)"
    named = ", ".join(f"'{name}': {value}" for name, value in fields.items())
    time = utc_text_sql("time")
    text = f"to_json({{'id': {event_id}, 'time': {time}, {named}, 'outcome': outcome}})::VARCHAR"
    return f"{event_id} AS event_id, {time} AS event_time, {text} AS text"


def comparable_sql(value: str, kind: str) -> str:
    """Return SQL for an outcome as the archive has it: numbers and booleans as DOUBLE, texts as they are."""
    return value if is_text(kind) else f"CAST({value} AS DOUBLE)"


def _name_sql(source: Source, columns: OutcomeColumns, private: PrivateSql) -> str:
    if columns.id is None:
        return f"{private.key(key_sql(source, str(columns.key)))} AS key"
    row = f"CAST({quote_identifier(columns.row)} AS INTEGER)" if columns.row else "0"
    return f"{key_sql(source, columns.id)} AS id, {row} AS row"


def _checks(source: Source, columns: OutcomeColumns) -> Iterator[Check]:
    yield key_check(source, str(columns.id or columns.key))
    if columns.row:
        row = f"TRY_CAST({quote_identifier(columns.row)} AS DOUBLE)"
        is_valid = f"{row} BETWEEN 0 AND {MAX_ROW} AND {row} = floor({row})"
        yield Check(columns.row, f"coalesce(NOT ({is_valid}), true)", "a row's position is an integer from 0")
    yield from value_checks(source, columns.outcome, required=False)
    if columns.time:
        yield time_check(columns.time)
