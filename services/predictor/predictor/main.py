"""Starts the predictor: its relay beside it, and the processes that answer."""

import os
import signal
import sys
import tempfile

import uvicorn

from driftloop.settings import command_line
from predictor.settings import PredictorSettings

ABOUT = "Answers requests for predictions with the version that an alias names, and keeps an event of each answer."
EXAMPLE = "DRIFTLOOP_REGISTRY__URI=http://localhost:5000 DRIFTLOOP_REGISTRY__MODEL=flights driftloop-predictor"


def main() -> None:
    """Returns on SIGTERM or SIGINT, once open requests are answered and the relay has drained the outbox."""
    settings = command_line(PredictorSettings, ABOUT, EXAMPLE)
    mine = settings.predictor
    # uvicorn shuts down on a signal and then raises it once more, which by default would end us before the relay.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="driftloop-metrics-") as metrics:
        # Before anything imports prometheus_client, which decides then where metrics are kept: all processes of the
        # predictor write to one folder.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
        from driftloop.telemetry.health import configure_logging, name_build  # noqa: PLC0415
        from predictor.outbox import supervision  # noqa: PLC0415

        configure_logging("predictor", settings.log)
        name_build("predictor")
        with supervision.relay():
            uvicorn.run(
                "predictor.app:create",
                factory=True,
                workers=mine.workers,
                host=mine.host,
                port=mine.port,
                log_config=None,
                access_log=False,
                proxy_headers=False,  # nobody asks who the client is
                timeout_graceful_shutdown=10,
                timeout_worker_healthcheck=30,
            )


if __name__ == "__main__":
    main()
