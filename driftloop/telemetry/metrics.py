"""Metrics that every service has, and the configuration of the Prometheus client."""

from importlib.metadata import version

from prometheus_client import Counter, Gauge, disable_created_metrics

BUILD_INFO = Gauge(
    "driftloop_build_info",
    "Always 1; the labels name the service and the installed version of its package.",
    ["service", "version"],
    multiprocess_mode="livemax",
)
BACKGROUND_FAILURES = Counter(
    "driftloop_background_failures_total",
    "Times that a background task, such as one that follows a topic, has failed and was started again. A steady "
    "increase means that it cannot work; GET /readyz says why.",
    ["task"],
)


def configure_metrics(service: str) -> None:
    """Configure the Prometheus client and publish the build of ``service``.

    Call it once, at the start of a service's main process. In a service of several processes, the build is shown for
    as long as the process lives that has called this function, so that must be the one that ends last.

    Args:
        service: The service's name in metrics, such as ``drift_worker``.
    """
    # Without this, each counter has a second series `…_created`, which no query uses.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    BUILD_INFO.labels(service, version(f"driftloop-{service.replace('_', '-')}")).set(1)
