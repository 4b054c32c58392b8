"""The interface of a protocol: it decodes requests, and encodes responses and errors."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from driftloop.errors import DriftloopError
from predictor.serving.annotations import NO_ANNOTATIONS, Annotations
from predictor.serving.batching import PredictionResult
from predictor.serving.schema import Columns
from predictor.serving.serving_model import ServingModel

MAX_MESSAGE_CHARS = 2_000  # an error message of a library may repeat the whole request

Headers = Mapping[bytes, bytes]
"""A request's headers; names are in lower case."""


class RequestError(DriftloopError):
    """A request that gets an error response instead of predictions."""

    def __init__(
        self,
        status: int,
        message: str,
        details: list[dict[str, Any]] | None = None,
        *,
        error_code: str | None = None,
        retryable: bool = False,
    ) -> None:
        """Create the error.

        Args:
            status: The HTTP status.
            message: What is wrong; a long message is truncated.
            details: The invalid fields, in the form of pydantic's errors.
            error_code: MLflow's name for this kind of error.
            retryable: Whether the same request may succeed a few seconds later.
        """
        super().__init__(message)
        self.status = status
        self.message = _truncate(message)
        self.details = details
        self.error_code = error_code
        self.retryable = retryable


def _truncate(message: str) -> str:
    """Cut the middle of a long message, and replace characters that UTF-8 cannot encode."""
    if len(message) > MAX_MESSAGE_CHARS:
        message = f"{message[: MAX_MESSAGE_CHARS // 2]} … {message[-MAX_MESSAGE_CHARS // 2 :]}"
    return message.encode(errors="replace").decode()


class DecodedRequest(NamedTuple):
    """A request as columns."""

    columns: Columns
    row_count: int
    annotations: Annotations = NO_ANNOTATIONS
    id: str | None = None
    """The client's own id of the request."""
    state: Any = None
    """What the protocol needs again to encode the response."""


class EncodedResponse(NamedTuple):
    """A response body with its headers."""

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = b"application/json"


class InferenceProtocol(Protocol):
    """A protocol of prediction requests. It has no state: its methods may be called from several threads at once."""

    name: str
    """The value of the label ``protocol`` in the metrics."""
    blocking: bool
    """Whether decoding takes so long that it must run outside of the event loop."""
    invalid_status: int
    """The HTTP status of a well-formed body that is no valid request for the model."""

    def decode(self, model: ServingModel, body: bytes, headers: Headers) -> DecodedRequest:
        """Decode a request for ``model``.

        Raises:
            RequestError: The body is not a valid request for this model version.
        """

    def encode(self, model_name: str, result: PredictionResult, request: DecodedRequest) -> EncodedResponse:
        """Encode the response to ``request``."""

    def encode_error(self, error: RequestError) -> bytes:
        """Encode an error as the JSON body of a response."""
