"""Plain FastAPI without batching: validates the request and calls the pipeline once per request."""

import os
from pathlib import Path

from fastapi import FastAPI

from benchmarks.peers.request_body import Pipeline, Predictions, body_model

FOLDER = Path(os.environ["BENCHMARK_MODEL"])
Instances = body_model(FOLDER)
pipeline = Pipeline(FOLDER)
app = FastAPI()


@app.post("/predict")
def predict(body: Instances) -> Predictions:  # type: ignore[valid-type]  # known at run time only
    """Return the pipeline's predictions; runs in one of FastAPI's threads."""
    scores = pipeline.probabilities(body.instances)  # type: ignore[attr-defined]
    return Predictions(id="none", model="flights", version="1", predictions=scores)


@app.get("/readyz")
async def ready() -> None:
    """Report ready."""
