"""What the commands ``driftloop archive …`` read from the environment."""

from typing import Self

from pydantic import model_validator

from driftloop.archive.settings import ArchiveSettings, DriftWorkerGroupSection
from driftloop.evaluation.quality_settings import QualitySettings
from driftloop.settings import Settings, StorageSettings


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
