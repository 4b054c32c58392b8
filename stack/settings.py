"""Settings of the stack: its folder, and the ports of its components."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.settings import PREFIX, Port
from driftloop.settings_section import SettingsSection


class StackPorts(SettingsSection):
    """The stack's folder, and the ports of third-party components."""

    data_dir: Path = Field(Path(".stack"), description="folder for everything that the stack writes")
    kafka_port: Port = Field(9092, description="port of the Kafka broker")
    kafka_controller_port: Port = Field(9093, description="port of the Kafka controller")
    gcs_port: Port = Field(4443, description="port of the server that emulates GCS")
    mlflow_port: Port = Field(5000, description="port of the MLflow server")
    prometheus_port: Port = Field(9090, description="port of Prometheus")


class ServicePort(SettingsSection, extra="ignore"):
    """The port of a service, whose other settings the stack does not need."""

    port: Port = Field(description="port of the service")


class StackSettings(BaseSettings):
    """All settings of the stack."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", frozen=True)

    stack: StackPorts = StackPorts()
    predictor: ServicePort = ServicePort(port=8000)
    drift_worker: ServicePort = ServicePort(port=8001)
    trainer: ServicePort = ServicePort(port=8002)
