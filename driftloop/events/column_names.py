"""Which names features can have, so that the archive has a column for each."""

from collections.abc import Collection

from driftloop.events.predictions import RESERVED_COLUMNS


def describe_conflict(names: Collection[str], what: str = "columns") -> str:
    """Return in words which names the archive cannot have as columns beside each other; empty if it can have all.

    Upper and lower case do not matter, as in SQL.

    Args:
        names: The names of features.
        what: What has the names.
    """
    reserved = sorted(name for name in names if name.lower() in RESERVED_COLUMNS)
    if reserved:
        return (
            f"{what} named {', '.join(reserved)}, and the archive has columns of its own with the names "
            f"{', '.join(sorted(RESERVED_COLUMNS))}"
        )
    by_lower: dict[str, list[str]] = {}
    for name in names:
        by_lower.setdefault(name.lower(), []).append(name)
    if same := [" and ".join(each) for each in by_lower.values() if len(each) > 1]:
        return f"{what} whose names differ in upper and lower case only, which SQL takes for one: {', '.join(same)}"
    return ""
