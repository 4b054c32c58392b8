"""The predictor's settings."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from driftloop.registry.trusted_types import TRUSTED_TYPES
from driftloop.settings import Port, RegistrySettings, ServerSettings, Settings, SettingsSection


class ServingSettings(ServerSettings):
    """Where it listens, what it takes and which version it serves."""

    port: Port = Field(8000, description="port to listen on")
    workers: int = Field(1, ge=1, description="processes that answer; each loads the model, all share the outbox")
    data_dir: Path = Field(Path(".driftloop"), description="local disk for the outbox and the last good version")
    pinned_version: str | None = Field(
        None, min_length=1, description="a version to serve always, instead of the alias' one"
    )
    alias_poll_interval_seconds: float = Field(2, gt=0, description="how often the alias is looked up")
    on_signature_change: Literal["refuse", "accept"] = Field(
        "refuse", description="what to do with a version whose columns would break today's requests"
    )
    trusted_types: tuple[str, ...] = Field(
        TRUSTED_TYPES, description="types that a model may hold beside skops' own safe ones"
    )
    max_rows: int = Field(1_000, ge=1, description="rows that a request may have")
    max_body_bytes: int = Field(4_000_000, ge=1, description="bytes that a request may have")
    body_timeout_seconds: float = Field(30, gt=0, description="how long a client may take to send its request")
    max_batch_rows: int = Field(1_000, ge=1, description="rows that are scored at once")
    max_queued_rows: int = Field(10_000, ge=1, description="rows that may wait to be scored; more are refused")


class OutboxSettings(SettingsSection):
    """Events that are promised and not yet published."""

    max_events: int = Field(200_000, ge=1, description="events that may wait for the broker")
    on_full: Literal["refuse", "drop"] = Field(
        "refuse", description="refuse requests while the outbox is full, or answer them and drop their events"
    )
    max_event_bytes: int = Field(
        900_000, ge=1_000, description="a larger event is refused; below what the broker takes (1 MiB by default)"
    )
    fsync: bool = Field(
        True, description="whether each commit waits for the disk: without it a failing machine may lose the last ones"
    )


class RelaySettings(Settings):
    """What the relay reads from the environment: less than the predictor, whose other settings it ignores."""

    predictor: ServingSettings = ServingSettings()
    outbox: OutboxSettings = OutboxSettings()


class PredictorSettings(RelaySettings):
    """Everything that the predictor reads from the environment."""

    registry: RegistrySettings
