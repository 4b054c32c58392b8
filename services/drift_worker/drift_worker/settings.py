"""The drift worker's settings."""

from typing import Self

from pydantic import Field, model_validator

from driftloop.archive.settings import ArchiveSettings, DriftWorkerGroupSection
from driftloop.drift.settings import WindowSettings
from driftloop.evaluation.quality_settings import QualitySettings
from driftloop.privacy_settings import PrivacySettings
from driftloop.settings import DeadLetterSettings, OptionalUrl, Port, ServerSettings, Settings, StorageSettings


class DriftWorkerServerSettings(DriftWorkerGroupSection, ServerSettings, extra="forbid"):
    """HTTP server with pages and metrics, consumer group, and reports."""

    port: Port = Field(8001, description="port to listen on")
    cached_verdicts: int = Field(2_000, ge=1, description="number of latest verdicts that the pages show")
    max_references_mb: float = Field(
        256,
        gt=0,
        description="maximum memory in MB of the references of versions; those of the versions that were judged least "
        "recently are dropped beyond it and loaded again when they are needed, which takes up to a second",
    )
    mlflow_url: OptionalUrl = Field(
        None,
        description="URL at which people reach MLflow, for links from the pages to its page of a version; if not set, "
        "there are no links",
    )
    report_timeout_seconds: float = Field(300, gt=0, description="seconds after which rendering a report fails")
    report_retention_days: float = Field(
        90, gt=0, description="days after which a report is deleted; it is rendered again on request"
    )
    max_queued_reports: int = Field(
        8, ge=1, description="maximum number of queued reports; beyond it the oldest are dropped from the queue"
    )


class DriftWorkerSettings(Settings):
    """All settings of the drift worker."""

    storage: StorageSettings = StorageSettings()
    archive: ArchiveSettings = ArchiveSettings()
    window: WindowSettings = WindowSettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    quality: QualitySettings = QualitySettings()
    privacy: PrivacySettings = PrivacySettings()
    drift_worker: DriftWorkerServerSettings = DriftWorkerServerSettings()

    @model_validator(mode="after")
    def _check_retention(self) -> Self:
        self.archive.require_days(self.quality.min_days)
        return self
