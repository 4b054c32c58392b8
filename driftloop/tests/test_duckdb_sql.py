"""The SQL helpers, run by DuckDB."""

# ruff: noqa: S608  # the SQL under test is made of constants

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from driftloop.storage.duckdb_sql import (
    CastFailures,
    Connection,
    column_types,
    connect,
    copy_to_parquet,
    fetch_frame,
    fetch_row,
    find_cast_failures,
    forbid_access,
    quote_identifier,
    quote_literal,
    scan_parquet_sql,
    struct_sql,
    tail_by_label_sql,
    try_cast_sql,
)

NASTY = 'a "quoted" it\'s; DROP TABLE t --'


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with connect(tmp_path, memory_mb=128) as connection:
        yield connection


def test_quoted_identifier_and_literal_keep_any_text(connection: Connection) -> None:
    frame = fetch_frame(connection, f"SELECT {quote_literal(NASTY)} AS {quote_identifier(NASTY)}")
    assert frame.to_dict("records") == [{NASTY: NASTY}]


def test_connect_limits_memory_and_uses_utc(connection: Connection) -> None:
    (limit, zone) = connection.execute(
        "SELECT current_setting('memory_limit'), current_setting('TimeZone')"
    ).fetchall()[0]
    assert (limit, zone) == ("122.0 MiB", "UTC")


def test_scan_parquet_unifies_columns_and_numbers_files_and_rows(connection: Connection, tmp_path: Path) -> None:
    files = [tmp_path / "it's one.parquet", tmp_path / "two.parquet"]
    pd.DataFrame({"x": [1, 2]}).to_parquet(files[0])
    pd.DataFrame({"y": ["u"]}).to_parquet(files[1])
    connection.execute(f"CREATE VIEW rows AS {scan_parquet_sql(files)}")
    assert column_types(connection, "rows") == {"x": "BIGINT", "y": "VARCHAR"}
    found = connection.execute("SELECT __driftloop_file, __driftloop_row, x, y FROM rows ORDER BY ALL").fetchall()
    assert found == [(1, 0, 1, None), (1, 1, 2, None), (2, 0, None, "u")]


@pytest.mark.parametrize(
    ("value", "archived", "wanted", "expected"),
    [
        ("'2.5'", "VARCHAR", "DOUBLE", 2.5),
        ("'far'", "VARCHAR", "DOUBLE", None),
        ("'nan'::DOUBLE", "DOUBLE", "DOUBLE", None),
        ("7", "INTEGER", "VARCHAR", "7"),
        ("7", "INTEGER", "INTEGER", 7),
    ],
)
def test_try_cast_gives_null_for_values_that_do_not_fit(
    connection: Connection, value: str, archived: str, wanted: str, expected: object
) -> None:
    query = f"SELECT {try_cast_sql('x', {'x': archived}, wanted)} FROM (SELECT {value} AS x)"
    assert connection.execute(query).fetchall() == [(expected,)]


def test_try_cast_gives_null_for_absent_column(connection: Connection) -> None:
    assert connection.execute(f"SELECT {try_cast_sql('x', {}, 'DOUBLE')}").fetchall() == [(None,)]


def test_struct_keeps_names_and_casts_values(connection: Connection) -> None:
    types, wanted = {NASTY: "INTEGER"}, {NASTY: "DOUBLE", "absent": "VARCHAR"}
    query = f"SELECT {struct_sql(types, wanted)} FROM (SELECT 1 AS {quote_identifier(NASTY)})"
    assert connection.execute(query).fetchall() == [({NASTY: 1.0, "absent": None},)]


def test_find_cast_failures_leaves_out_columns_that_fit(connection: Connection) -> None:
    connection.execute("CREATE TABLE rows AS SELECT * FROM (VALUES ('1', 'u'), ('2.5', 'v'), ('far', NULL)) t(x, y)")
    types = column_types(connection, "rows")
    found = find_cast_failures(connection, "rows", types, {"x": "DOUBLE", "y": "VARCHAR"})
    assert found == {"x": CastFailures(1, "far", "DOUBLE")}
    assert find_cast_failures(connection, "rows", types, {"x": "BIGINT"}) == {"x": CastFailures(2, "2.5", "BIGINT")}
    assert find_cast_failures(connection, "rows WHERE x <> 'far'", types, {"x": "DOUBLE"}) == {}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("DOUBLE", "number"),
        ("DECIMAL(18,3)", "number"),
        ("UBIGINT", "whole number"),
        ("VARCHAR", "text"),
        ("TIMESTAMPTZ_NS", "time"),
        ("BOOLEAN", "boolean"),
    ],
)
def test_cast_failures_describe_types_in_words(kind: str, words: str) -> None:
    described = CastFailures(1, "x" * 100, kind).describe("a", "the archive")
    assert f"is no {words}, such as" in described
    assert len(described) < 100


