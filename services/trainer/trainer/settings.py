"""The trainer's settings."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from driftloop.drift.distances import DISTANCES, DistanceName
from driftloop.settings import (
    DeadLetterSettings,
    Fraction,
    Port,
    RegistrySettings,
    ServerSettings,
    Settings,
    SettingsSection,
    StorageSettings,
    WindowSettings,
)
from driftloop.storage.reference_store import PREDICTION
from driftloop.usecase import UseCaseSetting
from trainer.gate.settings import GateSettings
from trainer.policy.settings import PolicySettings
from trainer.probation.settings import ProbationSettings
from trainer.schedule import Cron


class CalibrationSettings(SettingsSection):
    """What a version's drift profile is made of; the drift worker follows the profile."""

    distances: dict[str, DistanceName] = Field(
        {}, description='distances by column where the default is not wanted, such as {"carrier": "psi"}'
    )


class TrainingDataSettings(SettingsSection):
    """What a training set is checked for, and what putting it together may take."""

    min_labelled_rows: int = Field(
        1_000, ge=1, description="labelled rows without which nothing is trained; shares of fewer rows are not judged"
    )
    max_missing_rate_increase: Fraction = Field(
        0.5,
        description="a column may be missing in this share more of the archive's rows than of the base dataset's: "
        "natural gaps made up 0.3 of 10,000 flights, and a column that nobody sends any more 1.0",
    )
    max_unmatched_ratio: Fraction = Field(
        0.5, description="share of the outcomes that may have no archived prediction: those of open windows have none"
    )
    duckdb_memory_mb: int = Field(
        512, ge=128, description="memory for putting it together; what does not fit goes to disk"
    )
    cache_dir: Path | None = Field(
        None, description="where the archive's files are kept for the next retrain; without it each fetches them all"
    )


class TrainerServerSettings(ServerSettings):
    """Where its API listens and who may use it."""

    port: Port = Field(8002, description="port to listen on")
    group: str = Field("trainer", description="consumer group; one trainer of it takes the events of its models")
    api_key: SecretStr = Field(min_length=8, description="what POST /retrain wants as X-API-Key")
    training_timeout_seconds: float = Field(3_600, gt=0, description="a retrain that takes longer has failed")
    training_threads: int = Field(
        1, ge=1, description="OpenMP threads of a training; more than are idle wait for one another most of the time"
    )
    training_memory_limit_mb: float | None = Field(
        None, gt=0, description="a training that uses more memory has failed"
    )
    git_revision: str = Field(
        "", description="git revision of the code, which an image knows; by default the repository's"
    )
    schedule: Cron | None = Field(
        None, description="cron expression in the use case's time zone, such as 0 4 * * 1: retrains by the clock"
    )


class TrainerSettings(Settings):
    """Everything that the trainer reads from the environment."""

    use_case: UseCaseSetting
    registry: RegistrySettings
    storage: StorageSettings = StorageSettings()
    window: WindowSettings = WindowSettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    data: TrainingDataSettings = TrainingDataSettings()
    gate: GateSettings = GateSettings()
    policy: PolicySettings = PolicySettings()
    probation: ProbationSettings = ProbationSettings()
    trainer: TrainerServerSettings

    @model_validator(mode="after")
    def _check_model_is_the_use_cases(self) -> Self:
        if self.registry.model != self.use_case.name:
            raise ValueError(
                f"DRIFTLOOP_REGISTRY__MODEL is {self.registry.model}, but DRIFTLOOP_USE_CASE is about "
                f"{self.use_case.name}"
            )
        return self

    @model_validator(mode="after")
    def _check_distances(self) -> Self:
        kinds = self.use_case.column_types | {PREDICTION: "number"}
        for column, method in self.calibration.distances.items():
            if column not in kinds:
                raise ValueError(
                    f"DRIFTLOOP_CALIBRATION__DISTANCES names {column}, and the columns are {', '.join(kinds)}"
                )
            if method not in (allowed := DISTANCES[kinds[column]]):
                raise ValueError(
                    f"DRIFTLOOP_CALIBRATION__DISTANCES wants {method} for {column}, which is a {kinds[column]}: "
                    f"there is {', '.join(allowed)}"
                )
        return self
