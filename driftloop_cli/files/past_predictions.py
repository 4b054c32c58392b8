"""Predictions of the past, which another system has served: checked by column, and prepared as events.

Each row becomes an event of its own, because an event has one time. Its id is a UUIDv7 of that time and a hash of what
it says, so a file that is imported twice gives the same events again. Rows are published in the order of their times:
the drift worker cuts windows by them.
"""

# ruff: noqa: S608  # quoted as described in driftloop.storage.duckdb_sql

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pydantic_core import to_json

from driftloop.errors import InvalidInput
from driftloop.events import ID_COLUMN
from driftloop.privacy import NO_PRIVACY, Privacy
from driftloop.storage.archive_files import ArchiveFiles
from driftloop.storage.duckdb_sql import FLOATS, INTEGERS, fetch_row, quote_identifier, quote_literal
from driftloop.usecase import UseCase
from driftloop_cli.files.outcomes import comparable_sql, outcome_event_sql
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

NUMBERS = INTEGERS | FLOATS | {"BOOLEAN"}


class PredictionColumns(NamedTuple):
    """Where a source has what a prediction's event says besides the features."""

    prediction: str
    time: str
    key: str | None = None
    outcome: str | None = None
    outcome_time: str | None = None


class ImportCounts(NamedTuple):
    """What a source of predictions has."""

    rows: int
    repeated: int
    """Rows that are in the archive already, or that have the key of an earlier row; they are not published."""
    with_outcome: int
    """Rows that are published and whose outcome is published, too."""
    to_publish: int
    """Rows that are published."""


def prepare_predictions(
    source: Source,
    columns: PredictionColumns,
    use_case: UseCase,
    version: str,
    archive: ArchiveFiles,
    privacy: Privacy = NO_PRIVACY,
) -> ImportCounts:
    """Check all rows of a source, and create the views ``events`` and ``outcome_events``.

    Args:
        source: The rows; each feature is in the column of its name.
        columns: The other columns to use.
        use_case: The model's name, features and classes.
        version: The name of the version that has predicted.
        archive: Where rows are looked for that were imported before.
        privacy: What becomes of private features and of keys. Ids are made of what is left.

    Raises:
        InvalidInput: Columns are missing or have invalid values; the message names rows and columns.
    """
    source.require_columns(*use_case.features, *columns)
    source.require(list(_checks(source, columns, use_case)))
    connection, private = source.connection, PrivateSql(privacy)
    private.register(connection)
    kept = [name for name in use_case.features if privacy.features.get(name) != "drop"]
    cells = ", ".join(f"{quote_literal(name)}: [{_feature_sql(source, name, use_case, private)}]" for name in kept)
    features = f"to_json({{{cells}}})::VARCHAR" if kept else "'{}'"
    outcome = value_sql(source, columns.outcome) if columns.outcome else "NULL::DOUBLE"
    kind = source.types[columns.outcome] if columns.outcome else "DOUBLE"
    # The source may have columns with the names that are given here, so no expression uses one of those.
    time = time_sql(columns.time)
    known_at = f"coalesce({time_sql(columns.outcome_time)}, {time})" if columns.outcome_time else time
    connection.execute(
        f"CREATE TEMP TABLE past AS SELECT {NUMBER}, {time} AS time, "
        f"{private.key(key_sql(source, columns.key)) if columns.key else 'NULL::VARCHAR'} AS key, "
        f"{features} AS features, {value_sql(source, columns.prediction)} AS prediction, "
        f"{outcome} AS outcome, {comparable_sql(outcome, kind)} AS value, {known_at} AS known_at FROM source"
    )
    own = [quote_literal(use_case.name), quote_literal(version)]
    said = ["key"] if columns.key else ["epoch_us(time)", "features", "prediction", "repetition"]
    texts = ", ".join(f"{part}::VARCHAR" for part in (*own, *said))
    # Rows without a key that say the same are different requests all the same.
    repetition = f"row_number() OVER (PARTITION BY time, features, prediction ORDER BY {NUMBER})"
    connection.execute(
        f"CREATE TEMP TABLE identified AS SELECT *, {_uuid7_sql('time', f'sha256(to_json([{texts}])::VARCHAR)')} AS id "
        f"FROM (SELECT *, {'0' if columns.key else repetition} AS repetition FROM past)"
    )
    archived = archive_sql(connection, archive.predictions, [ID_COLUMN])
    connection.execute(
        "CREATE TEMP TABLE new_rows AS SELECT * FROM (SELECT * FROM identified "
        f"QUALIFY row_number() OVER (PARTITION BY id ORDER BY {NUMBER}) = 1) ANTI JOIN ({archived}) ON id = {ID_COLUMN}"
    )
    classes = quote_literal(to_json(_classes(source, columns.prediction, use_case)).decode())
    text = (
        f"to_json({{'id': id, 'time': {utc_text_sql('time')}, 'model': {own[0]}, 'version': {own[1]}, "
        f"'features': features::JSON, 'predictions': [prediction], 'classes': {classes}::JSON, "
        f"'keys': {'[key]' if columns.key else 'NULL'}, 'imported': true}})::VARCHAR"
    )
    connection.execute(
        f"CREATE VIEW events AS SELECT id AS key, id AS event_id, {utc_text_sql('time')} AS event_time, {text} AS text "
        f"FROM new_rows ORDER BY time, {NUMBER}"
    )
    outcome_event = outcome_event_sql({"prediction_id": "id", "index": "0"}, ["id", "0", "value", "time"])
    connection.execute(
        f"CREATE VIEW outcome_events AS SELECT id AS key, {outcome_event} FROM "
        "(SELECT * EXCLUDE (time), known_at AS time FROM new_rows WHERE outcome IS NOT NULL) "
        f"ORDER BY time, {NUMBER}"
    )
    (rows, to_publish, with_outcome) = fetch_row(
        connection,
        "SELECT (SELECT count(*) FROM past), (SELECT count(*) FROM new_rows), (SELECT count(outcome) FROM new_rows)",
    )
    return ImportCounts(rows, rows - to_publish, with_outcome, to_publish)


