"""The predictor's command: starts the relay and the worker processes that serve requests."""

import os
import signal
import sys
import tempfile

import uvicorn

from driftloop.command_line import parse_settings
from predictor.settings import PredictorSettings

DESCRIPTION = "Serves predictions of the version that an alias names, and publishes an event for each response."
EXAMPLE = "DRIFTLOOP_REGISTRY__URI=http://localhost:5000 DRIFTLOOP_REGISTRY__MODEL=loans driftloop-predictor"
METRICS_DIR_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def main() -> None:
    """Serve until SIGTERM or SIGINT; return once open requests are answered and the relay has drained the outbox."""
    settings = parse_settings(PredictorSettings, DESCRIPTION, EXAMPLE)
    # uvicorn shuts down on a signal and then raises it again, which by default would end this process before the relay.
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="driftloop-metrics-") as metrics_dir:
        _share_metrics(metrics_dir)
        _serve(settings)


def _share_metrics(folder: str) -> None:
    """Have this process and all its children write their metrics to ``folder``, where they are added up.

    Raises:
        RuntimeError: prometheus_client has been imported. It reads the variable at its import, and never again.
    """
    if "prometheus_client" in sys.modules:
        raise RuntimeError(f"prometheus_client was imported before {METRICS_DIR_VARIABLE} was set")
    os.environ[METRICS_DIR_VARIABLE] = folder


def _serve(settings: PredictorSettings) -> None:
    # These modules import prometheus_client, see _share_metrics.
    from driftloop.telemetry.logging import configure_logging  # noqa: PLC0415
    from driftloop.telemetry.metrics import configure_metrics  # noqa: PLC0415
    from predictor.outbox.supervision import supervised_relay  # noqa: PLC0415

    configure_logging("predictor", settings.log)
    configure_metrics("predictor")
    with supervised_relay():
        uvicorn.run(
            "predictor.app:create_app",
            factory=True,
            workers=settings.predictor.workers,
            host=settings.predictor.host,
            port=settings.predictor.port,
            log_config=None,
            access_log=False,
            proxy_headers=False,  # client addresses are not used
            timeout_graceful_shutdown=10,
            timeout_worker_healthcheck=30,
        )


if __name__ == "__main__":
    main()
