"""The trainer's settings."""

from typing import Self

from pydantic import Field, SecretStr, model_validator

from driftloop.settings import DeadLetters, Port, Registry, Section, Server, Settings, Share, Storage, WindowSettings
from driftloop.usecase import UseCaseSetting


class Gate(Section):
    """What a challenger has to show before the alias moves."""

    held_out_days: int = Field(14, ge=2, description="the latest days with outcomes, kept from the challenger")
    level: Share = Field(0.95, description="level of the interval of the difference")
    margin: float = Field(0.0, description="the interval's lower end must lie above this")


class Trainer(Server):
    """Where its API listens and who may use it."""

    port: Port = Field(8002, description="port to listen on")
    group: str = Field("trainer", description="consumer group; one trainer of it takes the events of its models")
    api_key: SecretStr = Field(min_length=8, description="what POST /retrain wants as X-API-Key")
    longest_training_seconds: float = Field(3_600, gt=0, description="after this long the trainer counts as stuck")


class TrainerSettings(Settings):
    """Everything that the trainer reads from the environment."""

    use_case: UseCaseSetting
    registry: Registry
    storage: Storage = Storage()
    window: WindowSettings = WindowSettings()
    dead_letters: DeadLetters = DeadLetters()
    gate: Gate = Gate()
    trainer: Trainer

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if self.registry.model != self.use_case.name:
            raise ValueError(
                f"DRIFTLOOP_REGISTRY__MODEL is {self.registry.model}, but DRIFTLOOP_USE_CASE is about "
                f"{self.use_case.name}"
            )
        return self
