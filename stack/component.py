"""One process of the stack: how it is started and when it is ready."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Component:
    """How to run one component, such as Kafka or a service.

    It is started in a process group of its own and stopped by SIGTERM.
    """

    name: str
    """The component's name for people, such as ``drift worker``."""
    command: list[str]
    port: int
    """The port that it listens on, on the loopback address."""
    port_setting: str
    """The environment variable that sets the port, for messages."""
    ready_path: str | None = None
    """Path that responds with 200 when the component is ready; without one, an open port is enough."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables in addition to those of this process."""
    job: str | None = None
    """The job in Prometheus that scrapes it."""
    prepare: Callable[[], None] = lambda: None
    """Creates the folders and files that the command needs; called before each start."""

    @property
    def url(self) -> str:
        """URL of the component."""
        return f"http://127.0.0.1:{self.port}"
