"""One process of the stack: what starts it and when it is ready."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Part:
    """How to run a part. Started in a process group of its own, stopped by SIGTERM."""

    name: str
    command: list[str]
    port: int
    port_setting: str
    """The variable that moves the port."""
    ready_path: str | None = None
    """What answers 200 when the part is ready; without one, it is ready when the port accepts connections."""
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[], None] = lambda: None
    """Done before each start."""

    @property
    def url(self) -> str:
        """The part's address."""
        return f"http://127.0.0.1:{self.port}"
