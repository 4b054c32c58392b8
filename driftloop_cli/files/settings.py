"""What ``driftloop score`` reads from the environment besides the settings of all commands."""

from pydantic import Field

from driftloop.privacy_settings import SourcePrivacySettings
from driftloop.setting_values import MissingValues
from driftloop.settings_section import SettingsSection
from driftloop_cli.settings import CliSettings


class PredictorSection(SettingsSection, extra="ignore"):
    """The part of the predictor's section that decides on predictions; the other settings in it are ignored."""

    missing_values: MissingValues = Field(
        "auto", description="what a null in a column of texts or booleans is to the model; as the predictor has it"
    )


class ScoreSettings(CliSettings):
    """Settings of ``driftloop score``."""

    predictor: PredictorSection = PredictorSection()
    privacy: SourcePrivacySettings = SourcePrivacySettings()
