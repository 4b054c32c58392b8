"""The same model as a BentoML service with adaptive batching; runs in BentoML's environment."""

import os
from pathlib import Path

import bentoml  # type: ignore[import-not-found]  # not in driftloop's environment

from benchmarks.peers.body import Pipeline, row_model

FOLDER = Path(os.environ["BENCHMARK_MODEL"])
Row = row_model(FOLDER)


@bentoml.service(workers=1, traffic={"timeout": 30, "max_concurrency": 10_000}, logging={"access": {"enabled": False}})
class Flights:
    """One process, as the others; the traffic limits are far above what is sent."""

    def __init__(self) -> None:
        """Loads the model once."""
        self.pipeline = Pipeline(FOLDER)

    @bentoml.api(  # type: ignore[untyped-decorator]
        batchable=True, max_batch_size=128, max_latency_ms=int(os.environ["BENCHMARK_MAX_LATENCY_MS"])
    )
    def predict(self, rows: list[Row]) -> list[float]:  # type: ignore[valid-type]
        """The probability of the second class, for each row of the batch."""
        return self.pipeline.probabilities(rows)
