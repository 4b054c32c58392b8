"""The API page: FastAPI's, completed by the prediction requests in the form that the version in service accepts."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from predictor.http.protocols.native import Predictions
from predictor.http.protocols.open_inference_v2 import InferenceRequest
from predictor.serving.model_manager import ServingModel

JsonObject = dict[str, Any]

REF_TEMPLATE = "#/components/schemas/{model}"
TIME_DESCRIPTION = "When it happened, if that is not now: for replays of the past."
TIME_SCHEMA = {"type": "string", "format": "date-time"}
ERROR_DESCRIPTIONS = {
    400: "The body is not a valid request for the model",
    408: "The body was not complete in time",
    413: "The body, or the event of the request, is too large",
    415: "The body is compressed or has an unsupported content type",
    422: "A field is invalid, reported with its instance; or the time is",
    503: "No version is in service, or the queue or the outbox is full: try again",
}
ERROR_SCHEMA = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
MLFLOW_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error_code", "message"],
    "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
}
DETAIL_SCHEMA = {
    "type": "object",
    "required": ["detail"],
    "properties": {
        "detail": {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "object", "required": ["type", "loc", "msg"]}},
            ]
        }
    },
}
BINARY_CONTENT = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
ROWS_SCHEMA = {"type": "array", "minItems": 1, "items": {"type": "object"}}
MLFLOW_REQUEST_SCHEMA = {
    "oneOf": [
        {
            "type": "object",
            "required": ["dataframe_split"],
            "properties": {
                "dataframe_split": {
                    "type": "object",
                    "required": ["columns", "data"],
                    "properties": {"columns": {"type": "array"}, "data": {"type": "array", "items": {"type": "array"}}},
                }
            },
        },
        {"type": "object", "required": ["dataframe_records"], "properties": {"dataframe_records": ROWS_SCHEMA}},
        {"type": "object", "required": ["instances"], "properties": {"instances": ROWS_SCHEMA}},
        {"type": "object", "required": ["inputs"], "properties": {"inputs": {"type": "object"}}},
    ]
}


def build_openapi(app: FastAPI, model_name: str, serving: ServingModel | None) -> JsonObject:
    """Build the OpenAPI document of the version in service."""
    document = get_openapi(
        title=app.title, version=serving.version if serving else "none", summary=app.summary, routes=app.routes
    )
    document.setdefault("components", {}).setdefault("schemas", {}).update(_schemas(serving))
    document["paths"].update(_prediction_paths(model_name))
    return document


def error_responses(error_schema: JsonObject) -> dict[int | str, JsonObject]:
    """Return the descriptions of all error responses, whose bodies match ``error_schema``."""
    return {
        str(status): {"description": description, "content": _json_content(error_schema)}
        for status, description in ERROR_DESCRIPTIONS.items()
    }


def _schemas(serving: ServingModel | None) -> JsonObject:
    """Return the schemas that prediction requests and responses refer to."""
    instances: JsonObject = dict(serving.schema.json_schema) if serving else {"type": "object"}
    inference_request = InferenceRequest.model_json_schema(ref_template=REF_TEMPLATE)
    return {
        **instances.pop("$defs", {}),
        **inference_request.pop("$defs"),
        "Instances": instances,
        "InferenceRequest": inference_request,
        "Predictions": Predictions.model_json_schema(ref_template=REF_TEMPLATE),
    }


def _prediction_paths(model_name: str) -> JsonObject:
    instances = _json_content(_ref("Instances"))
    predictions = _json_content({"type": "object", "required": ["predictions"]})
    return {
        "/predict": _operation(
            "predictions", "One prediction per instance", instances, _json_content(_ref("Predictions")), DETAIL_SCHEMA
        ),
        "/invocations": _operation(
            "MLflow",
            "The requests of mlflow models serve",
            {**_json_content(MLFLOW_REQUEST_SCHEMA), "text/csv": {"schema": {"type": "string"}}},
            predictions,
            MLFLOW_ERROR_SCHEMA,
        ),
        f"/v1/models/{model_name}:predict": _operation(
            "KServe V1", "Rows by name or by position", instances, predictions, ERROR_SCHEMA
        ),
        f"/v2/models/{model_name}/infer": _operation(
            "Open Inference Protocol",
            "Columns as tensors",
            {**_json_content(_ref("InferenceRequest")), **BINARY_CONTENT},
            {**_json_content({"type": "object", "required": ["outputs"]}), **BINARY_CONTENT},
            ERROR_SCHEMA,
        ),
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": REF_TEMPLATE.format(model=name)}


def _json_content(schema: Mapping[str, Any]) -> JsonObject:
    return {"application/json": {"schema": schema}}


def _operation(
    tag: str, summary: str, request: JsonObject, response: JsonObject, error_schema: JsonObject
) -> JsonObject:
    return {
        "post": {
            "tags": [tag],
            "summary": summary,
            "description": "The request's event is stored before the response is sent; the header `Driftloop-Id` is "
            "its id.",
            "parameters": [
                {"name": "Driftloop-Time", "in": "header", "description": TIME_DESCRIPTION, "schema": TIME_SCHEMA}
            ],
            "requestBody": {"required": True, "content": request},
            "responses": {
                "200": {
                    "description": "The predictions",
                    "headers": {name: {"schema": {"type": "string"}} for name in ("Driftloop-Id", "Driftloop-Version")},
                    "content": response,
                },
                **error_responses(error_schema),
            },
        }
    }
