"""Local servers that speak the protocols of S3 and of Azure Blob Storage."""

import base64
import secrets
import sys
from pathlib import Path

import fsspec

from driftloop.settings import StorageSettings
from driftloop.storage.file_systems import azure_connection_string
from stack.component import Component
from tests.support.external_tools import require_tool

AWS_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",  # the server accepts any
    "AWS_DEFAULT_REGION": "us-east-1",
}


def s3_component(port: int) -> Component:
    """Describe a server that speaks S3's protocol and has its objects in memory."""
    return Component(
        name="S3",
        command=[sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        port=port,
        port_setting="",
        ready_path="/moto-api/",
    )


def new_azure_account() -> tuple[str, str]:
    """Return name and key of an account that nobody else has."""
    return f"test{secrets.token_hex(4)}", base64.b64encode(secrets.token_bytes(64)).decode()


def azurite_component(folder: Path, port: int, account: str, key: str) -> Component:
    """Describe Azurite with one account. Skip the test if Azurite is not installed."""
    return Component(
        name="Azurite",
        command=[
            *("node", require_tool("azurite-blob"), "--silent", "--disableTelemetry", "--skipApiVersionCheck"),
            *("--location", str(folder), "--blobHost", "127.0.0.1", "--blobPort", str(port)),
        ],
        port=port,
        port_setting="",
        environment={"AZURITE_ACCOUNTS": f"{account}:{key}"},
    )


def create_bucket(storage: StorageSettings) -> None:
    """Create the bucket or the container of a store."""
    endpoint = str(storage.endpoint)
    options = (
        {"endpoint_url": endpoint}
        if storage.scheme == "s3"
        else {"connection_string": azure_connection_string(endpoint)}
    )
    fsspec.filesystem(storage.scheme, **options).mkdir(storage.root)
