"""A version that serves, and what its outbox holds."""

from typing import Any

import pandas as pd
from mlflow.models import Model, infer_signature
from sklearn.linear_model import LogisticRegression

from driftloop.events import Event, message, read
from driftloop.registry import StoredModel
from predictor.outbox import Outbox
from predictor.schema import schema
from predictor.serving import Serving

FRAME = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "n": [1, 2, 3, 4]})


def serving(
    estimator: Any, frame: pd.DataFrame = FRAME, method: str = "predict_proba", version: str = "7", max_rows: int = 3
) -> Serving:
    """A version in service, of a fitted estimator."""
    signature = infer_signature(frame)
    description = Model(signature=signature, flavors={"python_function": {"predict_fn": method}})
    stored = StoredModel(estimator, description, frame.head(1))
    return Serving(version, schema(signature, frame.head(1), max_rows), stored)


class Always:
    """Stands in for the champion: one version that is never swapped."""

    source, refusal = "alias", None

    def __init__(self) -> None:
        self.serving: Serving | None = serving(LogisticRegression().fit(FRAME, [0, 0, 1, 1]))


def events(outbox: Outbox) -> list[Event]:
    """What is in the outbox, as its readers will see it."""
    messages = [message(event, "predictor") for _, event in outbox.after(0, 1_000)]
    return [read(message.value, message.headers) for message in messages]
