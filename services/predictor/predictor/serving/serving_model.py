"""A model version in service: it turns columns into predictions, and records how its requests ended."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from driftloop.errors import InvalidInput
from driftloop.events import Label, now
from driftloop.registry.labelling import Labelling, most_probable, predict_labels
from driftloop.registry.loading import LoadedModel
from driftloop.registry.model_output import ModelOutput, OutputDescription
from driftloop.registry.model_registry import RegisteredVersion
from predictor.serving.schema import Columns, Schema

UNKNOWN_OUTPUT = OutputDescription("number", None, 1)


class PredictionFailed(InvalidInput):
    """The model cannot score these rows; the message says why."""


class RequestRecord:
    """How the requests of one version ended. The scoring thread writes it, and others read it."""

    def __init__(self) -> None:
        """Start without requests."""
        self.consecutive_failures = 0
        """Number of requests that the model has failed for since it last succeeded."""
        self.last_error = ""
        """Why it failed last."""
        self.last_columns: Columns | None = None
        """The rows of the last request that it has succeeded for."""

    @property
    def has_succeeded(self) -> bool:
        """Whether the version has predicted for any request."""
        return self.last_columns is not None

    def add_success(self, columns: Columns) -> None:
        """Record that the model has predicted for a request with these rows."""
        self.consecutive_failures = 0
        self.last_columns = columns

    def add_failure(self, error: str) -> None:
        """Record that the model has failed for a request."""
        self.last_error = error
        self.consecutive_failures += 1


@dataclass(frozen=True, eq=False)
class ServingModel:
    """A loaded model version that can serve."""

    version: str
    schema: Schema
    loaded: LoadedModel
    output: OutputDescription = UNKNOWN_OUTPUT
    """What the predictions mean."""
    labelling: Labelling | None = None
    """How labels beside probabilities are found; ``None`` if there are none."""
    example_output: ModelOutput | None = None
    """The output for one row."""
    loaded_at: datetime = field(default_factory=now)
    record: RequestRecord = field(default_factory=RequestRecord)
    run_id: str | None = None
    """The run that logged the version, see :class:`driftloop.registry.model_registry.RegisteredVersion`."""

    @property
    def identity(self) -> RegisteredVersion:
        """The version with its run."""
        return RegisteredVersion(self.version, self.run_id or "")

    @property
    def classes(self) -> Sequence[Label] | None:
        """The labels that the estimator knows, whatever it predicts of them; ``None`` if it knows none, or several."""
        classes = getattr(self.loaded.estimator, "classes_", None)
        if not isinstance(classes, np.ndarray) or classes.ndim != 1:
            return None
        labels: list[Label] = classes.tolist()
        return labels

    def predict(self, columns: Columns) -> ModelOutput:
        """Call the estimator's method that the model's MLflow description names.

        Raises:
            InvalidOutput: The estimator did not return one valid prediction for each row.
            UnrepresentableValue: The frame cannot hold a value. Exceptions of the estimator pass through, too.
        """
        method = self.loaded.predict_fn
        frame = self.schema.columns_to_frame(columns)
        returned = getattr(self.loaded.estimator, method)(frame)
        output = ModelOutput.from_model(returned, method, len(frame))
        match self.labelling:
            case "most_probable":
                return output._replace(labels=most_probable(output, self.output.classes or []))
            case "predict":
                return output._replace(labels=predict_labels(self.loaded.estimator, frame))
        return output
