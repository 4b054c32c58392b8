"""KServe's protocol V1: ``POST /v1/models/{name}:predict`` with rows by name or by position."""

from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from predictor.http.protocols.base import DecodedRequest, EncodedResponse, Headers, RequestError
from predictor.http.protocols.native import validation_error
from predictor.serving.annotations import FIELDS
from predictor.serving.batching import PredictionResult
from predictor.serving.serving_model import ServingModel


class KServeV1Protocol:
    """KServe's protocol V1."""

    name = "v1"
    blocking = False
    invalid_status = 400

    def decode(self, model: ServingModel, body: bytes, headers: Headers) -> DecodedRequest:  # noqa: ARG002
        """Decode ``{"instances": [row, …]}``, whose rows are objects or lists."""
        schema = model.schema
        try:
            request = from_json(body)
            instances = request["instances"]
            if instances and all(isinstance(instance, list) for instance in instances):
                names = list(schema.columns)
                instances = [_row_by_position(names, index, values) for index, values in enumerate(instances)]
            beside = {name: request[name] for name in FIELDS if name in request}
            columns, annotations = schema.parse(to_json({"instances": instances, **beside}))
        except ValidationError as error:
            first = error.errors()[0]
            has_too_many_rows = first["loc"] == ("instances",) and first["type"] == "too_long"
            status = 422 if has_too_many_rows else self.invalid_status
            raise RequestError(status, validation_error(error).message) from error
        except (ValueError, TypeError, KeyError) as error:
            raise RequestError(400, f'expected {{"instances": [row, …]}}: {type(error).__name__}: {error}') from error
        return DecodedRequest(columns, len(instances), annotations)

    def encode(self, model_name: str, result: PredictionResult, request: DecodedRequest) -> EncodedResponse:  # noqa: ARG002
        """Encode what the estimator returned as lists."""
        return EncodedResponse(to_json({"predictions": result.output.to_lists()}))

    def encode_error(self, error: RequestError) -> bytes:
        """Encode an error as KServe does."""
        return to_json({"error": error.message})


def _row_by_position(names: list[str], index: int, values: list[Any]) -> dict[str, Any]:
    if len(values) != len(names):
        raise ValueError(f"instance {index} has {len(values)} values, and the model has {len(names)} columns")
    return dict(zip(names, values, strict=True))
