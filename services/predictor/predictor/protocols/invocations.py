"""MLflow's ``POST /invocations``, read and written by MLflow's own functions: what its server takes, this takes."""

from io import StringIO

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, ErrorCode
from mlflow.pyfunc import _validate_prediction_input
from mlflow.pyfunc.scoring_server import _parse_json_data, parse_csv_input, predictions_to_json
from pydantic_core import to_json

from predictor.batching import Answer
from predictor.protocols.protocol import Asked, Headers, Problem, Reply
from predictor.serving import Serving

CONTENT_TYPES = ("application/json", "text/csv")


class Invocations:
    """What ``mlflow models serve`` speaks."""

    name = "invocations"
    slow = True

    def read(self, serving: Serving, body: bytes, headers: Headers) -> Asked:
        """The columns of the frame that MLflow makes of the body and of the signature."""
        kind, charset = _content_type(headers)
        if kind not in CONTENT_TYPES:
            raise Problem(415, f"the content type must be one of {', '.join(CONTENT_TYPES)}, and is {kind!r}")
        if charset != "utf-8":
            raise Problem(415, f"only UTF-8 is read, and the content type says {charset!r}")
        signature = serving.stored.signature
        try:
            text = body.decode()
            if kind == "text/csv":
                data, params = parse_csv_input(StringIO(text), schema=signature.inputs), None
            else:
                parsed = _parse_json_data(text, serving.stored.description, signature.inputs)
                data, params = parsed.data, parsed.params
            frame, _ = _validate_prediction_input(data, params, signature.inputs, signature.params)
            columns = serving.schema.given(frame)
        except MlflowException as error:
            raise Problem(error.get_http_status_code(), error.message) from error
        except Exception as error:  # MLflow's server tells these apart as little
            raise Problem(400, f"the body cannot be read: {type(error).__name__}: {error}") from error
        return Asked(columns, len(frame), frame.index if isinstance(frame, pd.DataFrame) else None)

    def write(self, model: str, answer: Answer, asked: Asked) -> Reply:  # noqa: ARG002
        """``{"predictions": …}``, as MLflow writes what the estimator gave."""
        written = StringIO()
        predictions_to_json(answer.output.given, written)
        return Reply(written.getvalue().encode())

    def refuse(self, problem: Problem) -> bytes:
        """As MLflow does."""
        code = (
            ErrorCode.Name(BAD_REQUEST) if problem.status == 400 else STATUS_NAMES.get(problem.status, "INTERNAL_ERROR")
        )
        return to_json({"error_code": code, "message": problem.message})


STATUS_NAMES = {
    413: "REQUEST_LIMIT_EXCEEDED",
    415: "BAD_REQUEST",
    422: "INVALID_PARAMETER_VALUE",
    503: "TEMPORARILY_UNAVAILABLE",
}


def _content_type(headers: Headers) -> tuple[str, str]:
    kind, *parameters = headers.get(b"content-type", b"").decode("latin-1").lower().split(";")
    pairs = dict(parameter.strip().partition("=")[::2] for parameter in parameters)
    return kind.strip(), pairs.get("charset", "utf-8").strip('"')
