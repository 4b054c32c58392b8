"""Choose how many rows the windows of a version have: the most that its reference can be calibrated for."""

from driftloop.errors import InvalidInput

MIN_INDEPENDENT_WINDOWS = 20  # without overlap; with fewer, a threshold for 1 % of windows would be a guess
MAX_ROWS = 1_000
MIN_ROWS = 30  # statistics of fewer rows hardly ever differ clearly
MIN_REFERENCE_ROWS = MIN_INDEPENDENT_WINDOWS * MIN_ROWS


class InsufficientReference(InvalidInput):
    """The reference is too small for windows of the length that is set."""


def choose_window_rows(reference_rows: int, required: int | None = None) -> int:
    """Return the rows of a version's windows.

    The longest windows are chosen of which the reference has 20, with a round number of rows from 30 to 1,000: longer
    windows show smaller changes. A reference of fewer than 600 rows cannot be calibrated even for the shortest ones.

    Args:
        reference_rows: Rows of the reference.
        required: The length that is set, if any.

    Raises:
        InsufficientReference: The reference is too small for the required length.
    """
    if required is None:
        longest = reference_rows // MIN_INDEPENDENT_WINDOWS
        step = 50 if longest >= 100 else 10
        return min(max(longest // step * step, MIN_ROWS), MAX_ROWS)
    missing = MIN_INDEPENDENT_WINDOWS * required - reference_rows
    if missing > 0:
        raise InsufficientReference(
            f"a reference of {reference_rows:,} rows is too small for windows of {required:,} rows: "
            f"{missing:,} more rows are needed, or no DRIFTLOOP_WINDOW__ROWS: its windows then have "
            f"{choose_window_rows(reference_rows)} rows"
        )
    return required
