"""The treatment of private columns in SQL: hashes are computed by :mod:`driftloop.privacy`, as everywhere else."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from driftloop.privacy import Privacy, hash_value
from driftloop.storage.duckdb_sql import FLOATS, INTEGERS, Connection

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HASH_NUMBER, HASH_INTEGER, HASH_TEXT, HASH_BOOLEAN, HASH_TIME = (
    f"driftloop_hash_{kind}" for kind in ("number", "integer", "text", "boolean", "time")
)


class PrivateSql(NamedTuple):
    """SQL for values as events have them. The hash key is in Python functions that SQL calls, and never in SQL."""

    privacy: Privacy

    def register(self, connection: Connection) -> None:
        """Create the functions that the SQL of this object calls, if it hashes anything."""
        key = self.privacy.hash_key
        if not key:
            return

        def of_time(microseconds: int) -> str | None:
            return hash_value(key, EPOCH + timedelta(microseconds=microseconds))

        def of_value(value: Any) -> str | None:
            return hash_value(key, value)

        def of_integer(text: str) -> str | None:
            return hash_value(key, int(text))

        connection.create_function(HASH_NUMBER, of_value, ["DOUBLE"], "VARCHAR")
        connection.create_function(HASH_INTEGER, of_integer, ["VARCHAR"], "VARCHAR")
        connection.create_function(HASH_TEXT, of_value, ["VARCHAR"], "VARCHAR")
        connection.create_function(HASH_BOOLEAN, of_value, ["BOOLEAN"], "VARCHAR")
        connection.create_function(HASH_TIME, of_time, ["BIGINT"], "VARCHAR")

    def key(self, key: str) -> str:
        """Return SQL for a row's own key, of SQL for its text."""
        return f"{HASH_TEXT}({key})" if self.privacy.hashes_keys else key

    def hashed(self, value: str, kind: str) -> str:
        """Return SQL for the hash of a value.

        Args:
            value: SQL for the value.
            kind: Its DuckDB type.
        """
        if kind.startswith("TIMESTAMP"):
            return f"{HASH_TIME}(epoch_us({value}))"
        if kind == "BOOLEAN":
            return f"{HASH_BOOLEAN}({value})"
        if kind in INTEGERS:
            return f"{HASH_INTEGER}(CAST({value} AS VARCHAR))"
        if kind in FLOATS or kind.startswith("DECIMAL"):
            return f"{HASH_NUMBER}(CAST({value} AS DOUBLE))"
        return f"{HASH_TEXT}(CAST({value} AS VARCHAR))"
