"""The producer's settings."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.settings import PREFIX, LogSettings, SettingsSection, TracingSettings
from driftloop.usecase import UseCaseSetting


class ProducerTargetSettings(SettingsSection):
    """Where the rows go."""

    predictor_url: str = Field("http://127.0.0.1:8000", description="address of the predictor")


class ProducerSettings(BaseSettings):
    """Everything that the producer reads from the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", frozen=True)

    use_case: UseCaseSetting
    producer: ProducerTargetSettings = ProducerTargetSettings()
    tracing: TracingSettings = TracingSettings()
    log: LogSettings = LogSettings()
