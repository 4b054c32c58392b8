import threading

import pytest

from driftloop.storage.parallel_reads import MAX_PARALLEL_READS, map_reads


def test_results_are_in_the_order_of_the_items() -> None:
    assert map_reads(lambda item: item * 2, range(50)) == list(range(0, 100, 2))


def test_no_read_begins_after_one_has_failed() -> None:
    """A thread that has failed would take the next item before anybody has seen the error."""
    begun: list[int] = []
    all_begun = threading.Barrier(MAX_PARALLEL_READS)

    def fail(item: int) -> None:
        begun.append(item)
        all_begun.wait(10)
        raise TimeoutError(f"no answer for {item}")

    with pytest.raises(TimeoutError, match="no answer for 0"):
        map_reads(fail, range(100))
    assert sorted(begun) == list(range(MAX_PARALLEL_READS))
