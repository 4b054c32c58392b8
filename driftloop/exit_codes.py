"""The exit codes of the project's commands."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit code means; every command uses these."""

    SUCCESS = 0
    ERROR = 1
    """Something is wrong with this machine, such as a package that is not installed."""
    USAGE = 2
    """An option, an argument or a setting is invalid."""
    RETRAIN_REJECTED = 3
    """The gate rejected the challenger."""
    RETRAIN_FAILED = 4
    """The retrain failed."""
    TIMED_OUT = 5
    """The retrain had not ended in time; it goes on."""
    UNAVAILABLE = 6
    """Kafka, the registry, the object store or the trainer does not answer."""
    REFUSED = 7
    """A valid request is refused, or the thing that it names does not exist."""
