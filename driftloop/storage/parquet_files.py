"""How Parquet files are recognized, and the errors that Arrow raises for damaged ones."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from driftloop.errors import ArchiveUnreadable

PARQUET_MAGIC = b"PAR1"
"""How a Parquet file begins and ends."""


def is_damage(error: Exception) -> bool:
    """Return whether an error is Arrow's about the contents of a file.

    Most of these are a bare ``OSError`` without a number. Errors of the operating system have one, and those of object
    stores' clients, such as a ``FileNotFoundError``, are of classes of their own.
    """
    return isinstance(error, pa.ArrowException) or (type(error) is OSError and error.errno is None)


@contextmanager
def name_unreadable(url: str) -> Iterator[None]:
    """Raise :class:`ArchiveUnreadable` for Arrow's errors about a file's contents, which do not name the file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if not is_damage(error):
            raise
        raise ArchiveUnreadable(f"{url} is not a readable Parquet file; restore or delete it: {error}") from error
