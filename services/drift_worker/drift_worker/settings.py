"""The drift worker's settings."""

from pydantic import Field

from driftloop.settings import (
    DeadLetterSettings,
    Port,
    ServerSettings,
    Settings,
    SettingsSection,
    StorageSettings,
    WindowSettings,
)


class DriftWorkerServerSettings(ServerSettings):
    """Where its pages and metrics are served."""

    port: Port = Field(8001, description="port to listen on")
    group: str = Field("drift_worker", description="consumer group; workers of one group share the partitions")
    cached_verdicts: int = Field(2_000, ge=1, description="latest verdicts that the pages know")
    report_timeout_seconds: float = Field(300, gt=0, description="how long evidently's report of a window may take")
    report_retention_days: float = Field(
        90, gt=0, description="age at which a report is deleted; asked for, it is made again"
    )
    max_queued_reports: int = Field(8, ge=1, description="reports that may wait; more push out those that wait longest")


class QualitySettings(SettingsSection):
    """How outcomes are made into the quality of a version."""

    prediction_lookback_slices: int = Field(
        500,
        ge=1,
        description="latest archived slices of a partition in which the predictions of outcomes are looked for",
    )
    outcome_lookback_slices: int = Field(
        30,
        ge=1,
        description="latest slices of outcomes of a partition, at most, that are measured together, and windows that "
        "the record of an estimate is of",
    )
    min_days: int = Field(
        7, ge=1, description="slices are measured together until they have predictions of so many days: days differ"
    )
    min_rows: int = Field(
        200, ge=2, description="a version with fewer rows than this is not measured, and nothing is expected of it"
    )
    max_estimate_error: float = Field(
        0.02, ge=0, description="estimates of the ROC AUC are trusted where they were off by at most this on average"
    )


class DriftWorkerSettings(Settings):
    """Everything that the drift worker reads from the environment."""

    storage: StorageSettings = StorageSettings()
    window: WindowSettings = WindowSettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    quality: QualitySettings = QualitySettings()
    drift_worker: DriftWorkerServerSettings = DriftWorkerServerSettings()
