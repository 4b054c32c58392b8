"""Settings of probation. Only pydantic is imported, so that the decision stays pure."""

from pydantic import Field

from driftloop.settings_section import Fraction, SettingsSection


class ProbationSettings(SettingsSection):
    """How long a promoted version is compared with its predecessor, to which it is rolled back if clearly worse."""

    days: int = Field(
        7, ge=0, description="days of outcomes after a promotion for which probation lasts; 0 for no probation"
    )
    min_days: int = Field(5, ge=2, description="days of outcomes that a decision needs")
    confidence_level: Fraction = Field(
        0.95, description="confidence level of the interval of the difference between the two versions"
    )
