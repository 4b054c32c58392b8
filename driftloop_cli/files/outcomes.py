"""Outcomes from a file: checked by column, matched with the archive, and published as events.

An event's id is a hash of what it says, so a file that is loaded twice gives the same events again. What the archive
has already is not published; of what is published twice, the drift worker and the trainer count one.
"""

# ruff: noqa: S608  # quoted as described in driftloop.storage.duckdb_sql

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from driftloop.events import ID_COLUMN, ROW_COLUMN, TIME_COLUMN
from driftloop.kafka.bulk_publisher import PreparedEvent
from driftloop.storage.duckdb_sql import POSITION_COLUMNS, fetch_row, quote_identifier, quote_literal, scan_parquet_sql
from driftloop_cli.files.source import (
    NUMBER,
    ArchiveFiles,
    Check,
    Source,
    is_text,
    key_check,
    key_sql,
    time_check,
    time_sql,
    utc_text_sql,
    value_checks,
    value_sql,
)

BATCH_ROWS = 10_000
EMPTY_ROWS = f"SELECT '' AS {ID_COLUMN}, 0 AS {ROW_COLUMN}"
EMPTY_OUTCOMES = f"{EMPTY_ROWS}, 0.0 AS outcome, now() AS {TIME_COLUMN}, 0 AS __file, 0 AS __row LIMIT 0"
MAX_ROW = 2**31 - 1  # of driftloop.events.RowIndex


class OutcomeColumns(NamedTuple):
    """Where the source has what an outcome's event says."""

    outcome: str
    id: str
    """Column with the prediction's id."""
    row: str | None = None
    """Column with the position of the row in the request; without it every position is 0."""
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
    """Rows with an outcome whose prediction is not in the archive, or not yet."""
    to_publish: int
    """Events that are published: rows with an outcome that are not repeated."""


def prepare_outcomes(
    source: Source, columns: OutcomeColumns, known_at: datetime, archive: ArchiveFiles
) -> OutcomeCounts:
    """Check all rows of a source, and create the table ``outcomes`` of the events that it gives.

    Args:
        source: The rows.
        columns: The columns to use.
        known_at: When the outcomes became known, if no column says it.
        archive: What they are matched with.

    Raises:
        InvalidInput: Columns are missing or have invalid values; the message names rows and columns.
    """
    source.require_columns(*columns)
    source.require(list(_checks(source, columns)))
    connection = source.connection
    time = time_sql(columns.time) if columns.time else f"{quote_literal(known_at.isoformat())}::TIMESTAMPTZ"
    row = f"CAST({quote_identifier(columns.row)} AS INTEGER)" if columns.row else "0"
    value, kind = value_sql(source, columns.outcome), source.types[columns.outcome]
    # As the archive has it: numbers and booleans as DOUBLE.
    comparable = value if is_text(kind) else f"CAST({value} AS DOUBLE)"
    connection.execute(
        f"CREATE TEMP TABLE known AS SELECT {NUMBER}, {key_sql(source, columns.id)} AS id, {row} AS row, "
        f"{value} AS outcome, {comparable} AS value, {time} AS time "
        f"FROM source WHERE {value} IS NOT NULL"
    )
    # Without times of their own, the same outcomes are the same whenever they are loaded.
    same = ["id", "row", "value", *(["time"] if columns.time else [])]
    connection.execute(f"CREATE VIEW archived AS {_archived_outcomes(archive, columns, kind)}")
    connection.execute(
        f"CREATE TEMP TABLE outcomes AS SELECT {NUMBER}, id, row, outcome, {utc_text_sql('time')} AS time, "
        f"{_event_id(same)} AS event_id FROM (SELECT * FROM known "
        f"QUALIFY row_number() OVER (PARTITION BY {', '.join(same)} ORDER BY {NUMBER}) = 1) "
        f"ANTI JOIN archived USING ({', '.join(same)})"
    )
    predictions = scan_parquet_sql(archive.predictions) if archive.predictions else f"{EMPTY_ROWS} LIMIT 0"
    (rows, with_outcome, matched, to_publish) = fetch_row(
        connection,
        "SELECT (SELECT count(*) FROM source), (SELECT count(*) FROM known), "
        f"(SELECT count(*) FROM known SEMI JOIN ({predictions}) ON id = {ID_COLUMN} AND row = {ROW_COLUMN}), "
        "(SELECT count(*) FROM outcomes)",
    )
    return OutcomeCounts(
        rows=rows,
        without_outcome=rows - with_outcome,
        repeated=with_outcome - to_publish,
        matched=matched,
        unmatched=with_outcome - matched,
        to_publish=to_publish,
    )


def prepared_events(source: Source) -> Iterator[PreparedEvent]:
    """Yield the events of the table ``outcomes`` in the order of the file."""
    result = source.connection.sql(
        "SELECT id, event_id, time, to_json({'id': event_id, 'time': time, 'prediction_id': id, 'index': row, "
        f"'outcome': outcome}})::VARCHAR AS text FROM outcomes ORDER BY {NUMBER}"
    )
    for batch in result.fetch_arrow_reader(BATCH_ROWS):
        yield from map(PreparedEvent, *(column.to_pylist() for column in batch.columns))


def _checks(source: Source, columns: OutcomeColumns) -> Iterator[Check]:
    yield key_check(source, columns.id)
    if columns.row:
        row = f"TRY_CAST({quote_identifier(columns.row)} AS DOUBLE)"
        is_valid = f"{row} BETWEEN 0 AND {MAX_ROW} AND {row} = floor({row})"
        yield Check(columns.row, f"coalesce(NOT ({is_valid}), true)", "a row's position is an integer from 0")
    yield from value_checks(source, columns.outcome, required=False)
    if columns.time:
        yield time_check(columns.time)


def _archived_outcomes(archive: ArchiveFiles, columns: OutcomeColumns, kind: str) -> str:
    """Return SQL for the outcomes in the archive that may be the same as one of the source."""
    rows = scan_parquet_sql(archive.outcomes) if archive.outcomes else EMPTY_OUTCOMES
    value = "NULL::VARCHAR" if is_text(kind) else "outcome"
    selected = (
        f"SELECT {ID_COLUMN} AS id, {ROW_COLUMN} AS row, {value} AS value, {TIME_COLUMN}::TIMESTAMPTZ AS time, "
        f"{', '.join(POSITION_COLUMNS)} FROM ({rows})"
    )
    if columns.time:
        return selected
    # Of a row that was corrected, only the last outcome is still known.
    position = " DESC, ".join(POSITION_COLUMNS)
    return f"{selected} QUALIFY row_number() OVER (PARTITION BY id, row ORDER BY time DESC, {position} DESC) = 1"


def _event_id(columns: Sequence[str]) -> str:
    """Return SQL for an id that depends on nothing but the values of the columns."""
    texts = ", ".join(f"{'epoch_us(time)' if column == 'time' else column}::VARCHAR" for column in columns)
    return f"'outcome-' || left(sha256(to_json([{texts}])::VARCHAR), 32)"
