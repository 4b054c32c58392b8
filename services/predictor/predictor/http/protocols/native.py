"""``POST /predict``: rows by name, typed by the signature; one prediction per row."""

from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from driftloop.events import Label, PredictionValue
from predictor.http.protocols.base import DecodedRequest, EncodedResponse, Headers, RequestError
from predictor.serving.batching import PredictionResult
from predictor.serving.serving_model import ServingModel


class Predictions(BaseModel):
    """The predictions of a request; ``id`` is what outcomes are reported for."""

    id: str
    model: str
    version: str
    predictions: list[PredictionValue]
    classes: list[Label] | None
    """All classes of the classifier in its order, if the predictions are their probabilities; a prediction that is a
    number is the probability of the last one, of two. Null if the predictions are no probabilities."""
    labels: list[Label] | None
    """The class that the model decides for, by row, if the predictions are probabilities."""


MAX_REPORTED_ERRORS = 5_000  # one takes 6 µs and 100 bytes, and 4 MB of JSON can contain 300,000


class NativeProtocol:
    """driftloop's own protocol."""

    name = "predict"
    blocking = False
    invalid_status = 422

    def decode(self, model: ServingModel, body: bytes, headers: Headers) -> DecodedRequest:  # noqa: ARG002
        """Decode ``{"instances": [row, …]}``; an invalid field is reported with its instance."""
        try:
            columns, annotations = model.schema.parse(body)
        except ValidationError as error:
            raise validation_error(error) from error
        return DecodedRequest(columns, len(next(iter(columns.values()))), annotations)

    def encode(self, model_name: str, result: PredictionResult, request: DecodedRequest) -> EncodedResponse:  # noqa: ARG002
        """Encode the result as :class:`Predictions`."""
        return EncodedResponse(
            to_json(
                {
                    "id": result.id,
                    "model": model_name,
                    "version": result.model.version,
                    "predictions": result.scores,
                    "classes": result.model.output.classes,
                    "labels": result.output.labels,
                }
            )
        )

    def encode_error(self, error: RequestError) -> bytes:
        """Encode an error as FastAPI does: ``detail`` is a message or a list of invalid fields."""
        return to_json({"detail": error.details or error.message})


def validation_error(error: ValidationError) -> RequestError:
    """Convert pydantic's error to a 422 in FastAPI's form.

    The invalid values are left out: they may be of any size, and may not even be representable in JSON.
    """
    if error.error_count() > MAX_REPORTED_ERRORS:
        return RequestError(422, f"the body has {error.error_count():,} errors")
    details: list[dict[str, Any]] = [
        {**detail, "loc": ("body", *detail["loc"])}
        for detail in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    location = ".".join(str(step) for step in details[0]["loc"])
    return RequestError(422, f"{location}: {details[0]['msg']}", details)
