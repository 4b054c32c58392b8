"""The file system of Azure Blob Storage, whose client gives up within a minute.

The defaults of Azure's library are for programs that nobody waits for: with a server that accepts connections and does
not answer, a single call takes five minutes.
"""

from typing import Any

import adlfs
from azure.storage.blob.aio import BlobServiceClient, ExponentialRetry

CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 10
RETRIES: dict[str, Any] = {"retry_total": 2, "initial_backoff": 1, "increment_base": 2, "random_jitter_range": 1}
"""Tries three times, with pauses of 3 and 5 seconds: a server that refuses connections is given up after 8 seconds, one
that does not answer after 40."""


class AzureFiles(adlfs.AzureBlobFileSystem):  # type: ignore[misc]  # published without types
    """adlfs' file system, which takes no options for the retries of its client."""

    service_client: BlobServiceClient

    def do_connect(self) -> None:
        """Create the client for the account and the credentials that adlfs finds; it connects on first use."""
        super().do_connect()
        default_client = self.service_client
        self.service_client = BlobServiceClient(
            default_client.url,
            credential=default_client.credential,
            retry_policy=ExponentialRetry(**RETRIES),
            connection_timeout=CONNECT_TIMEOUT_SECONDS,
            read_timeout=READ_TIMEOUT_SECONDS,
        )
