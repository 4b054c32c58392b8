"""The floor: FastAPI that validates the request and returns a constant. No FastAPI service can be faster."""

import os
from pathlib import Path

from fastapi import FastAPI

from benchmarks.peers.request_body import Predictions, body_model

Instances = body_model(Path(os.environ["BENCHMARK_MODEL"]))
app = FastAPI()


@app.post("/predict")
async def predict(body: Instances) -> Predictions:  # type: ignore[valid-type]  # known at run time only
    """Return a constant for each row."""
    predictions = [0.5] * len(body.instances)  # type: ignore[attr-defined]
    return Predictions(id="constant", model="flights", version="1", predictions=predictions)


@app.get("/readyz")
async def ready() -> None:
    """Report ready."""
