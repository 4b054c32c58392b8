"""The keys of the metadata in the archive's Parquet files."""

from collections.abc import Mapping
from datetime import date

SUMS_KEY = b"driftloop.cumulated"
"""Of a slice: the sums of the cumulated score by version, after the windows that end with the slice."""
DAY_KEY = b"driftloop.day"
"""Of a slice: the day on which its first message reached the topic."""
SUMS_BY_END_KEY = b"driftloop.cumulated_by_end"
"""Of a merged file: the sums of each of its slices, by the slice's last offset."""


def parse_day(metadata: Mapping[bytes, bytes] | None) -> date | None:
    """Return the day of a slice from its file's metadata; ``None`` if it is not there."""
    text = (metadata or {}).get(DAY_KEY)
    return None if text is None else date.fromisoformat(text.decode())
