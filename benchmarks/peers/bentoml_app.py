"""The model as a BentoML service with adaptive batching; runs in BentoML's environment."""

import os
from pathlib import Path

import bentoml  # type: ignore[import-not-found]  # not in driftloop's environment

from benchmarks.peers.request_body import Pipeline, row_model

FOLDER = Path(os.environ["BENCHMARK_MODEL"])
Row = row_model(FOLDER)


@bentoml.service(workers=1, traffic={"timeout": 30, "max_concurrency": 10_000}, logging={"access": {"enabled": False}})
class Flights:
    """A service with one process, like the other peers; its traffic limits are far above the load."""

    def __init__(self) -> None:
        """Load the model."""
        self.pipeline = Pipeline(FOLDER)

    @bentoml.api(  # type: ignore[untyped-decorator]
        batchable=True, max_batch_size=128, max_latency_ms=int(os.environ["BENCHMARK_MAX_LATENCY_MS"])
    )
    def predict(self, rows: list[Row]) -> list[float]:  # type: ignore[valid-type]
        """Return the probability of the second class for each row of a batch."""
        return self.pipeline.probabilities(rows)
