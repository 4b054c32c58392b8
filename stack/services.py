"""The services, and the settings by which they find each other on this machine."""

import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from driftloop.registry.model_registry import ModelRegistry
from driftloop.settings import RegistrySettings
from driftloop.usecase import UseCase
from stack.component import Component
from stack.settings import StackSettings

SHARED = ("drift_worker",)
"""Services that serve all use cases. Like those of a use case they run all the time; the producer is a command."""
OF_EACH_USE_CASE = ("trainer", "predictor")
NAMES = (*OF_EACH_USE_CASE, *SHARED)
"""The services of a stack with one use case."""
BUCKET = "driftloop"  # of the server that emulates GCS
API_KEY = "only-for-this-machine"  # the stack listens on the loopback address only


@dataclass(frozen=True)
class ServedUseCase:
    """A use case on the stack, with all that belongs to it alone."""

    use_case: UseCase
    position: int
    environment: dict[str, str]
    """Variables by which services and commands find the stack and this use case."""
    components: Mapping[str, Component]
    """Predictor and trainer, by the name that the stack has for them."""
    registry: ModelRegistry

    @property
    def name(self) -> str:
        """Name of the use case's model."""
        return self.use_case.name

    def component_name(self, service: str) -> str:
        """Return the name that the stack has for a service of this use case."""
        return _component_name(service, self.name, self.position)

    def component(self, service: str) -> Component:
        """Return a service of this use case."""
        return self.components[self.component_name(service)]

    @property
    def environment_file(self) -> str:
        """Name of the file for ``source``, by which commands find this use case."""
        return "env" if self.position == 0 else f"env-{self.name}"

    def environment_lines(self) -> Iterator[str]:
        """Return the lines of that file."""
        for variable, value in self.environment.items():
            yield f"export {variable}={shlex.quote(value)}"


def served_use_cases(settings: StackSettings, extra_environment: Mapping[str, str]) -> list[ServedUseCase]:
    """Describe the use cases of a stack, in their order."""
    served = []
    for position, (_, use_case) in enumerate(settings.use_case):
        own = environment(settings, position) | dict(extra_environment)
        components = {
            _component_name(service, use_case.name, position): _service(settings, service, own, position)
            for service in OF_EACH_USE_CASE
        }
        registry = ModelRegistry(RegistrySettings(uri=own["DRIFTLOOP_REGISTRY__URI"], model=use_case.name))
        served.append(ServedUseCase(use_case, position, own, components, registry))
    return served


def shared_components(settings: StackSettings, environment: Mapping[str, str]) -> dict[str, Component]:
    """Describe the services that serve all use cases."""
    return {service: _service(settings, service, environment, 0) for service in SHARED}


def environment(settings: StackSettings, position: int = 0) -> dict[str, str]:
    """Return the variables by which services and commands find the stack and the use case at this position."""
    ours = settings.stack
    reference, use_case = settings.use_case[position]
    return {
        "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{ours.kafka_port}",
        "DRIFTLOOP_STORAGE__URL": f"gs://{BUCKET}",
        "DRIFTLOOP_STORAGE__ENDPOINT": f"http://127.0.0.1:{ours.gcs_port}",
        "DRIFTLOOP_REGISTRY__URI": f"http://127.0.0.1:{ours.mlflow_port}",
        "DRIFTLOOP_REGISTRY__MODEL": use_case.name,
        "DRIFTLOOP_USE_CASE": reference,
        "DRIFTLOOP_REGISTRY__DRIFT_PAGES_URL": f"http://127.0.0.1:{settings.port_of('drift_worker')}",
        "DRIFTLOOP_PREDICTOR__PORT": str(settings.port_of("predictor", position)),
        "DRIFTLOOP_PREDICTOR__DATA_DIR": str(predictor_folder(settings) / use_case.name),
        "DRIFTLOOP_DRIFT_WORKER__PORT": str(settings.port_of("drift_worker")),
        "DRIFTLOOP_DRIFT_WORKER__MLFLOW_URL": f"http://127.0.0.1:{ours.mlflow_port}",
        "DRIFTLOOP_TRAINER__PORT": str(settings.port_of("trainer", position)),
        "DRIFTLOOP_TRAINER__API_KEY": API_KEY,
        "DRIFTLOOP_PRODUCER__PREDICTOR_URL": f"http://127.0.0.1:{settings.port_of('predictor', position)}",
    }


def predictor_folder(settings: StackSettings) -> Path:
    """Return the folder in which each model's predictor has a folder of its own."""
    return settings.stack.data_dir.resolve() / "predictor"


def _component_name(service: str, model: str, position: int) -> str:
    """Return the name of a service's component and of its log: for the first use case that of the service."""
    return service if position == 0 else f"{service}-{model}"


def _service(settings: StackSettings, service: str, environment: Mapping[str, str], position: int) -> Component:
    """Describe a service. The predictor counts as started before a version has the alias."""
    port_setting = f"DRIFTLOOP_{service.upper()}__PORT"
    return Component(
        name=service.replace("_", " ") if position == 0 else f"{service} {settings.use_case[position].use_case.name}",
        command=[sys.executable, "-m", f"{service}.main"],
        port=settings.port_of(service, position),
        port_setting=port_setting if position == 0 else f"{port_setting} or DRIFTLOOP_STACK__PORT_STEP",
        ready_path="/readyz" if service != "predictor" else "/healthz",
        environment=environment,
        job=service,
    )
