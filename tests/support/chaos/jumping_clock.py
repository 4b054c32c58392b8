"""A clock of the predictors that jumps when a test wants it to."""

import os
import struct
from pathlib import Path

PATCH_FOLDER = Path(__file__).with_name("clock_patch")
"""Has the module that changes the time of a Python process at its start."""


class JumpingClock:
    """Sets the clocks of all processes that have :attr:`variables` in their environment."""

    def __init__(self, folder: Path) -> None:
        """Let the clocks be right at first; how they differ is in a file in ``folder``."""
        self._file = folder / "clock"
        self._file.write_bytes(struct.pack("d", 0.0))

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a process with this clock."""
        path = os.pathsep.join([str(PATCH_FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {"PYTHONPATH": path, "CHAOS_CLOCK_FILE": str(self._file)}

    def set(self, seconds: float) -> None:
        """Set the clocks ahead by so many seconds."""
        with self._file.open("r+b") as file:  # processes have it in memory: it must not get shorter
            file.write(struct.pack("d", seconds))
