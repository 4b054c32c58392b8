"""Settings: environment variables with the prefix ``DRIFTLOOP_``, in which ``__`` separates a section from its field.

This module has the sections that several services read. Each service adds its own in its package.
"""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self, TypeVar, get_args, get_origin
from urllib.parse import unquote

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from driftloop.errors import InvalidInput
from driftloop.setting_values import (
    require_model_name,
    require_registry_uri,
    require_store_library,
    require_store_url,
    require_type_name,
    require_url,
    split_list,
)
from driftloop.settings_section import Fraction, SettingsSection

if TYPE_CHECKING:
    from driftloop.events import Topic

PREFIX = "DRIFTLOOP_"

Port = Annotated[int, Field(ge=1, le=65535)]
Url = Annotated[str, AfterValidator(require_url)]
# Files for containers cannot leave a variable out, so an empty one counts as not set.
OptionalUrl = Annotated[Url | None, BeforeValidator(lambda url: url or None)]
Item = TypeVar("Item")
TextList = Annotated[tuple[Item, ...], NoDecode, BeforeValidator(split_list)]
"""Texts that the environment has as a JSON list, or separated by commas."""


class InvalidSettings(InvalidInput):
    """Environment variables are missing or invalid; the message has a line for each, which names it."""


class KafkaSettings(SettingsSection):
    """How to connect to the Kafka broker; the names are those of Kafka's clients."""

    bootstrap_servers: str = Field("127.0.0.1:9092", description="addresses of brokers, as host:port,host:port")
    session_timeout_seconds: float = Field(
        10,
        ge=6,
        description="seconds after which the broker gives the partitions of a killed service to others; brokers refuse "
        "less than 6",
    )
    request_timeout_seconds: float = Field(
        10, gt=0, description="seconds that the broker may take to answer a request or to acknowledge an event"
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="protocol of the broker's listener"
    )
    ssl_cafile: FilePath | None = Field(
        None,
        description="PEM file with the certificate authorities that may have signed the broker's certificate; if not "
        "set, those of the system",
    )
    ssl_certfile: FilePath | None = Field(None, description="PEM file with this client's certificate")
    ssl_keyfile: FilePath | None = Field(None, description="PEM file with the private key of this client's certificate")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="mechanism of SASL authentication"
    )
    sasl_username: str | None = Field(None, description="user name for SASL authentication")
    sasl_password: SecretStr | None = Field(None, description="password for SASL authentication")

    @model_validator(mode="after")
    def _check_security(self) -> Self:
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("SSL_CERTFILE and SSL_KEYFILE belong together: set both or neither")
        if self.security_protocol.startswith("SASL") and (self.sasl_username is None or self.sasl_password is None):
            raise ValueError(f"SECURITY_PROTOCOL {self.security_protocol} needs SASL_USERNAME and SASL_PASSWORD")
        if not self.security_protocol.endswith("SSL") and (self.ssl_cafile or self.ssl_certfile):
            raise ValueError(
                f"SECURITY_PROTOCOL {self.security_protocol} does not use SSL_CAFILE and SSL_CERTFILE: "
                "set it to SSL or SASL_SSL"
            )
        return self

    @property
    def client_config(self) -> dict[str, Any]:
        """Arguments that every client of kafka-python takes to connect."""
        config: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers.split(","),
            "bootstrap_timeout_ms": int(self.request_timeout_seconds * 1000),
            # How long after its return a broker is noticed at most. kafka-python's default is half a minute.
            "reconnect_backoff_max_ms": 1_000,
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol.endswith("SSL"):
            files = {"ssl_cafile": self.ssl_cafile, "ssl_certfile": self.ssl_certfile, "ssl_keyfile": self.ssl_keyfile}
            config |= {name: str(file) for name, file in files.items() if file is not None}
        if self.sasl_password is not None and self.security_protocol.startswith("SASL"):
            config |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password.get_secret_value(),
            }
        return config


