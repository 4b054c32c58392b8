"""Child processes that never outlive their parent.

A parent starts a :class:`ChildProcess`; the child calls :func:`exit_with_parent` first. Between them is a pipe, the
lifeline, of which only the parent holds the writing end: reading it in the child ends when the parent closes it or
dies, even by SIGKILL. Children of :mod:`multiprocessing` call the same function, which then uses multiprocessing's own
lifeline.
"""

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Self

LIFELINE_VARIABLE = "LIFELINE_FD"  # without the prefix of the settings, which would reject it as unknown


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module with this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def exit_with_parent(on_parent_exit: Callable[[], None] = lambda: os._exit(1)) -> bool:
    """Exit this process when its parent dies or closes the lifeline.

    Args:
        on_parent_exit: Called from a thread of its own; by default it exits at once, without cleaning up.

    Returns:
        Whether there is a parent to watch. A process that was started by hand has none, and goes on.
    """
    wait = _parent_wait()
    if wait is None:
        return False

    def watch() -> None:
        wait()
        on_parent_exit()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
    return True


def _parent_wait() -> Callable[[], object] | None:
    """Return a function that returns when the parent is gone, or ``None`` if there is no parent to watch."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        return parent.join
    descriptor = os.environ.pop(LIFELINE_VARIABLE, None)  # this process' own children have another one
    if descriptor is None:
        return None
    return lambda: os.read(int(descriptor), 1)  # nobody writes: it returns at the end of the pipe


class ChildProcess:
    """A child process with a lifeline. In a ``with`` statement it is killed at the end of the block."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the process.

        Args:
            command: The program and its arguments; the program should call :func:`exit_with_parent`.
            stdin: As in :class:`subprocess.Popen`; pipes carry text.
            stdout: Likewise.
            stderr: Likewise.
            environment: All its variables; by default those of this process.

        Raises:
            OSError: The program cannot be started.
        """
        child_end, self._lifeline = os.pipe()
        self._lock = threading.Lock()
        self._is_lifeline_open = True
        try:
            self._process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                text=True,
                errors="replace",
                pass_fds=[child_end],
                env={**(os.environ if environment is None else environment), LIFELINE_VARIABLE: str(child_end)},
            )
        except BaseException:
            self._close_lifeline()
            raise
        finally:
            os.close(child_end)

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, or the negated number of the signal that ended the process; ``None`` while it is not known."""
        return self._process.returncode

    def write_line(self, line: str) -> None:
        """Write a line to the child's standard input, which must be a pipe.

        Raises:
            BrokenPipeError: The process has ended.
        """
        if self._process.stdin is None:
            raise ValueError("the child's standard input is no pipe")
        print(line, file=self._process.stdin, flush=True)

    def communicate(self, stdin: str | None = None, timeout_seconds: float | None = None) -> tuple[str, str]:
        """Send ``stdin``, wait for the end of the process, and return what it wrote to its output pipes.

        Raises:
            subprocess.TimeoutExpired: The process still runs.
        """
        stdout, stderr = self._process.communicate(stdin, timeout=timeout_seconds)
        self._close_lifeline()
        return stdout or "", stderr or ""

    def wait(self, timeout_seconds: float | None = None) -> int:
        """Wait for the end of the process and return its exit code.

        Raises:
            subprocess.TimeoutExpired: The process still runs.
        """
        exit_code = self._process.wait(timeout_seconds)
        self._close_lifeline()
        return exit_code

    def stop(self, timeout_seconds: float) -> None:
        """End the process by its lifeline, as if this process had died; kill it after the timeout."""
        self._close_lifeline()
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()

    def kill(self) -> None:
        """Send SIGKILL to the process if it still runs, without waiting for its end."""
        self._process.kill()

    def close(self) -> None:
        """Kill the process if it still runs, wait for its end, and close its pipes."""
        self.kill()
        self._close_lifeline()
        self._process.communicate()

    def _close_lifeline(self) -> None:
        with self._lock:
            if self._is_lifeline_open:
                self._is_lifeline_open = False
                os.close(self._lifeline)

    def __enter__(self) -> Self:
        """Return the process itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the process."""
        self.close()
