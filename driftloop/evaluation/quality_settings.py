"""Settings of how the quality of a version is measured. Only pydantic is imported, so that evaluation stays pure."""

from pydantic import Field

from driftloop.settings_section import SettingsSection

COMMITTED_SLICES = 300  # of a partition, that are named in the metadata of its committed offset


class QualitySettings(SettingsSection):
    """How a version's quality is computed from outcomes."""

    prediction_lookback_slices: int = Field(
        500,
        ge=1,
        description="number of latest archived slices of a partition in which the predictions of outcomes are searched",
    )
    outcome_lookback_slices: int = Field(
        30,
        ge=1,
        description="maximum number of latest slices of outcomes of a partition that are evaluated together, and of "
        "windows in the track record of estimates",
    )
    min_days: int = Field(
        7,
        ge=1,
        description="days of predictions that the slices that are evaluated together must span, because days differ",
    )
    min_rows: int = Field(200, ge=2, description="rows of a version that an evaluation or an estimate needs")
    max_estimate_error: float = Field(
        0.02, ge=0, description="maximum mean error of earlier estimates of the ROC AUC at which estimates are trusted"
    )

    @property
    def kept_slices(self) -> int:
        """The number of latest slices of a partition that stay as they are, each a file of its own."""
        return max(COMMITTED_SLICES, self.prediction_lookback_slices)
