"""Times as people read them, and how far the clocks of machines may differ."""

from datetime import UTC, datetime, timedelta

MAX_CLOCK_SKEW = timedelta(minutes=5)
"""Between the clocks of clients, brokers, stores and this machine."""


def format_utc(time: datetime) -> str:
    """Return a time in UTC, to the minute."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M}"
