"""The API page: FastAPI's, completed by the prediction requests in the form that the version in service accepts."""

import re
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from driftloop.privacy import NO_PRIVACY, Privacy
from driftloop.registry.model_output import OutputDescription
from predictor.http.examples import NO_EXAMPLES, RequestExamples
from predictor.http.openapi_parts import (
    DETAIL_SCHEMA,
    ERROR_SCHEMA,
    KEY_DESCRIPTION,
    KEY_SCHEMA,
    MLFLOW_ERROR_SCHEMA,
    REF_TEMPLATE,
    TIME_DESCRIPTION,
    TIME_SCHEMA,
    JsonObject,
    csv_content,
    error_responses,
    json_content,
    ref,
)
from predictor.http.outcomes import OutcomesRequest
from predictor.http.protocols.native import Predictions
from predictor.http.protocols.open_inference_v2 import InferenceRequest
from predictor.serving.serving_model import ServingModel

TAGS = ("predictions", "KServe V1", "Open Inference Protocol", "MLflow", "operation")
"""The groups of routes, in their order on the page."""
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
        {"type": "object", "required": ["instances"], "properties": {"instances": {"type": "array", "minItems": 1}}},
        {"type": "object", "required": ["inputs"], "properties": {"inputs": {"type": ["object", "array"]}}},
    ]
}


def build_openapi(
    app: FastAPI, model_name: str, serving: ServingModel | None, privacy: Privacy = NO_PRIVACY
) -> JsonObject:
    """Build the OpenAPI document of the version in service."""
    document = get_openapi(
        title=app.title,
        version=serving.version if serving else "none",
        summary=app.summary,
        routes=app.routes,
        tags=[{"name": tag} for tag in TAGS],
    )
    _name_by_first_sentence(document)
    examples = RequestExamples.of(serving, privacy) if serving else NO_EXAMPLES
    document.setdefault("components", {}).setdefault("schemas", {}).update(_schemas(serving, examples))
    document["paths"] = {**_prediction_paths(model_name, examples), **document["paths"]}
    if serving:
        native = document["paths"]["/predict"]["post"]["responses"]["200"]
        native["description"] = _describe_predictions(serving.output)
    return document


def _describe_predictions(output: OutputDescription) -> str:
    """Say what the predictions of the version in service mean."""
    classes = output.classes
    match output.kind:
        case "probability" | "log_probability" if classes is not None:
            kind = output.kind.replace("_", " ")
            if output.size == 1:
                return f"Each prediction is the {kind} of the class {classes[-1]!r}"
            return f"Each prediction has the {kind} of each class, in this order: {', '.join(map(repr, classes))}"
        case "label":
            return "Each prediction is a class"
    return "The predictions, as the model returns them"


def _name_by_first_sentence(document: JsonObject) -> None:
    """Name each operation by the first sentence of its description instead of the name of its function."""
    for path in document["paths"].values():
        for operation in path.values():
            if description := operation.pop("description", ""):
                sentence, *rest = re.split(r"\.\s+", description, maxsplit=1)
                operation["summary"] = sentence.removesuffix(".")
                if rest:
                    operation["description"] = rest[0]


def _schemas(serving: ServingModel | None, examples: RequestExamples) -> JsonObject:
    """Return the schemas that requests and responses refer to."""
    instances: JsonObject = dict(serving.schema.json_schema) if serving else {"type": "object"}
    if examples.native:
        instances["example"] = examples.native
    schemas = {"Instances": instances} | {
        model.__name__: model.model_json_schema(ref_template=REF_TEMPLATE)
        for model in (InferenceRequest, Predictions, OutcomesRequest)
    }
    definitions: JsonObject = {}
    for schema in schemas.values():
        definitions |= schema.pop("$defs", {})
    return definitions | schemas


def _prediction_paths(model_name: str, examples: RequestExamples) -> JsonObject:
    """Describe the prediction requests, each with an example that can be sent as it is."""
    name = quote(model_name, safe="")
    predictions = json_content({"type": "object", "required": ["predictions"]})
    return {
        "/predict": _operation(
            "predictions",
            "Predict rows",
            json_content(ref("Instances"), examples.native),
            json_content(ref("Predictions")),
            DETAIL_SCHEMA,
        ),
        f"/v1/models/{name}:predict": _operation(
            "KServe V1",
            "Predict rows, by name or by position",
            json_content(ref("Instances"), examples.native),
            predictions,
            ERROR_SCHEMA,
        ),
        f"/v2/models/{name}/infer": _operation(
            "Open Inference Protocol",
            "Predict rows that are sent as tensors",
            {**json_content(ref("InferenceRequest"), examples.tensors), **BINARY_CONTENT},
            {**json_content({"type": "object", "required": ["outputs"]}), **BINARY_CONTENT},
            ERROR_SCHEMA,
        ),
        "/invocations": _operation(
            "MLflow",
            "Predict rows, as MLflow's server does",
            {
                **json_content(MLFLOW_REQUEST_SCHEMA, examples=examples.mlflow),
                **csv_content(examples.csv),
            },
            predictions,
            MLFLOW_ERROR_SCHEMA,
        ),
    }


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
                {"name": "Driftloop-Time", "in": "header", "description": TIME_DESCRIPTION, "schema": TIME_SCHEMA},
                {"name": "Driftloop-Key", "in": "header", "description": KEY_DESCRIPTION, "schema": KEY_SCHEMA},
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
