"""The producer's settings."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.settings import PREFIX, LogSettings, TracingSettings, Url
from driftloop.settings_section import SettingsSection
from driftloop.usecase_setting import UseCaseSetting


class ProducerTargetSettings(SettingsSection):
    """The predictor that receives the requests."""

    predictor_url: Url = Field("http://127.0.0.1:8000", description="URL of the predictor")


class ProducerSettings(BaseSettings):
    """All settings of the producer."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", frozen=True)

    use_case: UseCaseSetting
    producer: ProducerTargetSettings = ProducerTargetSettings()
    tracing: TracingSettings = TracingSettings()
    log: LogSettings = LogSettings()
