"""The kinds of errors that callers tell apart. Adapters translate a library's errors into these once, at the edge."""


class DriftloopError(Exception):
    """Base of all errors that this project raises on purpose."""


class DependencyUnavailable(DriftloopError):
    """A dependency does not answer now; the same call may succeed later."""


class BrokerUnavailable(DependencyUnavailable):
    """Kafka does not answer, or has not acknowledged in time."""


class RegistryUnavailable(DependencyUnavailable):
    """The MLflow server or its artifact store does not answer."""


class StorageUnavailable(DependencyUnavailable):
    """The object store does not answer."""


class TrainerUnavailable(DependencyUnavailable):
    """The trainer's API does not answer."""


class InvalidInput(DriftloopError, ValueError):
    """The input can never be processed as it is; the message says what is wrong, where, and what to do."""


class Rejected(DriftloopError):
    """A valid request or model is refused for the stated reason; repeating it does not help."""


class RegistryRefused(Rejected):
    """MLflow answers that it does not do what is asked; the message has its words."""


class ArchiveUnreadable(DriftloopError):
    """A file of the archive cannot be read; the message names the file or the column."""


ERRORS_OF_VALUES = (ArithmeticError, LookupError, TypeError, ValueError)
"""What code raises that meets values which it was not written for."""
