"""Times of a table: from ISO 8601, other common formats, or numbers of seconds, in UTC."""

import re
from itertools import product
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa

from driftloop.errors import InvalidInput
from driftloop_cli.new.row_examples import list_rows

ISO = "ISO8601"
DAY_FIRST = ("%d/%m/%Y", "%d-%m-%Y")
MONTH_FIRST = ("%m/%d/%Y", "%m-%d-%Y")
DATES = (*DAY_FIRST, *MONTH_FIRST, "%d.%m.%Y", "%Y/%m/%d", "%Y.%m.%d", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y")
CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
FORMATS = (
    ISO,
    "%Y%m%d",
    "%Y%m%d%H%M%S",
    *(date + clock for date, clock in product(DATES, CLOCKS)),
)
"""Formats that are tried, in this order."""
MIN_FRACTION = 0.9  # of a sample that a format has to read, to be the format of its column
SAMPLE_ROWS = 1_000
LOOKS_LIKE_A_DATE = re.compile(r"\d{1,4}[-/. ]\w{1,9}[-/., ]+\d{1,4}|[A-Z][a-z]{2,8} \d{1,2}, \d{4}|\d{8}(?:\d{6})?$")
ZONE = re.compile(r"(?:Z|[+-]\d{2}:?\d{2})\s*$")
# Numbers since 1970 in the years 2001 to 2286, by their digits.
EPOCH_UNITS: dict[Literal["s", "ms", "us", "ns"], tuple[float, float]] = {
    "s": (1e9, 1e10),
    "ms": (1e12, 1e13),
    "us": (1e15, 1e16),
    "ns": (1e18, 1e19),
}
MAX_MISSING_FRACTION = 0.01


class AmbiguousDates(InvalidInput):
    """Day and month of every date could be swapped."""

    def __init__(self, example: str, formats: tuple[str, str]) -> None:
        """Say so.

        Args:
            example: One of the dates.
            formats: The format with the day first or the month first, and the other one; each with its clock.
        """
        super().__init__(f"day and month could be swapped in {example!r}")
        self.formats = formats


class ParsedTimes(NamedTuple):
    """A column as times."""

    times: pd.Series
    """Times in UTC, or without a zone; missing where the column has none, or none that can be read."""
    format: str
    """How they are written: a format of ``strftime``, or words."""


def parse_times(column: pa.ChunkedArray, time_format: str | None = None) -> ParsedTimes | None:
    """Return a column of datetimes, texts or numbers as times, or ``None`` if hardly any value is a time.

    Args:
        column: The column.
        time_format: The format of texts, as of ``strftime``; otherwise common ones are tried.

    Raises:
        AmbiguousDates: Day and month of every date could be swapped.
    """
    if pa.types.is_timestamp(column.type):
        return ParsedTimes(column.to_pandas(), ISO)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return _parse_numbers(column.to_pandas(), time_format)
    if not pa.types.is_string(column.type):
        return None
    if time_format is not None:
        return ParsedTimes(_read(column.to_pandas(), time_format), time_format)
    return _parse_texts(column)


class RowTimes(NamedTuple):
    """The time of each row."""

    times: pd.Series
    """In UTC; missing in rows that have none."""
    note: str
    """How they were read, in words."""


def read_row_times(name: str, column: pa.ChunkedArray, timezone: str | None, time_format: str | None) -> RowTimes:
    """Return the time of each row in UTC.

    Args:
        name: The column's name, for messages.
        column: The column of times.
        timezone: The zone of times that name none; UTC if it is not given.
        time_format: The format of texts, as of ``strftime``; otherwise common ones are tried.

    Raises:
        InvalidInput: A time cannot be read; the message names rows.
    """
    try:
        parsed = parse_times(column, time_format)
    except AmbiguousDates as error:
        one, other = error.formats
        raise InvalidInput(
            f"the times in {name} are ambiguous: {error}; say --time-format '{one}' or --time-format '{other}'"
        ) from error
    examples = ", ".join(map(str, column.drop_null().unique()[:3].to_pylist()))
    if parsed is None:
        raise InvalidInput(
            f"the column {name} has no times, but {examples}: write them as 2026-03-01T17:30:00, or say how they are "
            "written with --time-format, such as '%d.%m.%Y %H:%M'"
        )
    _require_readable(name, column, parsed)
    zone = ZoneInfo(timezone or "UTC")
    times, how = parsed.times, f"read as {parsed.format.replace(ISO, 'ISO 8601')}"
    if times.dt.tz is not None:
        return RowTimes(times.dt.tz_convert("UTC"), f"{how}, with their time zone")
    # Of the hour that comes twice when clocks go back, the first; the one that does not exist is moved forward.
    local = times.dt.tz_localize(zone, ambiguous=np.ones(len(times), dtype=bool), nonexistent="shift_forward")
    assumed = f"taken as {timezone}" if timezone else "without a time zone: taken as UTC (--timezone)"
    return RowTimes(local.dt.tz_convert("UTC"), f"{how}, {assumed}")


def _require_readable(name: str, column: pa.ChunkedArray, parsed: ParsedTimes) -> None:
    unreadable = pa.chunked_array([pa.array(parsed.times.isna())])
    present = pa.chunked_array([column.is_valid().combine_chunks()])
    odd = pa.compute.and_(unreadable, present)
    if count := pa.compute.sum(odd).as_py():
        raise InvalidInput(
            f"{count:,} times in {name} cannot be read as {parsed.format}: {list_rows(odd, column)}; correct them, or "
            "say how they are written with --time-format"
        )
    missing = pa.compute.invert(present)
    if (count := pa.compute.sum(missing).as_py()) > MAX_MISSING_FRACTION * len(column):
        raise InvalidInput(
            f"{count:,} of {len(column):,} rows have no time in {name} ({list_rows(missing)}): every row needs the "
            "time at which its prediction would have been requested"
        )


def _read(texts: pd.Series, time_format: str) -> pd.Series:
    """Return texts of a format as times: in UTC if they name a zone, and missing where they cannot be read."""
    present = texts.dropna()
    has_zone = "%z" in time_format or bool(len(present) and ZONE.search(present.iloc[0].strip()))
    if has_zone and time_format == ISO:  # a time without a zone among others is not one that can be read
        texts = texts.where(texts.str.contains(ZONE, na=False))
    try:
        read = pd.to_datetime(texts, format=time_format, errors="coerce", utc=has_zone)
    except ValueError as error:  # directives that do not exist; zones that differ
        if time_format in FORMATS:
            return pd.Series(pd.NaT, index=texts.index)
        raise InvalidInput(f"the time format {time_format!r} cannot be used: {error}") from error
    if not isinstance(read.dtype, pd.DatetimeTZDtype) and read.dtype.kind != "M":
        return pd.Series(pd.NaT, index=texts.index)
    return read.dt.as_unit("ns")


def _parse_numbers(numbers: pd.Series, time_format: str | None) -> ParsedTimes | None:
    present = numbers.dropna()
    if time_format is not None or (len(present) and present.between(19000101, 21001231).all()):
        texts = pd.Series([None if pd.isna(number) else f"{number:.0f}" for number in numbers], dtype=object)
        return ParsedTimes(_read(texts, time_format or "%Y%m%d"), time_format or "%Y%m%d")
    for unit, (low, high) in EPOCH_UNITS.items():
        if len(present) and present.between(low, high).mean() >= MIN_FRACTION:
            valid = numbers.where(numbers.between(low, high))
            times = pd.to_datetime(valid, unit=unit, utc=True).dt.as_unit("ns")
            return ParsedTimes(times, f"{unit} since 1970")
    return None


def _parse_texts(column: pa.ChunkedArray) -> ParsedTimes | None:
    """Return texts as times in the format that reads most of them; ``None`` if none reads enough."""
    sample = column.drop_null()[:SAMPLE_ROWS].to_pandas()
    if sample.empty or sample.str.contains(LOOKS_LIKE_A_DATE).mean() < MIN_FRACTION:
        return None
    fractions = {format_: _read(sample, format_).notna().mean() for format_ in FORMATS}
    best = max(fractions, key=fractions.__getitem__)  # the first of equals
    if fractions[best] < MIN_FRACTION:
        return None
    texts = column.to_pandas()
    times = _read(texts, best)
    if (swapped := _swap_day_and_month(best)) is not None:
        other = _read(texts, swapped)
        if other.notna().sum() == times.notna().sum():
            raise AmbiguousDates(sample.iloc[0], (best, swapped))
        if other.notna().sum() > times.notna().sum():
            return ParsedTimes(other, swapped)
    return ParsedTimes(times, best)


def _swap_day_and_month(time_format: str) -> str | None:
    """Return the format with day and month swapped, of those that do not say which is which."""
    for first, second in zip(DAY_FIRST, MONTH_FIRST, strict=True):
        if time_format.startswith((first, second)):
            return (
                time_format.replace(first, second)
                if time_format.startswith(first)
                else time_format.replace(second, first)
            )
    return None
