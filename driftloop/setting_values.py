"""Rules for values of settings that a type alone cannot express: each returns the value, or raises what is wrong."""

import json
from importlib.util import find_spec
from typing import Any, Literal
from urllib.parse import urlsplit

from driftloop.events import require_name

ANY_ORIGIN = "*"
SQLITE_PREFIX = "sqlite:///"
STORE_SCHEMES = ("gs", "s3", "az", "file")
STORE_EXTRAS = {"s3": ("s3fs", "s3"), "az": ("adlfs", "azure")}
"""Library and extra by scheme, of the stores whose library is optional."""

MissingValues = Literal["auto", "nan", "none"]
"""What a null in a column of texts or booleans is to the model; ``auto`` finds it out for each column."""


def require_url(url: str) -> str:
    """Return the URL of an HTTP server if it is one.

    Raises:
        ValueError: It has another scheme or none, or no host.
    """
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number, or a bracket is missing
        is_valid = False
    if not is_valid:
        raise ValueError(f"{url!r} is not a URL: it must start with http:// or https:// and name a host")
    return url


def require_store_url(url: str) -> str:
    """Return the URL of an object store without a slash at its end.

    Raises:
        ValueError: It has another scheme or none, names no bucket or folder, or has parts that do not belong there.
    """
    scheme, separator, root = url.rstrip("/").partition("://")
    if not separator or scheme not in STORE_SCHEMES:
        raise ValueError(
            f"{url!r} is not the URL of an object store: it must be gs://BUCKET, s3://BUCKET, az://CONTAINER or "
            "file:///FOLDER"
        )
    if scheme == "file" and not root.startswith("/"):
        raise ValueError(f"{url!r} has no absolute path: write file:// and the path, as in file:///var/lib/driftloop")
    if set(root) & set("@:?#*[]"):  # the message leaves out what may be a password
        raise ValueError(
            f"a URL of {scheme}:// has a bucket or container and a folder, and none of @ : ? # * [ ]: credentials are "
            "taken from the environment, and a server's address from DRIFTLOOP_STORAGE__ENDPOINT"
        )
    if {"", ".", ".."} & set(root.removeprefix("/" if scheme == "file" else "").split("/")):
        raise ValueError(f"{url!r} names no bucket, container or folder, or has an empty part, . or .. in its path")
    return f"{scheme}://{root}"


def require_store_library(url: str) -> str:
    """Return the URL of an object store if the library for its scheme is installed.

    Raises:
        ValueError: It is not; the message names the extra to install.
    """
    scheme = url.partition("://")[0]
    library, extra = STORE_EXTRAS.get(scheme, (None, None))
    if library is not None and find_spec(library) is None:
        raise ValueError(f"{scheme}:// needs {library}, which is not installed: pip install 'driftloop[{extra}]'")
    return url


def require_registry_uri(uri: str) -> str:
    """Return the address of a model registry: a server's URL, or an SQLite file where all of MLflow is installed.

    MLflow's other local addresses are refused. It no longer maintains its folders, and would take an address without
    a scheme for the name of one.

    Raises:
        ValueError: It is neither.
    """
    return uri if uri.startswith(SQLITE_PREFIX) else require_url(uri)


def require_model_name(name: str) -> str:
    """Return the name of a registered model if MLflow accepts it and if it can be the name of a folder.

    Raises:
        ValueError: It cannot be used; the message says why.
    """
    require_name(name)
    if "'" in name and '"' in name:
        raise ValueError(
            f"{name!r} cannot be the name of a model: it has both kinds of quotes, and MLflow's searches can hold only "
            "one of them"
        )
    return name


def require_version(version: str) -> str:
    """Return the number of a version if it is one.

    Raises:
        ValueError: It is no number, such as an alias.
    """
    if not (version.isascii() and version.isdecimal()) or version.startswith("0"):
        raise ValueError(f"{version!r} is not a version: versions are numbers, such as 3")
    return version


def require_origin(origin: str) -> str:
    """Return the origin of a web page in lower case, as browsers send it; ``*`` stands for all origins.

    Raises:
        ValueError: It is no origin: scheme, host and port, if it is not the scheme's own.
    """
    if origin == ANY_ORIGIN:
        return origin
    host = require_url(origin).partition("://")[2]
    if set(host) & set("/?#@"):
        raise ValueError(f"{origin!r} is not an origin: leave out all that follows the host or its port")
    return origin.lower()


def split_list(value: Any) -> Any:
    """Return the items of a text that is a JSON list or separated by commas; other values are returned as they are.

    Raises:
        ValueError: The text begins like a JSON list and is none.
    """
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [item.strip() for item in value.split(",") if item.strip()]


def require_type_name(value: str) -> str:
    """Return the full name of a type as it is.

    Raises:
        ValueError: It is not one, such as ``package.module.Type``.
    """
    if "." not in value or not all(part.isidentifier() for part in value.split(".")):
        raise ValueError(f"{value} is no full name of a type, such as package.module.Type")
    return value
