"""Numbers that are written as texts: with decimal commas, between thousands, or among words for a missing value."""

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from driftloop_cli.new.row_examples import list_rows

MIN_FRACTION = 0.95
"""Fraction of a column's values that have to be numbers; the others are taken as missing, and named."""
SAMPLE_ROWS = 1_000
MISSING = r"(?i)^\s*(n/?a|#n/?a|nan|null|none|nil|\?|\.|-+)\s*$"
STYLES = {
    "a decimal point": r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$",
    "a decimal comma": r"^\s*[+-]?(\d{1,3}(\.\d{3})+|\d+)(,\d+)?\s*$",
    "commas between thousands": r"^\s*[+-]?\d{1,3}(,\d{3})+(\.\d+)?\s*$|^\s*[+-]?\d+(\.\d+)?\s*$",
}
"""Regular expressions of numbers, by how they are written."""
CODE = r"^(0\d+|\d{16,})$"
"""Digits that are no number: it would lose leading zeros, and the last of too many digits."""


class ParsedNumbers(NamedTuple):
    """A column of texts as numbers."""

    values: pa.ChunkedArray
    note: str
    """How the numbers are written, and which texts were taken as missing; empty if there is nothing to say."""


def parse_numbers(texts: pa.ChunkedArray, *, decimal_comma: bool) -> ParsedNumbers | None:
    """Return a column of texts as numbers, or ``None`` if it is none.

    Args:
        texts: The column.
        decimal_comma: Whether 1,234 is a fraction rather than a thousand, as in files with semicolons.
    """
    present = texts.drop_null()
    sample = present.slice(0, SAMPLE_ROWS)
    if not len(present) or (style := _style(sample, decimal_comma=decimal_comma)) is None:
        return None
    if pc.any(pc.match_substring_regex(present, CODE)).as_py():
        return None
    is_number = pc.fill_null(pc.match_substring_regex(texts, STYLES[style]), fill_value=False)
    is_missing = pc.fill_null(pc.match_substring_regex(texts, MISSING), fill_value=False)
    is_odd = pc.and_(pc.is_valid(texts), pc.invert(pc.or_(is_number, is_missing)))
    numbers, missing, odd = (pc.sum(mask).as_py() or 0 for mask in (is_number, is_missing, is_odd))
    if not numbers or odd > (1 - MIN_FRACTION) * (numbers + odd):
        return None
    cleaned = pc.utf8_trim_whitespace(pc.if_else(is_number, texts, pa.scalar(None, pa.string())))
    if style == "a decimal comma":
        cleaned = pc.replace_substring(pc.replace_substring(cleaned, ".", ""), ",", ".")
    elif style == "commas between thousands":
        cleaned = pc.replace_substring(cleaned, ",", "")
    cleaned = pc.replace_substring_regex(cleaned, r"^\+", "")
    notes = [] if style == "a decimal point" else [f"numbers with {style}: send them with a point"]
    if missing:
        notes.append(f"{missing:,} taken as missing, {list_rows(is_missing, texts)}")
    if odd:
        notes.append(f"{odd:,} values are no numbers and taken as missing, {list_rows(is_odd, texts)}")
    return ParsedNumbers(cleaned.cast(pa.float64()), "; ".join(notes))


def _style(sample: pa.ChunkedArray, *, decimal_comma: bool) -> str | None:
    """Return how most texts of a sample are written as numbers; ``None`` if most of them are no numbers."""
    others = ("a decimal comma", "commas between thousands")
    order = ("a decimal point", *(others if decimal_comma else reversed(others)))
    counts = {style: pc.sum(pc.match_substring_regex(sample, STYLES[style])).as_py() for style in order}
    missing = pc.sum(pc.match_substring_regex(sample, MISSING)).as_py()
    best = max(counts, key=counts.__getitem__)  # the first of equals
    # A sample may have more odd values than the column, which decides.
    return best if counts[best] >= 0.5 * max(len(sample) - missing, 1) else None
