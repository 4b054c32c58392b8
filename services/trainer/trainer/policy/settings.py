"""Settings of the retrain policy. Only pydantic and events are imported, so that the policy stays pure."""

from typing import Self

from pydantic import Field, model_validator

from driftloop.events import DataSelection
from driftloop.settings_section import SettingsSection


class PolicySettings(SettingsSection):
    """When the trainer requests a retrain by itself."""

    enabled: bool = Field(True, description="whether the policy requests retrains")
    lookback_windows: int = Field(
        10, ge=1, le=1_000, description="latest windows of the version in service in which alarms are counted"
    )
    min_alarms: int = Field(
        4,
        ge=1,
        description="alarms in the lookback windows that lead to a retrain; a single unusual day causes up to three",
    )
    min_days_since_alarm: float = Field(
        7,
        ge=0,
        description="days of outcomes since the first alarm that a retrain for alarms waits for, so that the new "
        "version learns more than the beginning of a change; 0 to disable",
    )
    max_stale_days: int = Field(
        35, ge=0, description="days of outcomes that no version was trained on that lead to a retrain; 0 to disable"
    )
    cooldown_days: float = Field(
        7, ge=0, description="days after a retrain, in the time of the predictions, in which the policy requests none"
    )
    max_cooldown_days: float = Field(
        14,
        ge=0,
        description="upper bound in days of the cooldown, which doubles with each consecutive retrain that promotes "
        "nothing; after as many days as the holdout has, the gate compares on entirely new days",
    )
    data: DataSelection | None = Field(
        None,
        description="data selection of the policy's retrains, as JSON; if not set, the archive and the base dataset's "
        "rows that the use case has for its first version, since later ones may have been streamed",
    )

    @model_validator(mode="after")
    def _check_alarms_fit_windows(self) -> Self:
        if self.min_alarms > self.lookback_windows:
            raise ValueError(
                f"MIN_ALARMS ({self.min_alarms}) must not be greater than LOOKBACK_WINDOWS ({self.lookback_windows})"
            )
        return self
