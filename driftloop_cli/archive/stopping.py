"""Stop long work between two files."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from driftloop_cli.console import print_notice

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether a signal has asked the command to stop."""

    def __init__(self) -> None:
        """Start without a request."""
        self.signal_number: int | None = None

    def may_go_on(self) -> bool:
        """Return whether no signal has arrived."""
        return self.signal_number is None

    def exit_if_stopped(self) -> None:
        """End the command with 128 and the signal's number, as shells do, if it was asked to stop."""
        if self.signal_number is not None:
            print_notice("stopped: what is not done yet can be done by the same command later")
            raise typer.Exit(128 + self.signal_number)


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Note SIGINT and SIGTERM in the block; a second one ends the process at once, which harms nothing either."""
    request = StopRequest()
    previous = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, _frame: FrameType | None) -> None:
        request.signal_number = number
        for each, handler in previous.items():
            signal.signal(each, handler)

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
