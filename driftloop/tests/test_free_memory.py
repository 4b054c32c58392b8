import sys
from pathlib import Path

import pytest

from driftloop.free_memory import return_free_memory

BLOCK, BLOCKS = 8_000, 20_000


def resident_mb() -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 2**10


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and glibc is the C library of most of Linux")
def test_memory_between_blocks_that_are_kept_is_returned() -> None:
    blocks = [bytes(BLOCK) for _ in range(BLOCKS)]
    kept = blocks[::20]
    del blocks
    before = resident_mb()
    return_free_memory()
    assert before - resident_mb() > BLOCK * BLOCKS / 2**20 / 2
    assert len(kept) == BLOCKS / 20
