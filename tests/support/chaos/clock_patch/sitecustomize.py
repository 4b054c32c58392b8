"""Imported by Python itself at the start of a process that has this folder in its path: its clock can jump.

The file that ``CHAOS_CLOCK_FILE`` names has the seconds by which :func:`time.time` is ahead.
"""

import mmap
import os
import struct
import time

_real_time = time.time
with open(os.environ["CHAOS_CLOCK_FILE"], "rb") as _file:  # noqa: PTH123  # pathlib would make each start slower
    _seconds = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)


def _jumping_time() -> float:
    return _real_time() + float(struct.unpack_from("d", _seconds)[0])


vars(time)["time"] = _jumping_time
