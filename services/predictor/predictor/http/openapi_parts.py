"""Parts of the API page that several routes share: errors, schemas of errors, contents."""

from collections.abc import Mapping
from typing import Any

JsonObject = dict[str, Any]

REF_TEMPLATE = "#/components/schemas/{model}"
TIME_DESCRIPTION = "When it happened, if that is not now: for replays of the past."
TIME_SCHEMA = {"type": "string", "format": "date-time"}
KEY_DESCRIPTION = "The client's own key of the row, which its outcome may name; for a request of one row."
KEY_SCHEMA = {"type": "string", "minLength": 1, "maxLength": 256}
ERROR_DESCRIPTIONS = {
    400: "The body is not a valid request for the model",
    403: "A web page of another host sent the request",
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


def error_responses(error_schema: JsonObject) -> dict[int | str, JsonObject]:
    """Return the descriptions of all error responses, whose bodies match ``error_schema``, except that of a 403."""
    return {
        str(status): {
            "description": description,
            "content": json_content(DETAIL_SCHEMA if status == 403 else error_schema),
        }
        for status, description in ERROR_DESCRIPTIONS.items()
    }


def request_body(schema_name: str) -> JsonObject:
    """Return the description of an operation whose body matches a schema of the page."""
    return {"requestBody": {"required": True, "content": json_content(ref(schema_name))}}


def ref(name: str) -> dict[str, str]:
    """Return the reference to a schema of the page."""
    return {"$ref": REF_TEMPLATE.format(model=name)}


def json_content(
    schema: Mapping[str, Any], example: Any = None, examples: Mapping[str, Any] | None = None
) -> JsonObject:
    """Return the description of a JSON body, with one example, or with several by name, if there are any."""
    content: JsonObject = {"schema": schema}
    if example:
        content["example"] = example
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"application/json": content}


def csv_content(example: str) -> JsonObject:
    """Return the description of a body in CSV, with an example if it is not empty."""
    content: JsonObject = {"schema": {"type": "string"}}
    if example:
        content["example"] = example
    return {"text/csv": content}
