"""Lines of prose in written files."""

from textwrap import fill

LINE_LENGTH = 120


def wrap(text: str, indent: str = "") -> str:
    """Return text in lines that are not too long; all but the first are indented."""
    return fill(text, LINE_LENGTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def in_prose(name: str) -> str:
    """Return a column's name for a docstring and for Markdown, which end at quotes and backquotes."""
    return name.replace("\\", "/").replace('"', "'").replace("`", "'")
