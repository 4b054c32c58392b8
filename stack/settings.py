"""Settings of the stack: its use cases, its folder, and the ports of its components."""

from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, Field, InstanceOf, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.settings import PREFIX, Port, TextList
from driftloop.settings_section import SettingsSection
from driftloop.usecase import UseCase
from driftloop.usecase_setting import EXAMPLE, EXPECTED, load_use_case

MAX_PORT = 65_535


class NamedUseCase(NamedTuple):
    """A use case, and the reference by which services find it."""

    reference: str
    use_case: UseCase


def load_named(reference: Any) -> Any:
    """Import the use case that a reference names; a value that is no text is returned as it is.

    Raises:
        ValueError: There is no such use case.
    """
    return NamedUseCase(reference, load_use_case(reference)) if isinstance(reference, str) else reference


def _require_some(named: tuple[NamedUseCase, ...]) -> tuple[NamedUseCase, ...]:
    if not named:  # a minimum length would be reported for each reference that is wrong, too
        raise ValueError(f"it names no use case: {EXPECTED}")
    return named


class StackPorts(SettingsSection):
    """The stack's folder, and the ports of third-party components."""

    data_dir: Path = Field(Path(".stack"), description="folder for everything that the stack writes")
    kafka_port: Port = Field(9092, description="port of the Kafka broker")
    kafka_controller_port: Port = Field(9093, description="port of the Kafka controller")
    gcs_port: Port = Field(4443, description="port of the server that emulates GCS")
    mlflow_port: Port = Field(5000, description="port of the MLflow server")
    prometheus_port: Port = Field(9090, description="port of Prometheus")
    port_step: int = Field(
        10,
        ge=1,
        description="distance of the ports of one use case's predictor and trainer from those of the use case before",
    )


class ServicePort(SettingsSection, extra="ignore"):
    """The port of a service, whose other settings the stack does not need."""

    port: Port = Field(description="port of the service")


class StackSettings(BaseSettings):
    """All settings of the stack."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", frozen=True)

    use_case: Annotated[
        TextList[Annotated[InstanceOf[NamedUseCase], BeforeValidator(load_named)]], AfterValidator(_require_some)
    ] = Field(description=f"module:name of each use case that runs, such as {EXAMPLE}, separated by commas")
    stack: StackPorts = StackPorts()
    predictor: ServicePort = ServicePort(port=8000)
    drift_worker: ServicePort = ServicePort(port=8001)
    trainer: ServicePort = ServicePort(port=8002)

    @model_validator(mode="after")
    def _check_models_are_different(self) -> Self:
        names = [named.use_case.name for named in self.use_case]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"DRIFTLOOP_USE_CASE has more than one use case of the model {', '.join(repeated)}")
        return self

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        last = len(self.use_case) - 1
        for service in ("predictor", "trainer"):
            if (port := self.port_of(service, last)) > MAX_PORT:
                raise ValueError(
                    f"the {service} of {self.use_case[last].use_case.name} would have the port {port}, and the largest "
                    f"is {MAX_PORT}: lower DRIFTLOOP_{service.upper()}__PORT or DRIFTLOOP_STACK__PORT_STEP"
                )
        return self

    def port_of(self, service: str, position: int = 0) -> int:
        """Return the port of a service, or of the one that belongs to the use case at this position."""
        first: int = getattr(self, service).port
        return first + position * self.stack.port_step
