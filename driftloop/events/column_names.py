"""Which names features can have, so that the archive has a column for each."""

from collections.abc import Collection

from driftloop.events.predictions import RESERVED_COLUMNS


def fold_case(name: str) -> str:
    """Return a name as SQL compares names: without the difference of upper and lower case of the letters A to Z."""
    return name.encode(errors="surrogatepass").lower().decode(errors="surrogatepass")


def describe_conflict(names: Collection[str]) -> str:
    """Return in words which names the archive cannot have as columns beside each other; empty if it can have all."""
    reserved = sorted(name for name in names if fold_case(name) in RESERVED_COLUMNS)
    if reserved:
        return (
            f"columns named {', '.join(reserved)}, and the archive has columns of its own with the names "
            f"{', '.join(sorted(RESERVED_COLUMNS))}"
        )
    by_folded: dict[str, list[str]] = {}
    for name in names:
        by_folded.setdefault(fold_case(name), []).append(name)
    if same := [" and ".join(each) for each in by_folded.values() if len(each) > 1]:
        return f"columns that SQL takes for one, whose names differ at most in upper and lower case: {', '.join(same)}"
    return ""
