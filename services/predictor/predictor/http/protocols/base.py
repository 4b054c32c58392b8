"""What a protocol has to do."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from predictor.serving.batching import Answer
from predictor.serving.model_manager import Serving
from predictor.serving.schema import Columns

MOST_WORDS = 2_000  # characters of a message: what other people's libraries say may repeat the whole request

Headers = Mapping[bytes, bytes]
"""A request's headers, their names in lower case."""


class Problem(Exception):
    """A request that is not answered with a prediction."""

    def __init__(
        self,
        status: int,
        message: str,
        details: list[dict[str, Any]] | None = None,
        *,
        code: str | None = None,
        retry: bool = False,
    ) -> None:
        """``details`` names the fields, as pydantic's errors do; ``code`` is MLflow's name for the kind of problem.

        With ``retry`` the same may work a little later.
        """
        super().__init__(message)
        self.status = status
        self.message = _printable(message)
        self.details = details
        self.code = code
        self.retry = retry


def _printable(message: str) -> str:
    """As UTF-8 can say it, and without the middle of a long one."""
    if len(message) > MOST_WORDS:
        message = f"{message[: MOST_WORDS // 2]} … {message[-MOST_WORDS // 2 :]}"
    return message.encode(errors="replace").decode()


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
    wrong: int
    """The status of what is understood and is no request that the model can answer."""

    def read(self, serving: Serving, body: bytes, headers: Headers) -> Asked:
        """Raises :class:`Problem` for what is no request to this version."""

    def write(self, model: str, answer: Answer, asked: Asked) -> Reply:
        """The answer."""

    def refuse(self, problem: Problem) -> bytes:
        """What is said instead of an answer: JSON."""
