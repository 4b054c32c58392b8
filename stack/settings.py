"""The stack's settings: ports, and where its data lies."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.settings import PREFIX, Port, SettingsSection


class StackPorts(SettingsSection):
    """Ports of what is not ours; the services have their own settings."""

    data_dir: Path = Field(Path(".stack"), description="everything that the stack writes")
    kafka_port: Port = 9092
    kafka_controller_port: Port = 9093
    gcs_port: Port = 4443
    mlflow_port: Port = 5000
    prometheus_port: Port = 9090


class ServicePort(SettingsSection, extra="ignore"):
    """What the stack has to know of a service: the rest is the service's own."""

    port: Port


class StackSettings(BaseSettings):
    """Everything that the stack reads from the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", frozen=True)

    stack: StackPorts = StackPorts()
    predictor: ServicePort = ServicePort(port=8000)
    drift_worker: ServicePort = ServicePort(port=8001)
    trainer: ServicePort = ServicePort(port=8002)
