"""Windows are as long as a reference can calibrate."""

import pytest

from driftloop.drift.window_length import (
    MIN_INDEPENDENT_WINDOWS,
    MIN_REFERENCE_ROWS,
    InsufficientReference,
    choose_window_rows,
)


@pytest.mark.parametrize(
    ("reference_rows", "window_rows"),
    [(80_000, 1_000), (20_000, 1_000), (19_999, 950), (3_500, 150), (1_999, 90), (600, 30), (599, 30), (12, 30)],
)
def test_windows_are_a_twentieth_of_the_reference_from_30_to_1000_rows(reference_rows: int, window_rows: int) -> None:
    assert choose_window_rows(reference_rows) == window_rows
    can_be_calibrated = reference_rows >= MIN_INDEPENDENT_WINDOWS * window_rows
    assert can_be_calibrated == (reference_rows >= MIN_REFERENCE_ROWS)


def test_length_that_is_set_is_used_if_the_reference_can_calibrate_it() -> None:
    assert choose_window_rows(80_000, 50) == 50
    with pytest.raises(InsufficientReference, match="30 more rows"):
        choose_window_rows(970, 50)
