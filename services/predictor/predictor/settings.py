"""The predictor's settings."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from driftloop.privacy_settings import SourcePrivacySettings
from driftloop.setting_values import MissingValues, require_origin, require_version
from driftloop.settings import Port, RegistrySettings, ServerSettings, Settings, TextList
from driftloop.settings_section import SettingsSection


class ServingSettings(ServerSettings):
    """HTTP server, limits of requests, and the version to serve."""

    port: Port = Field(8000, description="port to listen on")
    workers: int = Field(
        1, ge=1, description="processes that answer requests; each loads the model, and all share the outbox"
    )
    data_dir: Path = Field(
        Path(".driftloop"), description="folder on a local disk for the outbox and the version that was served last"
    )
    pinned_version: Annotated[str, AfterValidator(require_version)] | None = Field(
        None, description="version to serve in place of the one that the alias names, as a number"
    )
    alias_poll_interval_seconds: float = Field(2, gt=0, description="seconds between two look-ups of the alias")
    on_signature_change: Literal["reject", "accept"] = Field(
        "reject",
        description="whether to accept a version whose signature is incompatible with the requests that the version "
        "in service accepts",
    )
    missing_values: MissingValues = Field(
        "auto",
        description="what a null in a column of texts or booleans is to the model: nan, as pandas reads files, none "
        "for Python's None, or auto for what its transformers were fitted with",
    )
    max_consecutive_failures: int = Field(
        20,
        ge=1,
        description="requests in a row that the model fails for, after which readiness warns and an alert fires",
    )
    restore_previous: bool = Field(
        True,
        description="whether the version before serves again after so many failures, if the new one has not answered a "
        "single request",
    )
    unknown_labels: Literal["reject", "accept"] = Field(
        "reject",
        description="whether to accept outcomes that are no class of the version in service: they count as unlabelled "
        "until a use case has the class",
    )
    repeat_window_seconds: float = Field(
        0,
        ge=0,
        description="seconds within which a request with the same keys and features gets the same prediction again; "
        "at 0 every request is a new prediction",
    )
    max_rows: int = Field(1_000, ge=1, description="maximum number of instances in a request")
    max_body_bytes: int = Field(4_000_000, ge=1, description="maximum size of a request's body in bytes")
    body_timeout_seconds: float = Field(
        30, gt=0, description="seconds that a client may take to send the body of a request"
    )
    max_batch_rows: int = Field(1_000, ge=1, description="maximum number of rows that are scored together")
    max_queued_rows: int = Field(
        10_000, ge=1, description="maximum number of rows that wait to be scored; further requests are rejected"
    )
    cors_origins: TextList[Annotated[str, AfterValidator(require_origin)]] = Field(
        (),
        description="origins whose web pages may send requests, as https://a.example,https://b.example or a JSON list; "
        "* for all; by default only pages of the predictor's own host",
    )


class OutboxSettings(SettingsSection):
    """The queue on disk of events that are not yet published."""

    max_events: int = Field(200_000, ge=1, description="maximum number of events that wait to be published")
    on_full: Literal["reject", "drop"] = Field(
        "reject", description="while the outbox is full, reject requests, or answer them and drop their events"
    )
    min_free_bytes: int | None = Field(
        None,
        ge=0,
        description="free bytes of the disk below which the outbox counts as full, so that events can be deleted once "
        "they are published; if not set, 64 MiB, or an eighth of a disk that is smaller than 512 MiB",
    )
    max_event_bytes: int = Field(
        900_000,
        ge=1_000,
        description="maximum size of an event in bytes; must be below the broker's limit, by default 1 MiB",
    )
    fsync: bool = Field(
        True, description="whether each commit waits for the disk; if false, a power failure may lose the latest events"
    )


class RelaySettings(Settings):
    """Settings of the relay: a part of the predictor's, the rest of which it ignores."""

    predictor: ServingSettings = ServingSettings()
    outbox: OutboxSettings = OutboxSettings()


class PredictorSettings(RelaySettings):
    """All settings of the predictor."""

    registry: RegistrySettings
    privacy: SourcePrivacySettings = SourcePrivacySettings()
