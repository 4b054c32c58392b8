"""Reads of an object store in several threads."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

MAX_PARALLEL_READS = 8  # so that hundreds of files take seconds


def map_reads(read: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return the results of reading items, in their order.

    The first exception is raised, and no further read begins after it: a store that is away is waited for once, and not
    again by each thread that has become free.
    """
    failures: list[BaseException] = []

    def read_unless_failed(item: T) -> R:
        if failures:
            raise failures[
                0
            ]  # an earlier item, whose error the caller sees, may come here after a later one has failed
        try:
            return read(item)
        except BaseException as error:
            failures.append(error)
            raise

    with ThreadPoolExecutor(MAX_PARALLEL_READS) as readers:
        return list(readers.map(read_unless_failed, items))
