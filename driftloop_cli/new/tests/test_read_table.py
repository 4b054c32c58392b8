"""Files are read whatever their encoding, separator and way of writing numbers; what is odd is named with its place."""

from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftloop.errors import InvalidInput
from driftloop_cli.new.csv_dialect import SAMPLE_BYTES
from driftloop_cli.new.read_table import read_table

CITIES = ["Köln", "Łódź", "Bern"]


def read(tmp_path: Path, content: str | bytes) -> dict[str, list[Any]]:
    path = tmp_path / "file.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    columns: dict[str, list[Any]] = read_table(path).table.to_pydict()
    return columns


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"], ids=["comma", "semicolon", "tab", "bar"])
def test_encodings_and_separators_are_found(tmp_path: Path, encoding: str, separator: str) -> None:
    cities = [city for city in CITIES if encoding != "cp1252" or city != "Łódź"]
    lines = [f"city{separator}population", *(f"{city}{separator}{len(city)}" for city in cities)]
    content = "\r\n".join(lines).encode(encoding)
    assert read(tmp_path, content) == {"city": cities, "population": list(map(len, cities))}


def test_letter_beyond_ascii_far_from_the_start_is_read_as_cp1252(tmp_path: Path) -> None:
    rows = [b"Bern,1\n"] * (SAMPLE_BYTES // 4)
    rows[len(rows) // 3] = "Köln,1\n".encode("cp1252")
    assert "Köln" in read(tmp_path, b"city,population\n" + b"".join(rows))["city"]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "2"], [1, 2]),
        (["1.5", "2"], [1.5, 2.0]),
        (["1,5", "2"], [1.5, 2.0]),
        (["1.234,5", "2"], [1234.5, 2.0]),
        (["1,234.5", "2,000"], [1234.5, 2000.0]),
        (["+1.5", "-2e3"], [1.5, -2000.0]),
        (["007", "12"], ["007", "12"]),
        (["4111111111111111", "12"], ["4111111111111111", "12"]),
        (["true", "False"], [True, False]),
        (["yes", "no"], ["yes", "no"]),
        (["NA", "DE"], ["NA", "DE"]),
        (["NA", "1"], [None, 1.0]),
        (["", "1"], [None, 1]),
        (["so, late", 'a "quote"'], ["so, late", 'a "quote"']),
        (["two\nlines", "one"], ["two\nlines", "one"]),
    ],
    ids=lambda value: None if isinstance(value, list) else str(value),
)
def test_cells_are_read_as_what_they_are(tmp_path: Path, cells: list[str], expected: list[Any]) -> None:
    quoted = ['"' + cell.replace('"', '""') + '"' for cell in cells]
    content = "other;value\n" + "".join(f"a;{cell}\n" for cell in quoted)
    assert read(tmp_path, content)["value"] == expected


def test_few_values_that_are_no_numbers_are_taken_as_missing_and_named(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("a,b\n" + "".join(f"{'12 EUR' if row == 7 else row},x\n" for row in range(100)))
    file = read_table(path)
    assert file.table["a"].null_count == 1
    assert "8 ('12 EUR')" in file.notes["a"]


def test_column_of_numbers_and_words_stays_one_of_texts(tmp_path: Path) -> None:
    assert read(tmp_path, "a,b\n" + "1,x\nold,x\n" * 10)["a"][:2] == ["1", "old"]


def test_parquet_is_known_by_its_content_and_has_plain_types(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "small": pd.Series([1, 2, None], dtype="Int8"),
            "level": pd.Categorical(["a", "b", "a"]),
            "ratio": [0.5, float("inf"), float("nan")],
            "day": [date(2026, 1, 1)] * 3,
        },
        index=[3, 4, 5],
    )
    path = tmp_path / "file.csv"
    frame.to_parquet(path)
    file = read_table(path)
    assert {name: str(kind) for name, kind in zip(file.table.column_names, file.table.schema.types, strict=True)} == {
        "small": "int64",
        "level": "string",
        "ratio": "double",
        "day": "timestamp[ns]",
    }
    assert file.table["ratio"].to_pylist() == [0.5, None, None]
    assert "row 2" in file.notes["ratio"]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "empty"),
        ("a,b\n", "no rows"),
        ("a\n1\n", "one column"),
        ("a,a\n1,2\n", "a (1 and 2)"),
        ("a,A\n1,2\n", "a (1 and 2)"),
        ("a,b,\n1,2,3\n", "3"),
        ("1,2\n3,4\n", "column names"),
        ("a,b\n1,2\n1,2,3\n1,2\n1\n", "2 (3), 4 (1)"),
        (b"PK\x03\x04...", "Excel"),
        (b"\x1f\x8b..", "gzip"),
        ('{"a": 1}\n', "JSON"),
        (b"PAR1 and no more", "Parquet"),
        (b"a,b\n\x00\x01\x02\x00\x00", "zero bytes"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else repr(value)[:20],
)
def test_odd_files_are_refused_with_what_is_odd(tmp_path: Path, content: str | bytes, named: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        read(tmp_path, content)
    assert named in str(refusal.value)


def test_parquet_with_duplicate_names_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "file.parquet")
    with pytest.raises(InvalidInput, match=r"a \(1 and 2\)"):
        read_table(tmp_path / "file.parquet")


def test_index_that_pandas_has_written_without_a_name_gets_one(tmp_path: Path) -> None:
    assert list(read(tmp_path, ",a\n0,5\n1,6\n")) == ["row_number", "a"]
