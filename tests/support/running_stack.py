"""A running stack as tests use it: isolated settings, requests, commands."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from stack.running import Stack
from stack.settings import ServicePort, StackPorts, StackSettings, load_named
from tests.support.ports import reserve_port_series, reserve_ports

FLIGHTS = "usecases.flights:usecase"
RENTALS = "tests.support.regression_usecase:rentals"
PORT_STEP = 7
WINDOW_ROWS = 1_000
"""Rows of a window on the shared stack."""
HOLDOUT_DAYS = 12
"""Days of a holdout on the shared stack."""
FLIGHT = {
    **{"sched_dep_time": 1720, "distance": 1400, "temp": 75.2, "dewp": 66.0, "humid": 73.0, "wind_dir": 200.0},
    **{"wind_speed": 11.5, "wind_gust": None, "precip": 0.0, "pressure": 1011.8, "visib": 10.0, "day_of_week": 3},
    **{"carrier": "UA", "origin": "EWR", "dest": "IAH"},
}
"""A valid instance of a prediction request."""


def isolated_settings(folder: Path, *more_use_cases: str) -> StackSettings:
    """Return settings of a stack for the flights and for more use cases, with reserved ports.

    Args:
        folder: The stack's data folder.
        more_use_cases: References of further use cases.
    """
    kafka, controller, gcs, mlflow, prometheus, drift_worker = reserve_ports(6)
    predictor, trainer = (reserve_port_series(1 + len(more_use_cases), PORT_STEP)[0] for _ in range(2))
    return StackSettings(
        use_case=tuple(load_named(reference) for reference in (FLIGHTS, *more_use_cases)),
        stack=StackPorts(
            data_dir=folder,
            kafka_port=kafka,
            kafka_controller_port=controller,
            gcs_port=gcs,
            mlflow_port=mlflow,
            prometheus_port=prometheus,
            port_step=PORT_STEP,
        ),
        predictor=ServicePort(port=predictor),
        drift_worker=ServicePort(port=drift_worker),
        trainer=ServicePort(port=trainer),
    )


def predict(stack: Stack, *instances: dict[str, Any]) -> httpx.Response:
    """Request predictions for the instances."""
    return httpx.post(stack.components["predictor"].url + "/predict", json={"instances": list(instances)}, timeout=30)


def serves_version(stack: Stack, version: str) -> bool | None:
    """Return True if the predictor responds with this version, else None."""
    response = predict(stack, FLIGHT)
    return True if response.status_code == 200 and response.json()["version"] == version else None


def run_command(stack: Stack, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run an installed command with the settings of the stack."""
    return subprocess.run(
        [str(Path(sys.executable).with_name(arguments[0])), *arguments[1:]],
        env={**os.environ, **stack.environment, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
