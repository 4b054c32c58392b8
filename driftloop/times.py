"""Times as people read them."""

from datetime import UTC, datetime


def format_utc(time: datetime) -> str:
    """Return a time in UTC, to the minute."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M}"
