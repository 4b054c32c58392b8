"""The predictor without its metrics: nothing that happens is counted."""

from typing import Any

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from predictor.main import main


def nothing(*_: Any, **__: Any) -> None:
    """What a metric does that is not kept."""


if __name__ == "__main__":
    MetricWrapperBase.labels = lambda self, *_, **__: self  # type: ignore[method-assign]  # what is not measured costs nothing
    for kind, *ways in ((Counter, "inc"), (Gauge, "inc", "dec", "set"), (Histogram, "observe")):
        for way in ways:
            setattr(kind, way, nothing)
    main()
