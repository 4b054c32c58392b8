"""Times are read in the formats that tables have, and are in UTC; those that cannot be read are named."""

from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from driftloop.errors import InvalidInput
from driftloop_cli.new.times import parse_times, read_row_times
from driftloop_cli.time_zones import require_timezone

NOON = pd.Timestamp("2026-03-31 12:00", tz="UTC")
MIDNIGHT = pd.Timestamp("2026-03-31", tz="UTC")


def read(values: list[Any], timezone: str | None = None, time_format: str | None = None) -> pd.Series:
    return read_row_times("at", pa.chunked_array([pa.array(values)]), timezone, time_format).times


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-03-31T12:00:00", NOON),
        ("2026-03-31 12:00", NOON),
        ("2026-03-31T14:00:00+02:00", NOON),
        ("2026-03-31T12:00:00Z", NOON),
        ("2026-03-31", MIDNIGHT),
        ("31.03.2026 12:00", NOON),
        ("31/03/2026 12:00:00", NOON),
        ("03/31/2026 12:00 PM", NOON),
        ("2026/03/31", MIDNIGHT),
        ("31 Mar 2026", MIDNIGHT),
        ("Mar 31, 2026", MIDNIGHT),
        ("20260331", MIDNIGHT),
        (20260331, MIDNIGHT),
        (NOON.value // 10**9, NOON),
        (NOON.value // 10**6, NOON),
        (float(NOON.value // 10**9), NOON),
        (NOON.to_pydatetime(), NOON),
    ],
    ids=str,
)
def test_formats_of_times(value: Any, expected: pd.Timestamp) -> None:
    assert read([value, value, None] + [value] * 200).dropna().unique().tolist() == [expected]


def test_times_without_a_zone_are_in_the_zone_that_is_named() -> None:
    assert read(["2026-03-31 14:00"], "Europe/Berlin").tolist() == [NOON]


def test_assumption_of_utc_is_said() -> None:
    column = pa.chunked_array([pa.array(["2026-03-31 14:00"])])
    assert "UTC" in read_row_times("at", column, None, None).note


def test_hours_that_clocks_skip_or_repeat_are_read() -> None:
    times = read(["2026-03-29 02:30", "2026-10-25 02:30"], "Europe/Berlin")
    assert times.tolist() == [pd.Timestamp("2026-03-29 01:00", tz="UTC"), pd.Timestamp("2026-10-25 00:30", tz="UTC")]


def test_format_can_be_said() -> None:
    assert read(["03/04/2026"], None, "%d/%m/%Y").tolist() == [pd.Timestamp("2026-04-03", tz="UTC")]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (["2026-03-31"] * 99 + ["soon"], "100 ('soon')"),
        (["2026-03-31T12:00:00Z"] * 99 + ["2026-03-31T12:00:00"], "100 ('2026-03-31T12:00:00')"),
        (["2026-03-31"] * 9 + [None], "row 10"),
        (["03/04/2026"] * 9, "--time-format"),
        (["a", "b"], "a, b"),
        ([1, 2, 3], "1, 2, 3"),
        ([0.5], "0.5"),
        ([True], "True"),
    ],
    ids=["unreadable", "a zone is missing", "missing", "ambiguous", "words", "integers", "fractions", "booleans"],
)
def test_times_that_cannot_be_read_are_refused_by_row(values: list[Any], named: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        read(values)
    assert named in str(refusal.value)


def test_single_day_above_12_says_which_number_is_the_month() -> None:
    assert read(["03/04/2026"] * 9 + ["04/13/2026"])[0] == pd.Timestamp("2026-03-04", tz="UTC")


@pytest.mark.parametrize("values", [["a"], ["north west", "south"], ["12-34", "56-78"], [1.5], [None]], ids=str)
def test_other_columns_are_no_times(values: list[Any]) -> None:
    assert parse_times(pa.chunked_array([pa.array(values)])) is None


def test_unknown_time_zone_is_refused_with_similar_names() -> None:
    assert require_timezone("America/New_York") == "America/New_York"
    with pytest.raises(InvalidInput, match="Europe/Berlin"):
        require_timezone("Berlinn")
