"""One process of the stack: how it is started and when it is ready."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Component:
    """How to run a component: started in a process group of its own, stopped by SIGTERM."""

    name: str
    command: list[str]
    port: int
    port_setting: str
    """The environment variable that sets the port."""
    ready_path: str | None = None
    """Path that responds with 200 when the component is ready; without one, an open port is enough."""
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[], None] = lambda: None
    """Called before each start."""

    @property
    def url(self) -> str:
        """Address of the component."""
        return f"http://127.0.0.1:{self.port}"
