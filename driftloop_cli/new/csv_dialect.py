"""How a CSV file is written: its encoding, its separator, and columns whose digits are no numbers."""

import codecs
import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

from driftloop.errors import InvalidInput

SAMPLE_BYTES = 256 * 1024  # of the start, and of each of a few places in the file
SAMPLED_PLACES = 4
SNIFFED_LINES = 100
SEPARATORS = (",", ";", "\t", "|")
SEPARATOR_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
OTHER_FORMATS = {
    b"PK\x03\x04": "a ZIP or Excel file: export it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel file: export it as CSV",
    b"\x1f\x8b": "a file compressed by gzip: decompress it first",
    b"{": "a JSON file: export it as CSV or Parquet",
    b"[": "a JSON file: export it as CSV or Parquet",
}
# A number would lose the zeros of 00123, and the last digits of a card number.
CODE_DIGITS = re.compile(r"0\d+|\d{16,}")


class CsvDialect(NamedTuple):
    """How a CSV file is written."""

    encoding: str
    separator: str
    header: tuple[str, ...]
    """The names of the columns as they stand in the file."""
    text_columns: tuple[str, ...]
    """Columns of digits that have to stay texts: with leading zeros, or too long for a number."""

    def __str__(self) -> str:
        return f"{SEPARATOR_NAMES[self.separator]} between cells, {self.encoding}"


def detect(file: Path) -> CsvDialect:
    """Return the dialect of a CSV file, from its start and a few places further on.

    Raises:
        InvalidInput: The file is empty, of another format, or has one column only.
    """
    start = _read(file, 0)
    for magic, problem in OTHER_FORMATS.items():
        if start.lstrip()[: len(magic)] == magic:
            raise InvalidInput(f"{file} is {problem}")
    encoding = detect_encoding(file, start)
    text = _decode(start, encoding)
    if not text.strip():
        raise InvalidInput(f"{file} is empty")
    separator = detect_separator(file, text)
    header = tuple(next(csv.reader(io.StringIO(text), delimiter=separator)))
    if all(re.fullmatch(r"[+-]?[\d.,]+", name.strip()) for name in header):
        raise InvalidInput(
            f"{file} has numbers in its first row ({', '.join(header[:3])}): add a row with column names"
        )
    codes = set()
    for lines in (text, *(_whole_lines(part, encoding) for part in _later_parts(file))):
        for row in csv.reader(io.StringIO(lines), delimiter=separator):
            codes |= {name for name, cell in zip(header, row, strict=False) if CODE_DIGITS.fullmatch(cell)}
    return CsvDialect(encoding, separator, header, tuple(name for name in header if name in codes))


def detect_encoding(file: Path, start: bytes) -> str:
    """Return the encoding of a file by its byte order mark, its zero bytes, and whether it is valid UTF-8."""
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if start.startswith(mark):
            return encoding
    if start[1:200:2].count(0) > start[:200:2].count(0) == 0:
        return "utf-16-le"
    if start[:200:2].count(0) > start[1:200:2].count(0) == 0:
        return "utf-16-be"
    if 0 in start:
        raise InvalidInput(f"{file} is neither a CSV nor a Parquet file: it has zero bytes")
    parts = (_read(file, 0), *_later_parts(file))
    return "utf-8" if all(map(_is_utf8, parts)) else "cp1252"


def detect_separator(file: Path, text: str) -> str:
    """Return the separator that gives all of the first lines the same number of cells, and the most of them."""
    lines = text.splitlines(keepends=True)[:SNIFFED_LINES]
    cells: dict[str, tuple[float, int]] = {}
    for separator in SEPARATORS:
        rows = [row for row in csv.reader(lines, delimiter=separator) if row]
        width = len(rows[0])
        if width > 1:
            cells[separator] = sum(len(row) == width for row in rows) / len(rows), width
    if not cells:
        raise InvalidInput(
            f"{file} has one column only: between the cells must be one of "
            f"{', '.join(SEPARATOR_NAMES[separator] for separator in SEPARATORS)}"
        )
    return max(cells, key=cells.__getitem__)


def _read(file: Path, offset: int) -> bytes:
    with file.open("rb") as content:
        content.seek(offset)
        return content.read(SAMPLE_BYTES)


def _later_parts(file: Path) -> list[bytes]:
    size = file.stat().st_size
    step = (size - SAMPLE_BYTES) // SAMPLED_PLACES // 2 * 2  # even, for encodings of two bytes a character
    return [_read(file, step * place) for place in range(1, SAMPLED_PLACES + 1)] if step > SAMPLE_BYTES else []


def _is_utf8(part: bytes) -> bool:
    """Return whether a part of a file, which may begin and end within a character, is valid UTF-8."""
    trimmed = part.lstrip(bytes(range(0x80, 0xC0))) if part[:1] >= b"\x80" else part
    try:
        codecs.getincrementaldecoder("utf-8")().decode(trimmed)
    except UnicodeDecodeError:
        return False
    return True


def _decode(part: bytes, encoding: str) -> str:
    # The part ends somewhere within a line, so its last line is left out.
    text = codecs.getincrementaldecoder(encoding)("replace").decode(part)
    return text if len(part) < SAMPLE_BYTES else text[: text.rfind("\n") + 1]


def _whole_lines(part: bytes, encoding: str) -> str:
    """Return the lines of a part from the middle of a file, without the first, which is not whole."""
    text = _decode(part, {"utf-16": "utf-16-le", "utf-8-sig": "utf-8"}.get(encoding, encoding))
    return text[text.find("\n") + 1 :]