def _classes(source: Source, prediction: str, use_case: UseCase) -> list[object] | None:
    """Return the classes that the predictions are probabilities of, if they are: one number for two classes."""
    is_probability = source.types[prediction] in FLOATS and len(use_case.classes or ()) == 2
    return list(use_case.classes or ()) if is_probability else None


def _checks(source: Source, columns: PredictionColumns, use_case: UseCase) -> Iterator[Check]:
    yield time_check(columns.time)
    yield from value_checks(source, columns.prediction, required=True)
    if _classes(source, columns.prediction, use_case):
        value = quote_identifier(columns.prediction)
        yield Check(columns.prediction, f"{value} NOT BETWEEN 0 AND 1", "a probability between 0 and 1 is needed")
    for name, kind in use_case.feature_kinds.items():
        if kind not in ("datetime", "text"):
            yield from value_checks(source, name, required=False)
        if kind == "boolean":
            yield Check(name, f"CAST({quote_identifier(name)} AS DOUBLE) NOT IN (0, 1)", "a boolean is needed")
    if columns.key:
        yield key_check(source, columns.key)
    if columns.outcome:
        yield from value_checks(source, columns.outcome, required=False)
    if columns.outcome_time:
        missing = f"{quote_identifier(columns.outcome_time)} IS NULL"
        check = time_check(columns.outcome_time)
        yield check._replace(condition=f"NOT {missing} AND {check.condition}")


def _feature_sql(source: Source, name: str, use_case: UseCase, private: PrivateSql) -> str:
    """Return SQL for a feature's values as they are in an event.

    Raises:
        InvalidInput: The column has a type that is not of the feature's kind.
    """
    kind, given, value = use_case.feature_kinds[name], source.types[name], quote_identifier(name)
    is_time = given.startswith("TIMESTAMP") or given == "DATE"
    fits: Mapping[str, bool] = {
        "number": given in NUMBERS or given.startswith("DECIMAL"),
        "boolean": given in NUMBERS,
        "datetime": is_time,
        "text": is_text(given),
    }
    if not fits.get(kind, True):
        raise InvalidInput(f"{source.name}: the column {name} has the type {given}, and the use case says {kind}")
    is_hashed = private.privacy.features.get(name) == "hash"
    if kind == "datetime":
        time = f"CAST({value} AS TIMESTAMPTZ)"
        if is_hashed:
            return private.hashed(time, "TIMESTAMP")
        return f"strftime(timezone('UTC', {time}), '%Y-%m-%dT%H:%M:%S.%f')"
    if kind == "boolean":
        boolean = f"CAST({value} AS BOOLEAN)"
        return private.hashed(boolean, "BOOLEAN") if is_hashed else boolean
    if is_hashed:
        return private.hashed(value_sql(source, name), "DOUBLE" if kind == "number" and given == "BOOLEAN" else given)
    return value_sql(source, name)


def _uuid7_sql(time: str, digest: str) -> str:
    """Return SQL for a UUIDv7 of a time and of the hexadecimal digits of a hash."""
    milliseconds = f"lpad(lower(hex(epoch_ms({time}))), 12, '0')"
    return (
        f"(SELECT left(ms, 8) || '-' || right(ms, 4) || '-7' || left(hash, 3) || '-8' || substr(hash, 4, 3) || '-' "
        f"|| substr(hash, 7, 12) FROM (SELECT {milliseconds} AS ms, {digest} AS hash))"
    )
