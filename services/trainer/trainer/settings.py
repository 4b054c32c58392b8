"""The trainer's settings."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from driftloop.archive.settings import ArchiveSettings, DriftWorkerGroupSection
from driftloop.drift.comparable_columns import COLUMN_TYPES
from driftloop.drift.distances import DISTANCES, DistanceName
from driftloop.drift.settings import WindowSettings
from driftloop.errors import InvalidInput
from driftloop.evaluation.gate_settings import GateSettings
from driftloop.privacy_settings import SourcePrivacySettings
from driftloop.settings import DeadLetterSettings, Port, RegistrySettings, ServerSettings, Settings, StorageSettings
from driftloop.settings_section import Fraction, SettingsSection
from driftloop.usecase_setting import UseCaseSetting
from trainer.policy.settings import PolicySettings
from trainer.probation.settings import ProbationSettings
from trainer.schedule import Cron


class CalibrationSettings(SettingsSection):
    """How a version's drift profile is computed; the drift worker uses the profile as it is."""

    distances: dict[str, DistanceName] = Field(
        {}, description='distances of columns that differ from the default, as JSON such as {"purpose": "psi"}'
    )


class TrainingDataSettings(SettingsSection):
    """Checks of a training set, and the resources for building it."""

    min_labelled_rows: int = Field(
        1_000, ge=1, description="labelled rows that a training needs; ratios of fewer rows are not checked"
    )
    max_missing_rate_increase: Fraction = Field(
        0.5,
        description="maximum increase of a column's missing rate from the base dataset to the archive; natural gaps "
        "reach 0.3 in 10,000 flights, and a column that clients no longer send has 1.0",
    )
    max_unmatched_ratio: Fraction = Field(
        0.5, description="maximum ratio of outcomes without an archived prediction; those of open windows have none yet"
    )
    duckdb_memory_mb: int = Field(
        512, ge=128, description="megabytes of memory for joining the data; the rest is spilled to disk"
    )
    archive_wait_seconds: float = Field(
        0,
        ge=0,
        description="seconds for which a retrain that uses the archive waits for the drift worker to archive what was "
        "published before; then it goes on without the rest, and says how much that is",
    )
    cache_dir: Path | None = Field(
        None,
        description="folder that keeps the archive's files for the next retrain; if not set, each retrain downloads "
        "all",
    )


class TrainerServerSettings(ServerSettings):
    """API, consumer group and training process of the trainer."""

    port: Port = Field(8002, description="port to listen on")
    group: str = Field(
        "trainer",
        description="prefix of the consumer group; the use case's name is appended, so there is one group per model",
    )
    api_key: SecretStr = Field(
        min_length=8, description="key that requests to POST /retrain must have in the header X-API-Key"
    )
    training_timeout_seconds: float = Field(
        3_600, gt=0, description="seconds after which a training is ended and the retrain has failed"
    )
    training_threads: int = Field(
        1, ge=1, description="OpenMP threads of a training; with more threads than idle processors they mostly wait"
    )
    training_memory_limit_mb: float | None = Field(
        None, gt=0, description="megabytes of memory above which a training is ended and the retrain has failed"
    )
    git_revision: str = Field(
        "",
        description="git revision of the code, for the run in MLflow; images set it, elsewhere the repository's is "
        "used",
    )
    schedule: Cron | None = Field(
        None, description="cron expression in the use case's time zone for scheduled retrains, such as 0 4 * * 1"
    )


class TrainerSettings(Settings):
    """All settings of the trainer."""

    use_case: UseCaseSetting
    registry: RegistrySettings
    storage: StorageSettings = StorageSettings()
    archive: ArchiveSettings = ArchiveSettings()
    drift_worker: DriftWorkerGroupSection = DriftWorkerGroupSection()
    window: WindowSettings = WindowSettings()
    privacy: SourcePrivacySettings = SourcePrivacySettings()
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
                f"DRIFTLOOP_REGISTRY__MODEL is {self.registry.model}, but the model of DRIFTLOOP_USE_CASE is "
                f"{self.use_case.name}"
            )
        return self

    @model_validator(mode="after")
    def _check_features(self) -> Self:
        if unknown := set(self.use_case.optional_features or ()) - set(self.use_case.features):
            raise ValueError(
                f"DRIFTLOOP_USE_CASE has no features {', '.join(sorted(unknown))}, which its optional_features name"
            )
        return self

    @model_validator(mode="after")
    def _check_privacy(self) -> Self:
        privacy = self.privacy.privacy
        privacy.require_features(self.use_case.features, f"the use case {self.use_case.name}")
        if private := [name for name in self.use_case.subgroup_columns if privacy.is_private(name)]:
            raise ValueError(
                f"DRIFTLOOP_USE_CASE has the subgroup columns {', '.join(private)}, which DRIFTLOOP_PRIVACY__FEATURES "
                "or DRIFTLOOP_PRIVACY__CONTEXT hides: the gate's decision would quote their values"
            )
        return self

    @model_validator(mode="after")
    def _check_metric(self) -> Self:
        try:
            self.use_case.headline_metric  # noqa: B018  # looks the metric up
        except InvalidInput as error:
            raise ValueError(f"the metric of DRIFTLOOP_USE_CASE cannot be used: {error}") from error
        return self

    @model_validator(mode="after")
    def _check_distances(self) -> Self:
        kinds = self.privacy.privacy.treat_kinds(self.use_case.monitored_kinds)
        column_types = {column: COLUMN_TYPES[kind] for column, kind in kinds.items()}
        for column, distance in self.calibration.distances.items():
            if column not in column_types:
                raise ValueError(
                    f"DRIFTLOOP_CALIBRATION__DISTANCES has no such column: {column}; the columns are "
                    f"{', '.join(column_types)}"
                )
            if distance not in (allowed := DISTANCES[column_types[column]]):
                raise ValueError(
                    f"DRIFTLOOP_CALIBRATION__DISTANCES has {distance} for {column}, which is a {column_types[column]}: "
                    f"use {', '.join(allowed)}"
                )
        return self
