"""Settings of windows. Only pydantic is imported, so that drift detection stays free of I/O."""

from pydantic import Field

from driftloop.settings_section import Fraction, SettingsSection


class WindowSettings(SettingsSection):
    """When a window of predictions closes and is judged; trainer and drift worker must use the same values."""

    rows: int = Field(1_000, ge=10, description="rows at which a window closes; the trainer calibrates for this number")
    max_age_seconds: float = Field(
        7 * 86_400,
        gt=0,
        description="seconds from the first to the last event of a window; an event later than that opens a new one",
    )
    idle_timeout_seconds: float = Field(
        60, gt=0, description="seconds without a new event after which a window closes, even if it has fewer rows"
    )
    min_version_fraction: Fraction = Field(
        0.9,
        description="fraction of a window's rows that a version needs to be judged: statistics of fewer rows vary more "
        "than the calibration expects",
    )
    false_alarm_rate: float = Field(
        0.01, gt=0, lt=0.5, description="rate of windows that may raise an alarm although nothing has changed"
    )

    @property
    def min_rows(self) -> int:
        """Rows of a version that a window needs for a verdict on that version."""
        return int(self.rows * self.min_version_fraction)
