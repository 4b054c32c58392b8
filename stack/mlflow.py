"""A real MLflow server: runs and versions in SQLite, artifacts in the bucket, served by it to everybody else."""

import sys
from pathlib import Path

from stack.part import Part


def part(folder: Path, port: int, bucket: str, gcs_url: str) -> Part:
    """An MLflow server that keeps its database below ``folder`` and artifacts below ``mlflow/`` in the bucket."""
    return Part(
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
            # what one machine's server has no use for, and what would take long to start
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        prepare=lambda: folder.mkdir(parents=True, exist_ok=True),
    )
