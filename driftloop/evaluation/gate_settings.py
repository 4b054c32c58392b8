"""Settings of the gate. Only pydantic is imported, so that the gate stays cheap to import in a fresh process."""

from typing import Literal

from pydantic import Field

from driftloop.settings_section import Fraction, SettingsSection


class GateSettings(SettingsSection):
    """Conditions under which the gate promotes a challenger."""

    test: Literal["non_inferiority", "superiority"] = Field(
        "non_inferiority",
        description="what the confidence interval of the challenger's gain must exclude: a loss beyond the margin "
        "(non_inferiority, for the same pipeline on more data) or any loss (superiority, for a changed pipeline)",
    )
    margin: float = Field(
        0.02,
        ge=0,
        description="loss that non_inferiority tolerates: of ROC AUC, or as a fraction of the champion's RMSE",
    )
    confidence_level: float = Field(0.95, gt=0, lt=1, description="confidence level of the gate's intervals")
    holdout_days: int = Field(
        14,
        ge=2,
        description="latest days with outcomes that are held out from training and used to compare the versions",
    )
    holdout_fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="in place of a number of days: fraction of the labelled rows to hold out, rounded to whole days",
    )
    min_holdout_days: int = Field(
        10, ge=2, description="blocks of days, as the use case defines them, that the holdout needs for a promotion"
    )
    subgroup_min_fraction: Fraction = Field(
        0.05, description="fraction of the holdout's rows from which on a subgroup is compared by itself"
    )
    subgroup_margin: float = Field(
        0.01,
        ge=0,
        description="loss that a subgroup may have: the challenger is rejected if the interval of a subgroup's gain is "
        "entirely below minus this value",
    )
    refit: bool = Field(
        True, description="whether a challenger that passes is trained again with the holdout before it is promoted"
    )
    max_latency_ratio: float = Field(
        3, gt=0, description="maximum latency of the challenger's predictions, as a multiple of the champion's"
    )
    smoke_test_timeout_seconds: float = Field(
        120, gt=0, description="seconds after which a challenger is rejected whose smoke test has not finished"
    )
