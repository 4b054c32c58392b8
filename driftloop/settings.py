"""Settings: environment variables with the prefix ``DRIFTLOOP_``, nested with ``__``; a wrong one stops the start.

Sections that several services read stand here; a service's own section stands in its folder.
"""

import argparse
import socket
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, Field, FilePath, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

PREFIX = "DRIFTLOOP_"

Fraction = Annotated[float, Field(ge=0, le=1)]
Port = Annotated[int, Field(ge=1, le=65535)]


class SettingsSection(BaseModel, extra="forbid", frozen=True):
    """A group of settings; an unknown name in it is an error, since it is probably a misspelt one."""


class KafkaSettings(SettingsSection):
    """How to reach the broker and how to behave as its client."""

    bootstrap_servers: str = Field("127.0.0.1:9092", description="broker addresses, host:port separated by commas")
    session_timeout_seconds: float = Field(
        10, ge=6, description="a killed service's partitions are free after this long; brokers refuse less than 6"
    )
    request_timeout_seconds: float = Field(
        10, gt=0, description="how long the broker may take to answer or to take an event"
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how the broker is spoken to: the name of its listener's protocol"
    )
    ssl_cafile: FilePath | None = Field(
        None, description="PEM file with who may have signed the broker's certificate, instead of the system's list"
    )
    ssl_certfile: FilePath | None = Field(None, description="PEM file with this client's certificate")
    ssl_keyfile: FilePath | None = Field(None, description="PEM file with the key of that certificate")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="how a password is proven, with SASL"
    )
    sasl_username: str | None = Field(None, description="name of this client, with SASL")
    sasl_password: SecretStr | None = Field(None, description="its password")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("a certificate needs its key, and a key its certificate: set both or neither")
        if self.security_protocol.startswith("SASL") and (self.sasl_username is None or self.sasl_password is None):
            raise ValueError(f"{self.security_protocol} needs USERNAME and PASSWORD")
        if not self.security_protocol.endswith("SSL") and (self.ssl_cafile or self.ssl_certfile):
            raise ValueError(
                f"{self.security_protocol} has no use for CA and CERTIFICATE: set PROTOCOL to SSL or SASL_SSL"
            )
        return self

    @property
    def client_config(self) -> dict[str, Any]:
        """What each of kafka-python's clients is told of the broker."""
        told: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers.split(","),
            "bootstrap_timeout_ms": int(self.request_timeout_seconds * 1000),
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol.endswith("SSL"):
            files = {"ssl_cafile": self.ssl_cafile, "ssl_certfile": self.ssl_certfile, "ssl_keyfile": self.ssl_keyfile}
            told |= {name: str(file) for name, file in files.items() if file is not None}
        if self.sasl_password is not None and self.security_protocol.startswith("SASL"):
            told |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password.get_secret_value(),
            }
        return told


class TopicsSettings(SettingsSection):
    """Physical names of the topics, and how ``driftloop topics create`` makes them."""

    predictions: str = Field("predictions", description="name of the topic of answers")
    outcomes: str = Field("outcomes", description="name of the topic of what really happened")
    drift: str = Field("drift", description="name of the topic of verdicts on windows")
    retrain: str = Field("retrain", description="name of the topic of retrains that are asked for")
    models: str = Field("models", description="name of the topic of how retrains end")
    partitions: int = Field(1, ge=1, description="partitions of predictions and outcomes: drift workers that can share")
    replication_factor: int = Field(1, ge=1, description="copies of each partition; 3 on a cluster")
    retention_days: float = Field(7, gt=0, description="how long the broker keeps predictions and outcomes")

    def names(self) -> list[str]:
        """All physical names."""
        return [self.predictions, self.outcomes, self.drift, self.retrain, self.models]


class DeadLetterSettings(SettingsSection):
    """When so much cannot be read that the reader, not the events, must be wrong."""

    max_consecutive: int = Field(
        20, ge=0, description="unreadable events in a row that are moved; one more stops the service"
    )
    max_ratio: Fraction = Field(
        0.2, description="share of unreadable events among the last ones that stops the service"
    )
    ratio_window: int = Field(200, ge=1, description="how many events that share is taken of")


class StorageSettings(SettingsSection):
    """The bucket with references, archive, datasets and artifacts."""

    bucket: str = Field("driftloop", description="name of the GCS bucket")
    endpoint: str | None = Field(None, description="address of a server that speaks GCS's protocol, instead of GCS")


