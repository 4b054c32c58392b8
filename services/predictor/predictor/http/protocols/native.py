"""``POST /predict``: rows by name in, typed by the signature; one prediction a row out."""

from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from driftloop.events import Score
from predictor.http.protocols.base import Asked, Headers, Problem, Reply
from predictor.serving.batching import Answer
from predictor.serving.model_manager import Serving


class Predictions(BaseModel):
    """An answer; ``id`` is what outcomes are reported for."""

    id: str
    model: str
    version: str
    predictions: list[Score]


MOST_MISTAKES = 5_000  # to name: one takes 6 µs and 100 bytes, and 4 MB of JSON have room for 300,000


class Own:
    """driftloop's own way."""

    name = "predict"
    slow = False
    wrong = 422

    def read(self, serving: Serving, body: bytes, headers: Headers) -> Asked:  # noqa: ARG002
        """The instances' columns; a wrong field is named with its instance."""
        try:
            columns = serving.schema.parse(body)
        except ValidationError as error:
            raise invalid(error) from error
        return Asked(columns, len(next(iter(columns.values()))))

    def write(self, model: str, answer: Answer, asked: Asked) -> Reply:  # noqa: ARG002
        """:class:`Predictions`."""
        return Reply(
            to_json({"id": answer.id, "model": model, "version": answer.serving.version, "predictions": answer.scores})
        )

    def refuse(self, problem: Problem) -> bytes:
        """As FastAPI does: ``detail`` is a text, or a list of wrong fields."""
        return to_json({"detail": problem.details or problem.message})


def invalid(error: ValidationError) -> Problem:
    """The wrong fields in FastAPI's shape, without what was given: that may be anything, even no JSON."""
    if error.error_count() > MOST_MISTAKES:
        return Problem(422, f"the body has {error.error_count():,} mistakes")
    details: list[dict[str, Any]] = [
        {**problem, "loc": ("body", *problem["loc"])}
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    where = ".".join(str(step) for step in details[0]["loc"])
    return Problem(422, f"{where}: {details[0]['msg']}", details)
