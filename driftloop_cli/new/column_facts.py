"""What a column of a table consists of, as far as it matters for its kind."""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

ValueType = Literal["boolean", "integer", "fraction", "text", "datetime", "other"]

EXAMPLES = 3
WORDS_SAMPLE = 1_000


@dataclass(frozen=True)
class ColumnFacts:
    """Counts of a column."""

    name: str
    type: ValueType
    """Integers are numbers without a fraction, however they are stored."""
    rows: int
    missing: int
    distinct: int
    """Different values, without the missing one."""
    examples: tuple[str, ...] = ()
    minimum: float = 0
    maximum: float = 0
    rising: bool = False
    """Whether each number is larger than the one of the row before."""
    mean_words: float = 1
    """Words of a text."""
    stored_type: str = ""
    """The type in the file, for types that a use case cannot have."""

    @property
    def present(self) -> int:
        """Rows with a value."""
        return self.rows - self.missing


def column_facts(name: str, column: pa.ChunkedArray) -> ColumnFacts:
    """Return the facts of a column."""
    present = column.drop_null()
    rows, missing = len(column), column.null_count
    kind = _value_type(present)
    if kind == "other":
        return ColumnFacts(name, kind, rows, missing, 0, stored_type=str(column.type))
    if not len(present):
        return ColumnFacts(name, kind, rows, missing, 0)
    distinct = pc.count_distinct(present).as_py()
    examples = tuple(map(_example, pc.unique(present[:WORDS_SAMPLE])[:EXAMPLES].to_pylist()))
    if kind in ("integer", "fraction"):
        bounds = pc.min_max(present).as_py()
        steps = pc.greater(present[1:], present[:-1]) if distinct == len(present) > 1 else None
        return ColumnFacts(
            name,
            kind,
            rows,
            missing,
            distinct,
            examples,
            minimum=float(bounds["min"]),
            maximum=float(bounds["max"]),
            rising=steps is not None and bool(pc.all(steps).as_py()),
        )
    words = 1.0
    if kind == "text":
        words = 1 + pc.mean(pc.count_substring_regex(pc.utf8_trim_whitespace(present[:WORDS_SAMPLE]), r"\s+")).as_py()
    return ColumnFacts(name, kind, rows, missing, distinct, examples, mean_words=words)


def _value_type(present: pa.ChunkedArray) -> ValueType:
    kind = present.type
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        whole = pc.all(pc.equal(present, pc.floor(present))).as_py()
        return "integer" if len(present) and whole else "fraction"
    if pa.types.is_timestamp(kind):
        return "datetime"
    return "text" if pa.types.is_string(kind) or pa.types.is_null(kind) else "other"


def _example(value: object) -> str:
    """Return a value as it is printed: without the fraction of an integer, and without the clock of a date."""
    return f"{value:.10g}" if isinstance(value, float) else str(value).removesuffix("+00:00").removesuffix(" 00:00:00")
