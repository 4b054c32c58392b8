"""MLflow's ``POST /invocations``.

MLflow's own functions decode and encode, so that the predictor accepts what MLflow's server accepts. Some of them are
private, because MLflow has no public way to parse a request without a server or to enforce a signature on its own. So
the requirement of ``mlflow-skinny`` has an upper bound, and ``tests/test_mlflow_internals.py`` fails if one changes.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models.utils import _enforce_params_schema
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INVALID_PARAMETER_VALUE, ErrorCode
from mlflow.pyfunc.scoring_server import _decode_json_input, _parse_json_data, predictions_to_json
from pydantic import ValidationError
from pydantic_core import to_json

from predictor.http.protocols.base import DecodedRequest, EncodedResponse, Headers, RequestError
from predictor.http.protocols.native import validation_error
from predictor.serving.annotations import NO_ANNOTATIONS, InvalidAnnotations, take_annotations
from predictor.serving.batching import PredictionResult
from predictor.serving.conversion import convert_columns
from predictor.serving.schema import InvalidCell, MissingColumn, Schema
from predictor.serving.serving_model import ServingModel

Cells = Mapping[str, Sequence[Any]]
"""Values by column, before any conversion."""

ROW_KEYS = ("dataframe_records", "instances", "inputs")
CONTENT_TYPES = ("application/json", "text/csv")
ERROR_CODES = {
    400: ErrorCode.Name(BAD_REQUEST),
    413: "REQUEST_LIMIT_EXCEEDED",
    415: ErrorCode.Name(BAD_REQUEST),
    422: ErrorCode.Name(INVALID_PARAMETER_VALUE),
    503: "TEMPORARILY_UNAVAILABLE",
}
MAX_CELLS = 10_000_000
"""pandas pads short rows to the widest, and numpy pads short strings to the longest, so that a few bytes can demand a
lot of memory. This many cells take 80 MB; 4 MB of JSON without padding contain a fifth of it."""
MIN_COLUMN_COST = 1_000  # in cells: a column takes at least as long as this many cells, however few rows it has
JSON_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')


class MlflowProtocol:
    """The protocol of ``mlflow models serve``."""

    name = "invocations"
    blocking = True
    invalid_status = 400

    def decode(self, model: ServingModel, body: bytes, headers: Headers) -> DecodedRequest:
        """Decode JSON or CSV as MLflow does, except that a value which a cast would change is an error."""
        content_type = _content_type(headers)
        signature = model.loaded.signature
        try:
            text = body.decode()
            if content_type == "text/csv":
                _require_bounded(list(csv.reader(StringIO(text))))
                cells, params, annotations = _cells_of_csv(text, model.schema), None, NO_ANNOTATIONS
            else:
                request = _decode_json_input(text)
                annotations = take_annotations(request)
                _require_bounded_json(request, longest_string=max(map(len, JSON_STRING.findall(body)), default=0))
                _, params, _ = _parse_json_data(request, model.loaded.description, signature.inputs)
                cells = _cells_of_json(request, list(model.schema.columns))
            _enforce_params_schema(params, signature.params)
            row_count = len(next(iter(cells.values())))
            columns = convert_columns(model.schema, cells, row_count, "csv" if content_type == "text/csv" else "json")
        except (RequestError, InvalidAnnotations):
            raise
        except InvalidCell as error:
            is_parse_error = content_type == "text/csv" and not isinstance(error, MissingColumn)  # as to MLflow
            code = ErrorCode.Name(BAD_REQUEST if is_parse_error else INVALID_PARAMETER_VALUE)
            raise RequestError(400, f"Failed to enforce the model's schema: {error}", error_code=code) from error
        except ValidationError as error:
            code = ErrorCode.Name(INVALID_PARAMETER_VALUE)
            raise RequestError(400, validation_error(error).message, error_code=code) from error
        except MlflowException as error:
            raise RequestError(error.get_http_status_code(), error.message, error_code=error.error_code) from error
        except Exception as error:  # MLflow's server does not tell these apart either
            raise RequestError(400, f"the body cannot be parsed: {type(error).__name__}: {error}") from error
        return DecodedRequest(columns, row_count, annotations)

    def encode(self, model_name: str, result: PredictionResult, request: DecodedRequest) -> EncodedResponse:  # noqa: ARG002
        """Encode ``{"predictions": …}`` as MLflow writes what the estimator returned."""
        text = StringIO()
        predictions_to_json(result.output.raw, text)
        return EncodedResponse(text.getvalue().encode())

    def encode_error(self, error: RequestError) -> bytes:
        """Encode an error as MLflow does."""
        error_code = error.error_code or ERROR_CODES.get(error.status, "INTERNAL_ERROR")
        return to_json({"error_code": error_code, "message": error.message})


def _cells_of_csv(text: str, schema: Schema) -> Cells:
    """Return the texts of a table by the names in its first line.

    Raises:
        InvalidCell: pandas would read a text of a column of texts as a missing value, for example NA, or would skip the
            blank row of a table with one column.
    """
    frame = pd.read_csv(StringIO(text), dtype=str, keep_default_na=False)
    is_missing = pd.read_csv(StringIO(text), dtype=str).isna() & (frame != "")
    for name in frame.columns.intersection([name for name, column in schema.columns.items() if column.is_text]):
        if is_missing[name].any():
            row = int(is_missing[name].to_numpy().argmax())
            raise InvalidCell(
                f"the column {name}, row {row}: {frame[name].iloc[row]!r} is read as missing; leave the cell empty if "
                "it is, or send it in JSON"
            )
    lines = text.rstrip().splitlines()
    if len(frame.columns) == 1 and "" in lines:
        raise InvalidCell(f"row {lines.index('') - 1} is blank: send a missing value as null in JSON")
    return {str(name): frame[name].tolist() for name in frame.columns}


def _cells_of_json(request: dict[str, Any], names: list[str]) -> Cells:
    """Return the values of a request by column, as the client has written them.

    Raises:
        InvalidCell: They are not a table.
    """
    if split := request.get("dataframe_split"):
        columns = list(map(str, split.get("columns", names)))
        return {name: [row[index] for row in split["data"]] for index, name in enumerate(columns)}
    rows = next((request[key] for key in ROW_KEYS if key in request), None)
    if isinstance(rows, dict):
        cells = {name: cells if isinstance(cells, list) else [cells] for name, cells in rows.items()}
        if len(set(map(len, cells.values()))) > 1:
            raise InvalidCell("the columns have different numbers of rows")
        return cells
    if not isinstance(rows, list) or not rows:
        raise InvalidCell(f"expected rows under one of {', '.join(ROW_KEYS)}")
    if all(isinstance(row, dict) for row in rows):
        return {name: [row.get(name) for row in rows] for name in names if any(name in row for row in rows)}
    if all(isinstance(row, list) and len(row) == len(names) for row in rows):
        return {name: [row[index] for row in rows] for index, name in enumerate(names)}
    if len(names) == 1:
        return {names[0]: rows}
    raise InvalidCell(f"each row must be an object, or a list of {len(names)} values")


def _content_type(headers: Headers) -> str:
    """Return the content type without its parameters, of which MLflow accepts only the charset UTF-8."""
    content_type, *parameters = headers.get(b"content-type", b"").decode("latin-1").lower().split(";")
    content_type = content_type.strip()
    if content_type not in CONTENT_TYPES:
        raise RequestError(415, f"the content type must be one of {', '.join(CONTENT_TYPES)}, not {content_type!r}")
    for parameter in parameters:
        if parameter.strip().replace('"', "") != "charset=utf-8":
            raise RequestError(415, f"only charset=utf-8 is supported, not {parameter.strip()!r}")
    return content_type


def _require_bounded_json(request: dict[str, Any], longest_string: int) -> None:
    """Check the size that each of MLflow's JSON formats would have in memory.

    Raises:
        RequestError: It would be padded to more than :data:`MAX_CELLS`.
    """
    for name in ("dataframe_records", "instances", "inputs"):
        _require_bounded(request.get(name), longest_string)
    if isinstance(split := request.get("dataframe_split"), dict):
        _require_bounded(split.get("data"), longest_string, split.get("index"), split.get("columns"))


def _require_bounded(data: Any, longest_string: int = 0, index: Any = None, header: Any = None) -> None:
    """Check the size that rows, or columns by name, would have in memory.

    Raises:
        RequestError: They would be padded to more than :data:`MAX_CELLS`.
    """
    outer, inner = _dimensions(data)
    rows, columns = (inner, outer) if isinstance(data, dict) else (outer, inner)
    rows, columns = max(rows, *_dimensions(index)), max(columns, *_dimensions(header))
    if max(rows, MIN_COLUMN_COST) * columns > MAX_CELLS or rows * longest_string > MAX_CELLS:
        raise RequestError(
            413,
            f"the request is too large in memory: {rows:,} rows, {columns:,} columns, strings of up to "
            f"{longest_string:,} bytes; send fewer rows",
        )


def _dimensions(items: Any) -> tuple[int, int]:
    """Return the number of items, and the width of each once padded: the longest list, or the union of all keys."""
    items = list(items.values()) if isinstance(items, dict) else items if isinstance(items, list) else []
    keys = {key for item in items if isinstance(item, dict) for key in item}
    return len(items), max([len(keys), *(len(item) for item in items if isinstance(item, list))])
