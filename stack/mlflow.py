"""A real MLflow server: runs and versions in SQLite, artifacts in the bucket, served by it to clients."""

import sys
from pathlib import Path

from stack.component import Component


def mlflow_component(folder: Path, port: int, bucket: str, gcs_url: str) -> Component:
    """Describe an MLflow server with its database in ``folder`` and artifacts under ``mlflow/`` in the bucket."""
    return Component(
        name="MLflow",
        command=[
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--serve-artifacts"),
            *("--artifacts-destination", f"gs://{bucket}/mlflow"),
        ],
        port=port,
        port_setting="DRIFTLOOP_STACK__MLFLOW_PORT",
        ready_path="/health",
        environment={
            "STORAGE_EMULATOR_HOST": gcs_url,
            # not needed on one machine, and slow to start
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        prepare=lambda: folder.mkdir(parents=True, exist_ok=True),
    )
