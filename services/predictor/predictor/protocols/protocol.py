"""What a protocol has to do."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from predictor.batching import Answer
from predictor.schema import Columns
from predictor.serving import Serving

Headers = Mapping[bytes, bytes]
"""A request's headers, their names in lower case."""


class Problem(Exception):
    """A request that is not answered with a prediction."""

    def __init__(
        self, status: int, message: str, details: list[dict[str, Any]] | None = None, *, retry: bool = False
    ) -> None:
        """``details`` names the fields, as pydantic's errors do; with ``retry`` the same may work a little later."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details
        self.retry = retry


class Asked(NamedTuple):
    """A request, translated."""

    columns: Columns
    rows: int
    context: Any = None
    """What the protocol wants to remember for the answer."""


class Reply(NamedTuple):
    """An answer, translated."""

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = b"application/json"


class WireFormat(Protocol):
    """How a protocol says things. Knows no state: it may be called from several threads."""

    name: str
    """Its label in the metrics."""
    slow: bool
    """Whether reading takes so long that it must not hold up the event loop."""

    def read(self, serving: Serving, body: bytes, headers: Headers) -> Asked:
        """Raises :class:`Problem` for what is no request to this version."""

    def write(self, model: str, answer: Answer, asked: Asked) -> Reply:
        """The answer."""

    def refuse(self, problem: Problem) -> bytes:
        """What is said instead of an answer: JSON."""
