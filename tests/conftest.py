"""One real stack for all end-to-end tests, on ports of its own, where what is quiet or held out is short."""

import socket
from collections.abc import Iterator

import pytest

from stack.running import Stack
from stack.settings import Ports, Service, StackSettings

WINDOW_ROWS = 1_000
HELD_OUT_DAYS = 12


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> StackSettings:
    """Settings of the tests' stack."""
    kafka, controller, gcs, mlflow, predictor, drift_worker, trainer = free_ports(7)
    return StackSettings(
        stack=Ports(
            folder=tmp_path_factory.mktemp("stack"),
            kafka_port=kafka,
            kafka_controller_port=controller,
            gcs_port=gcs,
            mlflow_port=mlflow,
        ),
        predictor=Service(port=predictor),
        drift_worker=Service(port=drift_worker),
        trainer=Service(port=trainer),
    )


@pytest.fixture(scope="session")
def stack(settings: StackSettings) -> Iterator[Stack]:
    """The running stack, empty at the start."""
    extra = {
        "DRIFTLOOP_WINDOW__ROWS": str(WINDOW_ROWS),
        "DRIFTLOOP_WINDOW__QUIET_SECONDS": "2",
        "DRIFTLOOP_GATE__HELD_OUT_DAYS": str(HELD_OUT_DAYS),
        "DRIFTLOOP_PREDICTOR__POLL_SECONDS": "0.5",
    }
    with Stack(settings, print, extra) as stack:
        yield stack
