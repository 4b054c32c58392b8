"""Names that are close to one that does not exist, for messages."""

import difflib
from collections.abc import Iterable

MIN_SIMILARITY = 0.7  # a slip of the finger or two; below, names just share some letters
SHOWN = 3


def near_names(name: str, names: Iterable[str]) -> list[str]:
    """Return names that somebody may have meant, the most similar first; upper and lower case are the same."""
    by_lower = {candidate.lower(): candidate for candidate in names}
    near = difflib.get_close_matches(name.lower(), by_lower, n=SHOWN, cutoff=MIN_SIMILARITY)
    return [by_lower[match] for match in near]
