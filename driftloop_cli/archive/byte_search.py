"""Tell whether bytes have any of many values, in a time that does not grow with the number of values."""

from collections.abc import Callable, Collection

MAX_SINGLE_VALUES = 50  # as many are found faster one after the other


def value_finder(values: Collection[bytes]) -> Callable[[bytes], bool]:
    """Return a function that tells whether its argument has one of the values anywhere.

    Many values are looked up at every position: first as many bytes as the shortest one has, then each length that
    there is.

    Args:
        values: None of them is empty.
    """
    if len(values) <= MAX_SINGLE_VALUES:
        return lambda content: any(value in content for value in values)
    known = frozenset(values)
    lengths = sorted({len(value) for value in known})
    shortest = lengths[0]
    prefixes = frozenset(value[:shortest] for value in known)

    def has_value(content: bytes) -> bool:
        return any(
            content[begin : begin + length] in known
            for begin in range(len(content) - shortest + 1)
            if content[begin : begin + shortest] in prefixes
            for length in lengths
        )

    return has_value
