"""Settings of windows. Only pydantic is imported, so that drift detection stays free of I/O."""

from pydantic import Field

from driftloop.drift.window_length import MAX_ROWS
from driftloop.settings_section import Fraction, SettingsSection

RUN_LENGTH = 1_000  # windows


class WindowSettings(SettingsSection):
    """How many rows the windows of a version have, and when a window closes with fewer."""

    rows: int | None = Field(
        None,
        ge=10,
        description="rows of a window that the trainer calibrates for; if not set, the longest of up to 1,000 rows of "
        "which a version's reference has 20. The drift worker follows each version's drift profile, and closes windows "
        "of a version without one, and slices of outcomes, at this number, or at 1,000",
    )
    max_age_seconds: float = Field(
        7 * 86_400,
        gt=0,
        description="seconds from the first to the last event of a window, by the times at which they reached the "
        "topic; a later event, of any version, closes the window before it",
    )
    idle_timeout_seconds: float = Field(
        60,
        gt=0,
        description="seconds without a new event after which a slice closes, and with it the windows that have enough "
        "rows for a verdict",
    )
    min_fraction: Fraction = Field(
        0.9,
        description="fraction of its rows that a window needs for a verdict: statistics of fewer rows vary more than "
        "the calibration expects",
    )
    false_alarm_rate: float = Field(
        0.01, gt=0, lt=0.5, description="rate of windows that may raise an alarm although nothing has changed"
    )
    run_length: int = Field(
        RUN_LENGTH,
        ge=50,
        le=10_000,
        description="windows to the first false alarm of the cumulated score, on average; with more, slow changes are "
        "found later",
    )

    @property
    def slice_rows(self) -> int:
        """Rows at which a slice of outcomes, or a window of a version without a profile, closes."""
        return self.rows or MAX_ROWS

    def min_rows(self, length: int) -> int:
        """Return the rows that a window of a length needs for a verdict."""
        return int(length * self.min_fraction)