@pytest.mark.parametrize(
    ("labelled", "expected"), [(1, [4, 5]), (2, [2, 3, 4, 5]), (3, [1, 2, 3, 4, 5]), (9, [1, 2, 3, 4, 5])]
)
def test_tail_by_label_starts_at_nth_last_labelled_row(
    connection: Connection, labelled: int, expected: list[int]
) -> None:
    rows = "SELECT * FROM (VALUES (5, NULL), (3, NULL), (4, 1), (2, 0), (1, 1)) t(time, outcome)"
    tail = tail_by_label_sql(rows, ["time"], labelled)
    assert [time for (time,) in connection.execute(f"SELECT time FROM ({tail}) ORDER BY time").fetchall()] == expected


def test_copy_to_parquet_writes_equal_bytes_each_time(connection: Connection, tmp_path: Path) -> None:
    query = "SELECT range AS x, 'level ' || range % 7 AS y FROM range(10_000) ORDER BY x"
    for name in ("one.parquet", "it's two.parquet"):
        copy_to_parquet(connection, query, tmp_path / name)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "it's two.parquet").read_bytes()
    assert fetch_row(connection, f"SELECT count(*), sum(x)::BIGINT FROM '{tmp_path}/one.parquet'") == (
        10_000,
        49_995_000,
    )


def test_fetch_row_requires_exactly_one_row(connection: Connection) -> None:
    with pytest.raises(ValueError, match="too many values"):
        fetch_row(connection, "SELECT * FROM range(2)")


def test_missing_extension_is_not_downloaded(connection: Connection) -> None:
    with pytest.raises(duckdb.Error):
        connection.execute("SELECT * FROM 'https://127.0.0.1:1/rows.parquet'")


def test_cast_failures_quote_an_example_only_where_it_is_wanted() -> None:
    failures = CastFailures(1, "far", "DOUBLE")
    assert failures.describe("x", "the file") == "1 value of x in the file is no number, such as 'far'"
    assert failures.describe("x", "the file", quote=False) == "1 value of x in the file is no number"


def test_access_is_forbidden_outside_of_a_folder(connection: Connection, tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside.csv"
    inside.mkdir()
    (inside / "x.csv").write_text("a\n1\n")
    outside.write_text("a\n2\n")
    variable = pd.DataFrame({"a": [3]})
    forbid_access(connection, inside)
    assert connection.execute(f"FROM read_csv({quote_literal(inside / 'x.csv')})").fetchall() == [(1,)]
    for query in (
        f"FROM read_csv({quote_literal(outside)})",
        f"FROM {quote_literal(outside)}",
        f"COPY (SELECT 1) TO {quote_literal(tmp_path / 'new.csv')}",
        f"ATTACH {quote_literal(tmp_path / 'new.db')} AS other",
        "FROM variable",
        "SET enable_external_access = true",
    ):
        with pytest.raises(duckdb.Error):
            connection.execute(query)
    assert len(variable) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside", "outside.csv"]


def test_columns_whose_names_differ_in_case_only_are_read_as_one(connection: Connection, tmp_path: Path) -> None:
    frames = [
        pd.DataFrame({"age": [1.0], "more": ["m"]}),
        pd.DataFrame({"Age": [None, 2.0], "age": [3.0, None]}),
        pd.DataFrame({"AGE": [4.0]}),
    ]
    files = [tmp_path / f"{number}.parquet" for number in range(3)]
    for frame, file in zip(frames, files, strict=True):
        frame.to_parquet(file)
    rows = fetch_frame(connection, f"SELECT age, more FROM ({scan_parquet_sql(files)}) ORDER BY age")
    assert rows["age"].tolist() == [1.0, 2.0, 3.0, 4.0]
    pd.DataFrame({"AGE": ["old"], "age": [None]}).to_parquet(files[2])
    rows = fetch_frame(connection, f"SELECT age FROM ({scan_parquet_sql(files)}) ORDER BY age")
    assert rows["age"].tolist() == ["1.0", "2.0", "3.0", "old"]
    types = column_types(connection, scan_parquet_sql(files))
    assert (types["AGE"], "Age" in types, types.get("years")) == ("VARCHAR", True, None)