class TopicsSettings(SettingsSection):
    """Names of the topics, and how ``driftloop topics create`` creates them."""

    predictions: str = Field("predictions", description="name of the topic of predictions")
    outcomes: str = Field("outcomes", description="name of the topic of outcomes")
    drift: str = Field("drift", description="name of the topic of verdicts on drift and quality")
    retrain: str = Field("retrain", description="name of the topic of retrain requests")
    models: str = Field("models", description="name of the topic of retrain states and model changes")
    partitions: int = Field(
        1,
        ge=1,
        description="partitions of the topics of predictions and outcomes: the maximum number of drift workers that "
        "work in parallel",
    )
    replication_factor: int = Field(1, ge=1, description="replicas of each partition; 3 on a cluster")
    retention_days: float = Field(7, gt=0, description="days for which the broker keeps predictions and outcomes")

    def name_of(self, topic: "Topic") -> str:
        """Return the name under which Kafka has the topic of an event class."""
        name: str = getattr(self, topic)
        return name

    def names(self) -> list[str]:
        """Return the names of all topics."""
        return [self.predictions, self.outcomes, self.drift, self.retrain, self.models]


class DeadLetterSettings(SettingsSection):
    """Messages that are no valid events: how many are tolerated, and how much of each is kept."""

    max_consecutive: int = Field(
        20,
        ge=0,
        description="consecutive invalid messages that are moved to the dead letters; one more stops the service",
    )
    max_ratio: Fraction = Field(
        0.2, description="ratio of invalid messages among the latest ones above which the service stops"
    )
    ratio_window: int = Field(
        200, ge=1, description="number of latest messages over which the ratio of invalid messages is computed"
    )
    max_bytes: int = Field(
        900_000,
        ge=20_000,
        description="maximum size of a dead letter in bytes, above which it is cut; must be below the broker's limit, "
        "by default 1 MiB",
    )


