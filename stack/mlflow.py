"""A real MLflow server: runs and versions in SQLite, artifacts in the object store, served by it to clients."""

import os
import sys
from pathlib import Path

from driftloop.settings import StorageSettings
from driftloop.storage.file_systems import azure_connection_string
from stack.component import Component


def mlflow_component(folder: Path, port: int, storage: StorageSettings) -> Component:
    """Describe an MLflow server with its database in ``folder`` and artifacts under ``mlflow/`` in the object store.

    Raises:
        InvalidInput: The store needs environment variables that are not set.
    """
    return Component(
        name="MLflow",
        command=[
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--serve-artifacts"),
            *("--artifacts-destination", artifacts_destination(storage)),
        ],
        port=port,
        port_setting="DRIFTLOOP_STACK__MLFLOW_PORT",
        ready_path="/health",
        environment={
            **_endpoint_variables(storage),
            # not needed on one machine, and slow to start
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        prepare=lambda: folder.mkdir(parents=True, exist_ok=True),
    )


def artifacts_destination(storage: StorageSettings) -> str:
    """Return MLflow's URL of the artifacts below a store."""
    if storage.scheme != "az":
        return f"{storage.url}/mlflow"
    container, _, folder = f"{storage.root}/mlflow".partition("/")
    # MLflow takes the account from here only if the environment has no connection string.
    account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "account")
    return f"wasbs://{container}@{account}.blob.core.windows.net/{folder}"


def _endpoint_variables(storage: StorageSettings) -> dict[str, str]:
    """Return the variables by which MLflow finds a server in the place of the store's own."""
    match storage.scheme, storage.endpoint:
        case "gs", str(endpoint):
            return {"STORAGE_EMULATOR_HOST": endpoint}
        case "s3", str(endpoint):
            return {"MLFLOW_S3_ENDPOINT_URL": endpoint}
        case "az", str(endpoint):
            return {"AZURE_STORAGE_CONNECTION_STRING": azure_connection_string(endpoint)}
    return {}
