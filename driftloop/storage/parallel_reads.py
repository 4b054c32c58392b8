"""Reads of an object store in several threads."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

MAX_PARALLEL_READS = 8  # so that hundreds of files take seconds


def map_reads(read: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return the results of reading items, in their order.

    The first exception is raised, and no further read begins after it: a store that is away is waited for once, and not
    again by each thread that has become free.
    """
    has_failed = threading.Event()

    def read_unless_failed(item: T) -> R:
        if has_failed.is_set():
            raise CancelledError
        try:
            return read(item)
        except BaseException:
            has_failed.set()
            raise

    with ThreadPoolExecutor(MAX_PARALLEL_READS) as readers:
        return list(readers.map(read_unless_failed, items))
