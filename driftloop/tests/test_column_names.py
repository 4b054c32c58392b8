import re

import pytest

from driftloop.events import describe_conflict


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["Age", "x", "age", "X"], "columns that SQL takes for one, .*: Age and age, x and X"),
        (["x", "_Time"], "columns named _Time, and the archive has columns of its own with the names .*_time"),
    ],
)
def test_names_that_sql_takes_for_one_are_named(names: list[str], words: str) -> None:
    assert re.match(words, describe_conflict(names))


def test_other_names_are_no_conflict() -> None:
    assert not describe_conflict(["time", "x", "x ", "ä", "Ä", ""])
