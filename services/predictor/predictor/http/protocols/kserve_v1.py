"""KServe's V1: ``POST /v1/models/{name}:predict``, whose instances are rows by name or by position."""

from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from predictor.http.protocols.base import Asked, Headers, Problem, Reply
from predictor.http.protocols.native import invalid
from predictor.serving.batching import Answer
from predictor.serving.model_manager import Serving


class KServeV1:
    """KServe's first protocol."""

    name = "v1"
    slow = False
    wrong = 400

    def read(self, serving: Serving, body: bytes, headers: Headers) -> Asked:  # noqa: ARG002
        """The instances' columns."""
        schema = serving.schema
        try:
            request = from_json(body)
            instances = request["instances"]
            if instances and all(isinstance(instance, list) for instance in instances):
                instances = [_named(list(schema.columns), number, row) for number, row in enumerate(instances)]
            columns = schema.parse(to_json({"instances": instances}))
        except ValidationError as error:
            too_many = error.errors()[0]["loc"] == ("instances",) and error.errors()[0]["type"] == "too_long"
            raise Problem(422 if too_many else self.wrong, invalid(error).message) from error
        except (ValueError, TypeError, KeyError) as error:
            raise Problem(400, f'expected {{"instances": [row, …]}}: {type(error).__name__}: {error}') from error
        return Asked(columns, len(instances))

    def write(self, model: str, answer: Answer, asked: Asked) -> Reply:  # noqa: ARG002
        """What the estimator gave, as lists."""
        return Reply(to_json({"predictions": answer.output.lists()}))

    def refuse(self, problem: Problem) -> bytes:
        """As KServe does."""
        return to_json({"error": problem.message})


def _named(names: list[str], number: int, row: list[Any]) -> dict[str, Any]:
    if len(row) != len(names):
        raise ValueError(f"instance {number} has {len(row)} values, and the model {len(names)} columns")
    return dict(zip(names, row, strict=True))
