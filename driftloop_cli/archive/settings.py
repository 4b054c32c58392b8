"""What the commands ``driftloop archive …`` read from the environment."""

from typing import Self

from pydantic import Field, model_validator

from driftloop.archive.settings import ArchiveSettings
from driftloop.evaluation.quality_settings import QualitySettings
from driftloop.settings import Settings, StorageSettings
from driftloop.settings_section import SettingsSection


class DriftWorkerGroupSection(SettingsSection, extra="ignore"):
    """The part of the drift worker's section by which the command finds what is committed."""

    group: str = Field("drift_worker", description="consumer group of the drift workers")


class ArchiveCliSettings(Settings):
    """Settings of commands that change the archive as the drift worker does; they should be the drift worker's."""

    storage: StorageSettings = StorageSettings()
    archive: ArchiveSettings = ArchiveSettings()
    quality: QualitySettings = QualitySettings()
    drift_worker: DriftWorkerGroupSection = DriftWorkerGroupSection()

    @model_validator(mode="after")
    def _check_retention(self) -> Self:
        self.archive.require_days(self.quality.min_days)
        return self
