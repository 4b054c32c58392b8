"""The errors that Arrow raises for files that are no Parquet files, or are damaged."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from driftloop.errors import ArchiveUnreadable


@contextmanager
def name_unreadable(url: str) -> Iterator[None]:
    """Raise :class:`ArchiveUnreadable` for Arrow's errors, which do not name the file.

    For damaged contents Arrow raises a bare ``OSError``; one of the operating system has a number, and is left as it
    is.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ArchiveUnreadable(f"{url} is not a readable Parquet file; restore or delete it: {error}") from error
