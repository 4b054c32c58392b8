"""What the command reads from the environment."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from driftloop.archive.settings import ArchiveSettings, DriftWorkerGroupSection
from driftloop.privacy_settings import SourcePrivacySettings
from driftloop.settings import RegistrySettings, Settings, StorageSettings
from driftloop.settings_section import SettingsSection


class TrainerGroupSection(SettingsSection, extra="ignore"):
    """The part of the trainer's section by which the command finds out whether a trainer runs."""

    group: str = Field("trainer", description="prefix of the trainers' consumer groups")


class CliSettings(Settings):
    """Settings of commands that need Kafka or the registry."""

    registry: RegistrySettings
    drift_worker: DriftWorkerGroupSection = DriftWorkerGroupSection()
    trainer: TrainerGroupSection = TrainerGroupSection()

    def trainer_group(self, model: str) -> str:
        """Return the consumer group of a model's trainer."""
        return f"{self.trainer.group}-{model}"


class StorageCliSettings(CliSettings):
    """Settings of commands that also need the object store."""

    storage: StorageSettings = StorageSettings()
    archive: ArchiveSettings = ArchiveSettings()
    privacy: SourcePrivacySettings = SourcePrivacySettings()


class TrainerApiSection(SettingsSection, extra="ignore"):
    """The part of the trainer's section that the command needs; the other settings in it are ignored."""

    api_key: SecretStr = Field(min_length=8, description="key of the trainer's API")


class TrainerApiSettings(BaseSettings):
    """Settings of requests to the trainer's API."""

    model_config = Settings.model_config

    trainer: TrainerApiSection