class StorageSettings(SettingsSection):
    """The object store with references, archive, reports, datasets and MLflow's artifacts."""

    url: Annotated[str, AfterValidator(require_store_url), AfterValidator(require_store_library)] = Field(
        "gs://driftloop",
        description="URL of the object store: gs://BUCKET, s3://BUCKET, az://CONTAINER or file:///FOLDER; a folder in "
        "the bucket or the container may follow, as in s3://BUCKET/FOLDER",
    )
    endpoint: OptionalUrl = Field(
        None,
        description="URL of a server to use in place of the store's own: one that emulates GCS, which is accessed "
        "without credentials, one that speaks S3's protocol, or Azurite with the account's name, as in "
        "http://127.0.0.1:10000/ACCOUNT",
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_bucket(cls, values: Any) -> Any:
        if isinstance(values, dict) and "bucket" in values:
            raise ValueError(
                "DRIFTLOOP_STORAGE__BUCKET is not read any more: in its place set "
                f"DRIFTLOOP_STORAGE__URL=gs://{values['bucket']}"
            )
        return values

    @model_validator(mode="after")
    def _check_endpoint(self) -> Self:
        if self.endpoint and self.scheme == "file":
            raise ValueError("a file:// URL has no server: unset DRIFTLOOP_STORAGE__ENDPOINT")
        return self

    @property
    def scheme(self) -> str:
        """The kind of store: gs, s3, az or file."""
        return self.url.partition("://")[0]

    @property
    def root(self) -> str:
        """The URL without its scheme: bucket or container with the folder in it, or the path of a local folder."""
        root = self.url.partition("://")[2]
        return unquote(root) if self.scheme == "file" else root


class RegistrySettings(SettingsSection):
    """The MLflow server, the model and alias in its registry, and what its files may contain."""

    uri: Annotated[str, AfterValidator(require_registry_uri)] = Field(
        "http://127.0.0.1:5000",
        description="URL of the MLflow server; or sqlite:///FILE, if the package mlflow is installed besides "
        "mlflow-skinny",
    )
    model: Annotated[str, AfterValidator(require_model_name)] = Field(
        description="name of the registered model, such as loans"
    )
    alias: str = Field("champion", description="alias in the model registry that names the version to serve")
    trusted_types: TextList[Annotated[str, AfterValidator(require_type_name)]] = Field(
        (),
        description="full names of types that a model file may contain besides those that are trusted by default, such "
        "as package.module.Type, separated by commas or as a JSON list; creating them must run no code that the file "
        "chooses",
    )
    drift_pages_url: OptionalUrl = Field(
        None,
        description="URL at which people reach the drift worker's pages, for links from MLflow's pages of versions; if "
        "not set, there are none",
    )


class TracingSettings(SettingsSection):
    """Where traces are sent, and how many requests are traced."""

    endpoint: OptionalUrl = Field(
        None,
        description="URL that accepts traces by OTLP over HTTP, such as http://127.0.0.1:4318; if not set, no traces "
        "are sent",
    )
    sample_ratio: Fraction = Field(
        0.01,
        description="ratio of requests to trace among those without a traceparent header; a request with one is traced "
        "if the header says so",
    )


class LogSettings(SettingsSection):
    """How the log on standard error is written."""

    format: Literal["json", "human"] | None = Field(
        None,
        description="json for one JSON object a line, human for lines for people; if not set, human on a terminal and "
        "json elsewhere",
    )
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe level that is logged")


class ServerSettings(SettingsSection):
    """Where a service listens."""

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all interfaces")
    port: Port = Field(description="port to listen on")


class Settings(BaseSettings):
    """Settings that every service needs."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", frozen=True)

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicsSettings = TopicsSettings()
    tracing: TracingSettings = TracingSettings()
    log: LogSettings = LogSettings()
    instance_id: str = Field(
        default_factory=socket.gethostname,
        description="unique name of this process among those of its service, the same after a restart; by default the "
        "host name",
    )


AnySettings = TypeVar("AnySettings", bound=BaseSettings)


class Variable(NamedTuple):
    """An environment variable that is read as a setting."""

    name: str
    description: str
    default: str | None
    """The default as it would be written in the environment; ``None`` if the variable is required."""
    choices: tuple[str, ...] = ()
    """The only values that are allowed, by the setting's type; empty if there are others."""


def list_variables(settings: type[BaseModel], prefix: str = PREFIX) -> Iterator[Variable]:
    """List the environment variables that are read into a settings model."""
    for name, field in settings.model_fields.items():
        variable = f"{prefix}{name.upper()}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, SettingsSection):
            yield from list_variables(field.annotation, f"{variable}__")
        else:
            default = None if field.is_required() else _format_default(field)
            yield Variable(variable, field.description or "", default, tuple(_choices(field.annotation)))


def _choices(annotation: Any) -> Iterator[str]:
    """Yield the values of all ``Literal`` types in an annotation."""
    if get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    else:
        for part in get_args(annotation):
            yield from _choices(part)


def _format_default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return f"{field.default_factory.__name__}()"
    match field.default:
        case None | "" | ():
            return "not set"
        case str() | Path() as text:
            return str(text)
        case BaseModel() as model:
            return model.model_dump_json(exclude_defaults=True)
        case value:
            return json.dumps(value)


def load_settings(settings: type[AnySettings]) -> AnySettings:
    """Read settings from the environment.

    Raises:
        InvalidSettings: if variables are missing or invalid; names each of them.
    """
    try:
        return settings()
    except ValidationError as error:
        lines = []
        descriptions = {variable.name: variable.description for variable in list_variables(settings)}
        for problem in error.errors(include_url=False, include_input=False):
            for location in _missing_variables(settings, problem["loc"]):
                parts = [part for part in location if isinstance(part, str)]  # without the position in a list
                name = f"{PREFIX}{'__'.join(parts).upper()}"
                message = problem["msg"].removeprefix("Value error, ")
                if problem["type"] == "missing" and descriptions.get(name):
                    message += f": {descriptions[name]}"
                lines.append(f"{name}: {message}" if parts else message)
        raise InvalidSettings("\n".join(lines)) from None
    except SettingsError as error:  # the value of a section or a collection is not JSON
        raise InvalidSettings(f"{PREFIX}…: {error}: {error.__cause__}") from None


def _missing_variables(settings: type[BaseSettings], location: tuple[int | str, ...]) -> list[tuple[int | str, ...]]:
    """Return the location of an error, or for a missing section the locations of its required fields."""
    if len(location) != 1:
        return [location]
    section = settings.model_fields[str(location[0])].annotation
    if not (isinstance(section, type) and issubclass(section, SettingsSection)):
        return [location]
    return [(*location, name) for name, field in section.model_fields.items() if field.is_required()] or [location]
