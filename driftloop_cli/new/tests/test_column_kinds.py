"""What a column is taken for: a table of examples."""

from typing import Any

import pyarrow as pa
import pytest

from driftloop.errors import InvalidInput
from driftloop.events import RESERVED_COLUMNS
from driftloop_cli.new.column_facts import column_facts
from driftloop_cli.new.column_kinds import choose_kind, require_feature_name

ROWS = 1_000
NUMBERS = list(range(ROWS))
SENTENCES = [f"the roof of house {number} needs a repair" for number in NUMBERS]

# Name, values, kind, why it is left out.
CASES: list[tuple[str, list[Any], str | None, str | None]] = [
    ("amount", [number / 7 for number in NUMBERS], "number", None),
    ("amount", [None, *(float(number // 2) for number in NUMBERS[1:])], "number", None),
    ("age", [18 + number % 60 for number in NUMBERS], "number", None),
    ("children", [number % 5 for number in NUMBERS], "number", None),
    ("cents", [number * 7_919 % 1_000_003 for number in NUMBERS], "number", None),
    ("term_code", [number % 5 for number in NUMBERS], "category", None),
    ("zipCode", [10_000 + number % 300 for number in NUMBERS], "category", None),
    ("type", [number % 2 for number in NUMBERS], "number", None),
    ("store_id", [number % 20 for number in NUMBERS], "number", None),
    ("region", ["north", "south"] * (ROWS // 2), "category", None),
    ("reason", ["the roof of the house needs repair", "other"] * (ROWS // 2), "category", None),
    ("city", [f"city {number % 300}" for number in NUMBERS], "category", None),
    ("flag", ["x", *[None] * (ROWS - 1)], "category", None),
    ("employed", [True, False] * (ROWS // 2), "boolean", None),
    ("purpose", SENTENCES, "text", None),
    ("loan", NUMBERS, "number", "identifier"),
    ("loan", [number * 10 for number in NUMBERS], "number", "identifier"),
    ("loan", NUMBERS[::-1], "number", "identifier"),
    ("customer_id", [number * 7_919 % 500 for number in NUMBERS], "number", "identifier"),
    ("customerId", [f"c{number % 500}" for number in NUMBERS], "category", "identifier"),
    ("reference", [f"c{number}" for number in NUMBERS], "category", "identifier"),
    ("currency", ["EUR"] * ROWS, "category", "constant"),
    ("rate", [0.5] * ROWS, "number", "constant"),
    ("nothing", [None] * ROWS, None, "empty"),
    ("tags", [["a"], ["b"]] * (ROWS // 2), None, "unsupported"),
]


@pytest.mark.parametrize(
    ("name", "values", "kind", "left_out"),
    CASES,
    ids=[f"{number} {name}" for number, (name, *_) in enumerate(CASES)],
)
def test_kind_of_a_column(name: str, values: list[Any], kind: str | None, left_out: str | None) -> None:
    choice = choose_kind(column_facts(name, pa.chunked_array([pa.array(values)])))
    assert (choice.kind, choice.left_out) == (kind, left_out), choice
    assert choice.reason


def test_datetimes_are_features_of_their_own_kind() -> None:
    choice = choose_kind(column_facts("signed", pa.chunked_array([pa.array(NUMBERS, pa.timestamp("ns"))])))
    assert (choice.kind, choice.left_out) == ("datetime", None)


def test_column_that_is_named_as_the_id_is_left_out_and_keeps_its_kind() -> None:
    facts = column_facts("store", pa.chunked_array([pa.array([1, 2] * 50)]))
    choice = choose_kind(facts, is_identifier=True)
    assert (choice.kind, choice.left_out) == ("number", "identifier")


@pytest.mark.parametrize("name", sorted(RESERVED_COLUMNS))
def test_columns_of_the_archive_are_no_names_of_features(name: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        require_feature_name(name)
