"""Read a CSV or Parquet file as a table whose columns have names and plain types."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from driftloop.errors import InvalidInput
from driftloop.storage.parquet_files import PARQUET_MAGIC
from driftloop_cli.new import csv_dialect
from driftloop_cli.new.numbers_in_text import parse_numbers
from driftloop_cli.new.row_examples import list_rows

BLOCK_BYTES = 8 * 1024 * 1024  # two processors read two blocks at once


class TableFile(NamedTuple):
    """The content of a file."""

    table: pa.Table
    """Columns of booleans, 64-bit integers, floats, texts and datetimes; others are as they are in the file."""
    format: str
    """How the file is written, in words."""
    notes: dict[str, str]
    """What was changed in a column while it was read, in words."""


def read_table(file: Path) -> TableFile:
    """Read a CSV or Parquet file; which of them it is, its content says.

    Raises:
        InvalidInput: The file cannot be read, or its columns have no names of their own.
    """
    try:
        with file.open("rb") as content:
            is_parquet = content.read(4) == PARQUET_MAGIC
        table, format_, decimal_comma = _read_parquet(file) if is_parquet else _read_csv(file)
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror or error}") from error
    table = table.rename_columns(require_names(file, table.column_names))
    if not table.num_rows:
        raise InvalidInput(f"{file} has no rows")
    notes: dict[str, str] = {}
    for position, name in enumerate(table.column_names):
        column, note = plain_column(table[name], decimal_comma=decimal_comma)
        table = table.set_column(position, name, column)
        if note:
            notes[name] = note
    return TableFile(table, format_, notes)


def require_names(file: Path, names: list[str]) -> list[str]:
    """Return the names of columns without spaces around them; the unnamed first column of a pandas index gets a name.

    Raises:
        InvalidInput: A name is missing or cannot be printed, or two columns have the same one.
    """
    stripped = [name.strip() for name in names]
    if stripped[0] == "":
        stripped[0] = "row_number"
    unnamed = [str(position) for position, name in enumerate(stripped, 1) if not name or not name.isprintable()]
    if unnamed:
        raise InvalidInput(f"{file} has columns without a printable name: {', '.join(unnamed)}; name them")
    # SQL does not tell upper from lower case, and DuckDB joins the archive.
    counts = Counter(name.lower() for name in stripped)
    if repeated := [
        f"{name} ({' and '.join(str(i) for i, other in enumerate(stripped, 1) if other.lower() == name)})"
        for name, count in counts.items()
        if count > 1
    ]:
        raise InvalidInput(f"{file} has several columns of the same name: {', '.join(repeated)}; rename them")
    return stripped


def plain_column(column: pa.ChunkedArray, *, decimal_comma: bool) -> tuple[pa.ChunkedArray, str]:
    """Return a column in a type that a use case can have, and what was changed, in words; empty if nothing was."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_integer(kind):
        return column.cast(pa.int64(), safe=not pa.types.is_uint64(kind)), ""
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _without_infinity(column.cast(pa.float64()))
    if pa.types.is_date(kind):
        return column.cast(pa.timestamp("ns")), ""
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("ns", kind.tz)), ""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        texts = column.cast(pa.string())
        numbers = parse_numbers(texts, decimal_comma=decimal_comma)
        return (texts, "") if numbers is None else (numbers.values, numbers.note)
    return column, ""


def _without_infinity(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, str]:
    """Return floats with missing values for infinite ones, which no event can hold, and for NaN."""
    infinite = pc.fill_null(pc.is_inf(column), fill_value=False)
    column = pc.if_else(pc.fill_null(pc.is_finite(column), fill_value=False), column, pa.scalar(None, pa.float64()))
    count = pc.sum(infinite).as_py() or 0
    return column, f"{count:,} infinite values are taken as missing ({list_rows(infinite)})" if count else ""


def _read_parquet(file: Path) -> tuple[pa.Table, str, bool]:
    try:
        table = pq.ParquetFile(file).read()  # read_table refuses duplicate names with an error of its own
    except (pa.ArrowException, OSError) as error:  # the latter also if it is damaged
        raise InvalidInput(f"{file} is no readable Parquet file: {error}") from error
    index = [name for name in table.column_names if name.startswith("__index_level_")]  # of pandas, without a name
    return table.drop_columns(index).replace_schema_metadata(None), "Parquet", False


def _read_csv(file: Path) -> tuple[pa.Table, str, bool]:
    dialect = csv_dialect.detect(file)
    require_names(file, list(dialect.header))
    try:
        table = _parse_csv(file, dialect)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        if "UTF8" not in str(error) or dialect.encoding != "utf-8":
            raise InvalidInput(f"{file} cannot be read as CSV ({dialect}): {str(error).splitlines()[0]}") from error
        dialect = dialect._replace(encoding="cp1252")  # the first letter beyond ASCII stands far from the start
        table = _parse_csv(file, dialect)
    return table, f"CSV, {dialect}", dialect.separator == ";"


def _parse_csv(file: Path, dialect: csv_dialect.CsvDialect, *, use_threads: bool = True) -> pa.Table:
    """Parse a CSV file.

    Raises:
        InvalidInput: Rows have more or fewer cells than the header.
    """
    wrong_rows: list[pyarrow.csv.InvalidRow] = []

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        wrong_rows.append(row)
        return "skip"

    table = pyarrow.csv.read_csv(
        file,
        read_options=pyarrow.csv.ReadOptions(
            # Arrow skips the byte order mark of UTF-8, and reads UTF-8 without converting it.
            encoding="utf8" if dialect.encoding.startswith("utf-8") else dialect.encoding,
            block_size=BLOCK_BYTES,
            use_threads=use_threads,
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=dialect.separator, newlines_in_values=True, invalid_row_handler=skip
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            # NA is a country, too: only numbers and times take such words as missing, see parse_numbers.
            null_values=[""],
            strings_can_be_null=True,
            true_values=["true", "True", "TRUE"],
            false_values=["false", "False", "FALSE"],
            column_types=dict.fromkeys(dialect.text_columns, pa.string()),
        ),
    )
    if wrong_rows and use_threads:  # with threads, Arrow does not count rows
        return _parse_csv(file, dialect, use_threads=False)
    if wrong_rows:
        named = [f"{(row.number or 1) - 1} ({row.actual_columns})" for row in wrong_rows[:3]]
        raise InvalidInput(
            f"{file} has {len(wrong_rows):,} rows with another number of cells than the header's "
            f"{wrong_rows[0].expected_columns}: rows {', '.join(named)}{' …' if len(wrong_rows) > 3 else ''}"
        )
    return table
