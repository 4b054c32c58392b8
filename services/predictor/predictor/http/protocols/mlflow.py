"""MLflow's ``POST /invocations``, read and written by MLflow's own functions: what its server takes, this takes."""

import csv
import re
from io import StringIO
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.models.utils import _enforce_params_schema, _enforce_schema
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INVALID_PARAMETER_VALUE, ErrorCode
from mlflow.pyfunc.scoring_server import _decode_json_input, _parse_json_data, parse_csv_input, predictions_to_json
from pydantic_core import to_json

from predictor.http.protocols.base import Asked, Headers, Problem, Reply
from predictor.serving.batching import Answer
from predictor.serving.model_manager import Serving
from predictor.serving.schema import Columns

CONTENT_TYPES = ("application/json", "text/csv")
STATUS_NAMES = {
    400: ErrorCode.Name(BAD_REQUEST),
    413: "REQUEST_LIMIT_EXCEEDED",
    415: ErrorCode.Name(BAD_REQUEST),
    422: ErrorCode.Name(INVALID_PARAMETER_VALUE),
    503: "TEMPORARILY_UNAVAILABLE",
}
MOST_CELLS = 10_000_000
"""pandas fills short rows up to the widest, and numpy short texts up to the longest, so that few bytes can ask for a
great deal of memory. This much takes 80 MB; 4 MB of JSON in which nothing has to be filled up hold a fifth of it."""
COLUMN = 1_000  # cells that take as long as one column, however few rows it has
TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"')


class Invocations:
    """What ``mlflow models serve`` speaks."""

    name = "invocations"
    slow = True
    wrong = 400

    def read(self, serving: Serving, body: bytes, headers: Headers) -> Asked:
        """The columns of the frame that MLflow makes of the body and of the signature."""
        kind = _kind(headers)
        signature = serving.stored.signature
        try:
            text = body.decode()
            if kind == "text/csv":
                _bound(list(csv.reader(StringIO(text))))
                data, params = parse_csv_input(StringIO(text), schema=signature.inputs), None
            else:
                given = _decode_json_input(text)
                _bound_json(given, longest=max(map(len, TEXT.findall(body)), default=0))
                data, params, _ = _parse_json_data(given, serving.stored.description, signature.inputs)
            _enforce_params_schema(params, signature.params)
            columns, rows = _enforced(serving, data)
        except Problem:
            raise
        except MlflowException as error:
            raise Problem(error.get_http_status_code(), error.message, code=error.error_code) from error
        except Exception as error:  # MLflow's server tells these apart as little
            raise Problem(400, f"the body cannot be read: {type(error).__name__}: {error}") from error
        return Asked(columns, rows)

    def write(self, model: str, answer: Answer, asked: Asked) -> Reply:  # noqa: ARG002
        """``{"predictions": …}``, as MLflow writes what the estimator gave."""
        written = StringIO()
        predictions_to_json(answer.output.given, written)
        return Reply(written.getvalue().encode())

    def refuse(self, problem: Problem) -> bytes:
        """As MLflow does."""
        code = problem.code or STATUS_NAMES.get(problem.status, "INTERNAL_ERROR")
        return to_json({"error_code": code, "message": problem.message})


def _enforced(serving: Serving, data: Any) -> tuple[Columns, int]:
    """The columns as the signature wants them, and how many rows they have; MLflow would repeat the data otherwise."""
    try:
        frame = _enforce_schema(data, serving.stored.signature.inputs)
        return serving.schema.given(frame), len(frame)
    except Exception as error:  # as many kinds as there are mistakes
        raise MlflowException.invalid_parameter_value(f"Failed to enforce the model's schema: {error}") from error


def _kind(headers: Headers) -> str:
    """The content type without its parameters, of which MLflow takes one."""
    kind, *parameters = headers.get(b"content-type", b"").decode("latin-1").lower().split(";")
    if kind.strip() not in CONTENT_TYPES:
        raise Problem(415, f"the content type must be one of {', '.join(CONTENT_TYPES)}, and is {kind.strip()!r}")
    for parameter in parameters:
        if parameter.strip().replace('"', "") != "charset=utf-8":
            raise Problem(415, f"only UTF-8 is read, and the content type says {parameter.strip()!r}")
    return kind.strip()


def _bound_json(given: dict[str, Any], longest: int) -> None:
    for name in ("dataframe_records", "instances", "inputs"):
        _bound(given.get(name), longest)
    if isinstance(split := given.get("dataframe_split"), dict):
        _bound(split.get("data"), longest, split.get("index"), split.get("columns"))


def _bound(data: Any, longest: int = 0, index: Any = None, header: Any = None) -> None:
    """Raises :class:`Problem` for rows, or columns by name, that would be filled up to too much."""
    outer, inner = _extent(data)
    rows, columns = (inner, outer) if isinstance(data, dict) else (outer, inner)
    rows, columns = max(rows, *_extent(index)), max(columns, *_extent(header))
    if max(rows, COLUMN) * columns > MOST_CELLS or rows * longest > MOST_CELLS:
        raise Problem(
            413,
            f"{rows:,} rows, {columns:,} columns and texts of up to {longest:,} bytes are more than fits: send less",
        )


def _extent(items: Any) -> tuple[int, int]:
    """How many items there are, and how many places each has: those of the longest list, and the names of all."""
    items = list(items.values()) if isinstance(items, dict) else items if isinstance(items, list) else []
    names = {name for item in items if isinstance(item, dict) for name in item}
    return len(items), max([len(names), *(len(item) for item in items if isinstance(item, list))])
