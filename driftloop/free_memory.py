"""Return memory that was freed to the operating system, which allocators keep for themselves."""

import ctypes

import pyarrow as pa


def return_free_memory() -> None:
    """Return freed memory of Arrow and of the C library, if it is glibc; others do so by themselves, or cannot.

    A process that replaces many blocks of some kilobytes over time, in several threads, seems to grow: glibc gives back
    only what lies at the end of its heaps. It takes some milliseconds.
    """
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
