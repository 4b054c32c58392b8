"""The trainer's settings."""

from typing import Self

from pydantic import Field, SecretStr, model_validator

from driftloop.drift.distances import DISTANCES, Distance
from driftloop.reference import PREDICTION
from driftloop.settings import DeadLetters, Port, Registry, Section, Server, Settings, Share, Storage, WindowSettings
from driftloop.usecase import UseCaseSetting


class Calibration(Section):
    """What a version's drift profile is made of; the drift worker follows the profile."""

    methods: dict[str, Distance] = Field(
        {}, description='distances by column where the default is not wanted, such as {"carrier": "psi"}'
    )


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
    calibration: Calibration = Calibration()
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

    @model_validator(mode="after")
    def _known_methods(self) -> Self:
        kinds = self.use_case.kinds | {PREDICTION: "number"}
        for column, method in self.calibration.methods.items():
            if column not in kinds:
                raise ValueError(
                    f"DRIFTLOOP_CALIBRATION__METHODS names {column}, and the columns are {', '.join(kinds)}"
                )
            if method not in (allowed := DISTANCES[kinds[column]]):
                raise ValueError(
                    f"DRIFTLOOP_CALIBRATION__METHODS wants {method} for {column}, which is a {kinds[column]}: "
                    f"there is {', '.join(allowed)}"
                )
        return self
