"""File systems of the object stores, one for each scheme of a URL, and which of their errors mean "try again later".

The libraries are imported when a store is opened: each takes about a second, and those of S3 and Azure are optional.
That they are installed is what the settings require (:func:`driftloop.setting_values.require_store_library`).
"""

import errno
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from driftloop.errors import InvalidInput
from driftloop.settings import StorageSettings
from driftloop.storage.local_files import FolderMissing, LocalFiles

# gcsfs reads this variable when it is imported. With the feature on, it queries whether the bucket has a hierarchical
# namespace, which hangs with servers that merely emulate GCS. Nothing here needs such a namespace.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

# With each of these a server that does not answer is given up within 50 seconds: the watchdog ends a service after a
# minute, before it could say what it waits for.
GCS_TIMEOUT: dict[str, float] = {"sock_connect": 5, "sock_read": 20}
"""In seconds. gcsfs makes six attempts, with pauses of half a minute in all, and one if a server does not answer."""
S3_CONFIG = {"connect_timeout": 5, "read_timeout": 15, "retries": {"mode": "standard", "total_max_attempts": 3}}
"""In seconds, of each attempt."""
UNAVAILABLE_STATUS = {408, 429, 500, 502, 503, 504}
UNAVAILABLE_DISK = {
    *(errno.EDQUOT, errno.EHOSTDOWN, errno.EIO, errno.ENOSPC, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT),
}
"""Errors of a full disk, and of a folder of another machine that does not answer."""


class FileSystem(NamedTuple):
    """The file system of one store."""

    files: Any
    """A file system of fsspec, or :class:`LocalFiles`, which has those of its methods that are needed."""
    prefix: str
    """Begins the file system's paths of all objects, with a slash at its end; empty if there is none."""
    modified_key: str
    """The key under which listings have the time of the last change."""
    is_retriable: Callable[[BaseException], bool]
    """Tells whether an error means that the same call may succeed later."""


def open_file_system(storage: StorageSettings) -> FileSystem:
    """Return the file system of a store, which connects on first use.

    Raises:
        InvalidInput: ``storage.endpoint`` needs environment variables that are not set.
    """
    return _OPENERS[storage.scheme](storage)


def azure_connection_string(endpoint: str) -> str:
    """Return the connection string for a server in Azure's place, with account and key from the environment.

    Raises:
        InvalidInput: A variable is not set.
    """
    account, key = (_require_variable(f"AZURE_STORAGE_ACCOUNT_{name}") for name in ("NAME", "KEY"))
    return f"AccountName={account};AccountKey={key};BlobEndpoint={endpoint}"


def _require_variable(name: str) -> str:
    if value := os.environ.get(name):
        return value
    raise InvalidInput(f"{name} is not set: with DRIFTLOOP_STORAGE__ENDPOINT, az:// needs the account's name and key")


def _open_gcs(storage: StorageSettings) -> FileSystem:
    import aiohttp  # noqa: PLC0415  # see the module
    import gcsfs  # noqa: PLC0415
    from gcsfs.retry import is_retriable  # noqa: PLC0415

    timeout = aiohttp.ClientTimeout(**GCS_TIMEOUT)  # without one, gcsfs waits for ever
    own_server = {"token": "anon", "endpoint_url": storage.endpoint} if storage.endpoint else {}
    files = gcsfs.GCSFileSystem(
        requests_timeout=timeout,
        session_kwargs={"middlewares": [_end_attempts_on_timeout]},
        use_listings_cache=False,
        **own_server,
    )
    return FileSystem(files, f"{storage.root}/", "mtime", is_retriable)


async def _end_attempts_on_timeout(request: Any, send: Callable[[Any], Awaitable[Any]]) -> Any:
    """Raise an error that gcsfs does not repeat; not a closure, since fsspec knows equal clients by their arguments."""
    import aiohttp  # noqa: PLC0415  # see the module

    try:
        return await send(request)
    except aiohttp.SocketTimeoutError as error:
        raise TimeoutError(str(error)) from error


def _open_s3(storage: StorageSettings) -> FileSystem:
    import aiohttp  # noqa: PLC0415  # see the module
    import botocore.exceptions as botocore  # noqa: PLC0415
    import s3fs  # noqa: PLC0415

    connection_errors = (
        *(aiohttp.ClientError, botocore.ConnectionError, botocore.HTTPClientError),
        *(botocore.IncompleteReadError, botocore.ResponseStreamingError),
    )

    def is_retriable(error: BaseException) -> bool:
        if isinstance(error, botocore.ClientError):
            return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in UNAVAILABLE_STATUS
        return isinstance(error, connection_errors)

    files = s3fs.S3FileSystem(endpoint_url=storage.endpoint, config_kwargs=S3_CONFIG, use_listings_cache=False)
    files.retries = 1  # botocore repeats a request already
    return FileSystem(files, f"{storage.root}/", "LastModified", is_retriable)


def _open_azure(storage: StorageSettings) -> FileSystem:
    import azure.core.exceptions as azure  # noqa: PLC0415  # see the module

    from driftloop.storage.azure_files import AzureFiles  # noqa: PLC0415

    def is_retriable(error: BaseException) -> bool:
        if isinstance(error, azure.HttpResponseError):
            return error.status_code in UNAVAILABLE_STATUS
        return isinstance(error, azure.ServiceRequestError | azure.ServiceResponseError)

    connection = azure_connection_string(storage.endpoint) if storage.endpoint else None
    files = AzureFiles(connection_string=connection, use_listings_cache=False)
    return FileSystem(files, f"{storage.root}/", "last_modified", is_retriable)


def _open_folder(storage: StorageSettings) -> FileSystem:
    def is_retriable(error: BaseException) -> bool:
        return isinstance(error, FolderMissing) or (isinstance(error, OSError) and error.errno in UNAVAILABLE_DISK)

    return FileSystem(LocalFiles(Path(storage.root)), "", "mtime", is_retriable)


_OPENERS: dict[str, Callable[[StorageSettings], FileSystem]] = {
    "gs": _open_gcs,
    "s3": _open_s3,
    "az": _open_azure,
    "file": _open_folder,
}


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from: libraries hide a server's status behind errors of their own."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__
