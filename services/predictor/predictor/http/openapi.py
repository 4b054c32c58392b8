"""The API page: FastAPI's, with the requests for predictions as the version in service takes them."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from predictor.http.protocols.native import Predictions
from predictor.http.protocols.open_inference_v2 import Infer
from predictor.serving.model_manager import Serving

REF = "#/components/schemas/{model}"
TIME = "When it happened, where that is not now: for replays of the past."
TIME_SCHEMA = {"type": "string", "format": "date-time"}
PROBLEMS = {
    400: "No request that the model can answer",
    408: "A body that was not complete in time",
    413: "Too large a body or event",
    415: "A compressed body, or another content type",
    422: "A wrong field, named with its instance; or a wrong time",
    503: "No version, a full queue or a full outbox: try again",
}
ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
MLFLOW_ERROR = {
    "type": "object",
    "required": ["error_code", "message"],
    "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
}
DETAIL = {
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
BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
ROWS = {"type": "array", "minItems": 1, "items": {"type": "object"}}
MLFLOW = {
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
        {"type": "object", "required": ["dataframe_records"], "properties": {"dataframe_records": ROWS}},
        {"type": "object", "required": ["instances"], "properties": {"instances": ROWS}},
        {"type": "object", "required": ["inputs"], "properties": {"inputs": {"type": "object"}}},
    ]
}


def openapi(app: FastAPI, model: str, serving: Serving | None) -> dict[str, Any]:
    """The page, in OpenAPI's terms."""
    page = get_openapi(
        title=app.title, version=serving.version if serving else "none", summary=app.summary, routes=app.routes
    )
    instances: dict[str, Any] = {"type": "object"}
    schemas: dict[str, Any] = page.setdefault("components", {}).setdefault("schemas", {})
    if serving is not None:
        instances = dict(serving.schema.json_schema)
        schemas |= instances.pop("$defs", {})
    schemas["Instances"] = instances
    infer = Infer.model_json_schema(ref_template=REF)
    schemas |= infer.pop("$defs")
    schemas |= {"Infer": infer, "Predictions": Predictions.model_json_schema(ref_template=REF)}
    instances, predictions = _json(_ref("Instances")), {"type": "object", "required": ["predictions"]}
    page["paths"] |= {
        "/predict": _operation(
            "predictions", "One prediction an instance", instances, _json(_ref("Predictions")), DETAIL
        ),
        "/invocations": _operation(
            "MLflow",
            "What mlflow models serve answers",
            {**_json(MLFLOW), "text/csv": {"schema": {"type": "string"}}},
            _json(predictions),
            MLFLOW_ERROR,
        ),
        f"/v1/models/{model}:predict": _operation(
            "KServe V1", "Rows by name, or by position", instances, _json(predictions), ERROR
        ),
        f"/v2/models/{model}/infer": _operation(
            "Open Inference Protocol",
            "Columns as tensors",
            {**_json(_ref("Infer")), **BINARY},
            {**_json({"type": "object", "required": ["outputs"]}), **BINARY},
            ERROR,
        ),
    }
    return page


def problems(error: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """What may be answered instead."""
    return {str(status): {"description": PROBLEMS[status], "content": _json(error)} for status in PROBLEMS}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": REF.format(model=name)}


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _operation(
    tag: str, summary: str, request: dict[str, Any], answer: dict[str, Any], error: dict[str, Any]
) -> dict[str, Any]:
    return {
        "post": {
            "tags": [tag],
            "summary": summary,
            "description": "The request's event is kept before it is answered; the header `Driftloop-Id` is its id.",
            "parameters": [{"name": "Driftloop-Time", "in": "header", "description": TIME, "schema": TIME_SCHEMA}],
            "requestBody": {"required": True, "content": request},
            "responses": {
                "200": {
                    "description": "The predictions",
                    "headers": {name: {"schema": {"type": "string"}} for name in ("Driftloop-Id", "Driftloop-Version")},
                    "content": answer,
                },
                **problems(error),
            },
        }
    }
