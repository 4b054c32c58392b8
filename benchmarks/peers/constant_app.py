"""The floor: FastAPI that validates the same body and answers a constant. Nothing in FastAPI can be faster."""

import os
from pathlib import Path

from fastapi import FastAPI

from benchmarks.peers.body import Predictions, body_model

Instances = body_model(Path(os.environ["BENCHMARK_MODEL"]))
app = FastAPI()


@app.post("/predict")
async def predict(body: Instances) -> Predictions:  # type: ignore[valid-type]  # known at run time only
    """The same for all."""
    predictions = [0.5] * len(body.instances)  # type: ignore[attr-defined]
    return Predictions(id="constant", model="flights", version="1", predictions=predictions)


@app.get("/readyz")
async def ready() -> None:
    """Always."""
