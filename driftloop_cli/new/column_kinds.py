"""Decide what a column is taken for, and why: a number, a category, …, or left out. Pure: it sees counts only."""

import re
from typing import Literal, NamedTuple

from driftloop.drift.comparable_columns import FeatureKind
from driftloop.errors import InvalidInput
from driftloop.events import describe_conflict
from driftloop_cli.new.column_facts import ColumnFacts

LeftOut = Literal["identifier", "constant", "empty", "leak", "unsupported"]

MAX_PLAIN_LEVELS = 50  # texts with at most so many different values are categories, however long they are
MAX_CODE_LEVELS = 255  # integers named like an identifier with more levels than trees can tell apart are identifiers
MANY_LEVELS = 1_000
MIN_IDENTIFIER_FRACTION = 0.9  # different values a row, of texts that are identifiers
MANY_LEVELS_IDENTIFIER_FRACTION = 0.2  # the same, of texts with many levels
MIN_TEXT_WORDS = 4  # words of a text that people have written, on average
FEW_NUMBERS = 20  # a column of integers with at most so many different values may be one of codes

IDENTIFIER_WORDS = frozenset({"id", "ids", "uuid", "guid", "key", "hash", "token", "iban", "ssn", "email", "serial"})
CODE_WORDS = frozenset(
    {"code", "type", "kind", "class", "category", "group", "status", "zip", "zipcode", "postal", "postcode", "plz"}
)


class ColumnChoice(NamedTuple):
    """What a column is taken for."""

    name: str
    kind: FeatureKind | None
    """The feature's kind; of a column that is left out, the one it would have. ``None`` if it can have none."""
    left_out: LeftOut | None
    """Why the column is no feature; ``None`` if it is one."""
    reason: str
    """Why, in words."""


def choose_kind(facts: ColumnFacts, *, is_identifier: bool = False) -> ColumnChoice:
    """Return what a column is taken for.

    Args:
        facts: The column's counts.
        is_identifier: Whether the column was named as the one with the rows' identifiers.
    """
    choice = _choose(facts)
    if is_identifier and choice.kind is not None:
        return choice._replace(left_out="identifier", reason="the rows' own id (--id)")
    return choice


def require_feature_name(name: str) -> None:
    """Raise :class:`InvalidInput` if the archive has a column of its own with the name of a feature."""
    if conflict := describe_conflict([name]):
        raise InvalidInput(f"the file has {conflict}; rename it in the file")


def _choose(facts: ColumnFacts) -> ColumnChoice:
    name, distinct = facts.name, facts.distinct
    if facts.type == "other":
        return ColumnChoice(name, None, "unsupported", f"values of the type {facts.stored_type} cannot be served")
    if distinct == 0:
        return ColumnChoice(name, None, "empty", "no row has a value")
    kind, reason = _kind(facts)
    if distinct == 1 and not facts.missing:
        return ColumnChoice(name, kind, "constant", f"each row has the same value, {facts.examples[0]}")
    if (why := _identifier_reason(facts, kind)) is not None:
        return ColumnChoice(name, kind, "identifier", why)
    if facts.missing:
        reason += f"; {facts.missing / facts.rows:.1%} missing"
    return ColumnChoice(name, kind, None, reason)


def _kind(facts: ColumnFacts) -> tuple[FeatureKind, str]:
    """Return the kind that a column's values have, and why."""
    if facts.type == "boolean":
        return "boolean", "true or false"
    if facts.type == "datetime":
        return "datetime", "dates or times: month, day of the week, hour and age become features"
    return _number_kind(facts) if facts.type in ("integer", "fraction") else _text_kind(facts)


def _number_kind(facts: ColumnFacts) -> tuple[FeatureKind, str]:
    distinct = facts.distinct
    if facts.type == "fraction":
        return "number", f"numbers from {facts.minimum:g} to {facts.maximum:g}"
    if _words(facts.name) & CODE_WORDS and distinct > 2:
        return "category", f"{distinct:,} codes, by the name: number if their size means something"
    switch = ": category if they are codes" if 2 < distinct <= FEW_NUMBERS else ""
    return "number", f"{distinct:,} integers from {facts.minimum:.0f} to {facts.maximum:.0f}{switch}"


def _text_kind(facts: ColumnFacts) -> tuple[FeatureKind, str]:
    distinct = facts.distinct
    if distinct > MAX_PLAIN_LEVELS and facts.mean_words >= MIN_TEXT_WORDS:
        return "text", f"free text, {facts.mean_words:.0f} words on average: its length is compared, not its levels"
    if distinct > MAX_CODE_LEVELS:
        return "category", f"{distinct:,} levels, of which the pipeline keeps the most frequent"
    return "category", f"{distinct:,} level{'s' if distinct > 1 else ''}"


def _identifier_reason(facts: ColumnFacts, kind: FeatureKind) -> str | None:
    """Return why a column identifies rows, people or things instead of describing them; ``None`` if it does not."""
    named = bool(_words(facts.name) & IDENTIFIER_WORDS)
    if named and facts.distinct > MAX_CODE_LEVELS and (facts.type == "integer" or kind == "category"):
        return f"{facts.distinct:,} different values, and an identifier by its name"
    if facts.type == "integer" and facts.distinct == facts.present > FEW_NUMBERS:
        if facts.rising:
            return "a different integer in each row, rising"
        if facts.maximum - facts.minimum < 2 * facts.present:
            return "a different integer in each row, with hardly a gap"
    if facts.type == "text" and kind == "category" and facts.distinct > MAX_PLAIN_LEVELS:
        fraction = facts.distinct / facts.present
        many = facts.distinct > MANY_LEVELS and fraction >= MANY_LEVELS_IDENTIFIER_FRACTION
        if fraction >= MIN_IDENTIFIER_FRACTION or many:
            return f"{facts.distinct:,} different values in {facts.present:,} rows"
    return None


def _words(name: str) -> set[str]:
    """Return the words of a name in snake_case or camelCase, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}