class RegistrySettings(SettingsSection):
    """The MLflow server and what is served of it."""

    uri: str = Field("http://127.0.0.1:5000", description="address of the MLflow server")
    model: str = Field(description="name of the registered model, such as flights")
    alias: str = Field("champion", description="the alias that names the version in service")


class WindowSettings(SettingsSection):
    """What a window of predictions is; the trainer learns what is normal for just this shape."""

    rows: int = Field(1_000, ge=10, description="a window closes when it has this many rows")
    max_age_seconds: float = Field(
        7 * 86_400, gt=0, description="a window closes when the next event is this much later than its first one"
    )
    idle_timeout_seconds: float = Field(60, gt=0, description="a window closes when nothing has come for this long")
    min_version_fraction: Fraction = Field(
        0.9, description="a version with a smaller share of a window's rows is not judged: few rows vary more"
    )
    false_alarm_rate: float = Field(0.01, gt=0, lt=0.5, description="share of windows that may alarm by chance")

    @property
    def min_rows(self) -> int:
        """Rows of a version that make a window of it."""
        return int(self.rows * self.min_version_fraction)


class TracingSettings(SettingsSection):
    """Where traces are sent, and of how many requests."""

    endpoint: str | None = Field(
        None, description="address that takes traces by OTLP over HTTP, such as http://127.0.0.1:4318; none are sent"
    )
    sample_ratio: Fraction = Field(
        0.01, description="share of the requests that are traced, beside those that come with a trace of their own"
    )


class LogSettings(SettingsSection):
    """How the log on standard error is written."""

    format: Literal["json", "human"] | None = Field(
        None, description="one JSON object a line, or lines for people; a terminal gets these where it is not set"
    )
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least that is told")


class Settings(BaseSettings):
    """What every service needs."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", frozen=True)

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicsSettings = TopicsSettings()
    tracing: TracingSettings = TracingSettings()
    log: LogSettings = LogSettings()
    instance_id: str = Field(socket.gethostname(), description="this process' name among those of its service")


class ServerSettings(SettingsSection):
    """Where a service listens."""

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: Port = Field(description="port to listen on")


AnySettings = TypeVar("S", bound=BaseSettings)


def command_line(settings: type[AnySettings], about: str, example: str) -> AnySettings:
    """The settings of a service's command, whose only option is ``--help``: it lists them all.

    ``example`` is a line of the shell. Ends the process as :func:`load` does.
    """
    parser = argparse.ArgumentParser(
        description=f"{about}\n\nexample:\n  {example}\n\nsettings, as environment variables:\n"
        + "\n".join(describe_variables(settings)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    return load(settings)


def describe_variables(settings: type[BaseModel], prefix: str = PREFIX) -> Iterator[str]:
    """Every variable that is read, with what it means and what it is by default."""
    for name, field in settings.model_fields.items():
        variable = f"{prefix}{name.upper()}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, SettingsSection):
            yield from describe_variables(field.annotation, f"{variable}__")
            continue
        default = "to be set" if field.is_required() else f"by default {field.get_default(call_default_factory=True)}"
        yield f"  {variable}\n      {field.description} ({default})"


def load(settings: type[AnySettings]) -> AnySettings:
    """The settings from the environment; names what is wrong and ends the process (exit code 2) where they are not."""
    try:
        return settings()
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            for place in _missing_variables(settings, problem["loc"]):
                name = f"{PREFIX}{'__'.join(map(str, place)).upper()}: " if place else ""
                print(f"{name}{problem['msg']}", file=sys.stderr)
        raise SystemExit(2) from None
    except SettingsError as error:  # a value that should be JSON and is not
        print(f"{PREFIX}…: {error}: {error.__cause__}", file=sys.stderr)
        raise SystemExit(2) from None


def _missing_variables(settings: type[BaseSettings], place: tuple[int | str, ...]) -> list[tuple[int | str, ...]]:
    """The variables to set: for a section that is missing as a whole, those of its fields that have no default."""
    if len(place) != 1:
        return [place]
    section = settings.model_fields[str(place[0])].annotation
    if not (isinstance(section, type) and issubclass(section, SettingsSection)):
        return [place]
    return [(*place, name) for name, field in section.model_fields.items() if field.is_required()] or [place]
