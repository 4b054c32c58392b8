"""The API page: FastAPI's, with the requests for predictions as the version in service takes them."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from predictor.protocols.inference_v2 import Infer
from predictor.protocols.own import Predictions
from predictor.serving import Serving

REF = "#/components/schemas/{model}"
ERROR = {"type": "object", "properties": {"error": {"type": "string"}}}
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
    page["paths"] |= {
        "/predict": _operation(
            "predictions",
            "One prediction an instance",
            _ref("Instances"),
            _ref("Predictions"),
            {"422": ("A wrong field, named with its instance", _ref("HTTPValidationError"))},
        ),
        "/invocations": _operation("MLflow", "What mlflow models serve answers", MLFLOW, {"type": "object"}, {}),
        f"/v1/models/{model}:predict": _operation(
            "KServe V1",
            "Rows by name, or by position",
            _ref("Instances"),
            {"type": "object"},
            {"400": ("No request", ERROR)},
        ),
        f"/v2/models/{model}/infer": _operation(
            "Open Inference Protocol",
            "Columns as tensors",
            _ref("Infer"),
            {"type": "object"},
            {"400": ("No request", ERROR)},
        ),
    }
    return page


def _ref(name: str) -> dict[str, str]:
    return {"$ref": REF.format(model=name)}


def _operation(
    tag: str,
    summary: str,
    request: dict[str, Any],
    answer: dict[str, Any],
    problems: dict[str, tuple[str, dict[str, Any]]],
) -> dict[str, Any]:
    def content(schema: dict[str, Any]) -> dict[str, Any]:
        return {"application/json": {"schema": schema}}

    return {
        "post": {
            "tags": [tag],
            "summary": summary,
            "description": "The request's event is kept before it is answered; the header `Driftloop-Id` is its id.",
            "requestBody": {"required": True, "content": content(request)},
            "responses": {
                "200": {"description": "The predictions", "content": content(answer)},
                **{
                    status: {"description": description, "content": content(schema)}
                    for status, (description, schema) in problems.items()
                },
                "503": {"description": "No version, a full queue or a full outbox: try again"},
            },
        }
    }
